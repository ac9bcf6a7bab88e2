"""Seats that a member change buys or gives back: the steps of its operation, and their numbers for a quote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.context import Context
from app.domain.ids import SubscriptionId, SubscriptionItemId
from app.domain.roles import Permission, require
from app.domain.seats import (
    Seats,
    capacity,
    lacking,
    owner_takes_seat,
    purchase_item,
    total_after_release,
)
from app.domain.snapshots import JsonObject
from app.domain.statuses import entitlements
from app.domain.views import SubscriptionView
from app.errors import Conflict
from app.identity.actors import Actor
from app.mirror.store import members
from app.mirror.visibility import read
from app.operations import seat_store, waiting_store
from app.operations import store as operations
from app.operations.step_kinds import StepKind
from app.postgres.database import Connection
from app.sharing import store as transfers
from app.sharing.member_changes import (
    Action,
    Decision,
    Verdict,
    admit,
    permissions_needed,
    seats_required,
)
from app.sharing.people import AskedChange, find_people, refuse_twice
from app.subscriptions.quotes import use_quote
from app.subscriptions.seat_purchases import seats_update
from app.subscriptions.seat_steps import unpriced_raise
from app.subscriptions.superseding import MustSupersede

UNLIMITED = 2**31


@dataclass(frozen=True, slots=True)
class Purchasing:
    """How a call buys the seats that it lacks, or gives back those of removed members.

    `item_id`: the item, if several items give seats. `releases`: seats are given back, and none are bought.
    `untested`: the test that comes before anybody is removed, because Stripe was away, see `seat_releases.CreditTest`.
    """

    item_id: SubscriptionItemId | None = None
    quote_id: str | None = None
    proration_behavior: str | None = None
    forgo_credit: bool = False
    releases: bool = False
    untested: JsonObject | None = None


async def check_alone(connection: Connection, subscription_id: SubscriptionId) -> None:
    """Raise Conflict `operation_in_progress` while a change of the subscription may still take effect."""
    if await operations.subscription_change_runs(connection, subscription_id, beside_payment=True):
        raise Conflict("Another change of this subscription is still running.", retry_after=2)


async def seats_lacking(
    context: Context, connection: Connection, view: SubscriptionView, *, freed: int = 0, added: int = 0
) -> dict[str, int] | None:
    """Return the details of `seat_limit_reached`, or None if there are enough seats.

    The caller holds the subscription's lock. `freed` and `added`: the seats that the caller's change frees and fills.
    A seat that is reserved already counts without `added`.
    """
    seats = view.seats(owner_uses_seat=context.rules.owner_uses_seat)
    target = await seat_store.lowest_target(connection, view.id)
    return lacking(seats, capacity(seats, target), freed=freed, added=added)


async def check_owner_is_certain(context: Context, connection: Connection, view: SubscriptionView) -> None:
    """Check that no transfer is under way by which a seat that looks free is taken.

    The seat that a new owner uses is the former owner's. It looks free if metadata names no owner that exists, even if
    the payer is the owner then. A former owner whose metadata makes them a member takes a seat from then on.

    Raises:
        Conflict: `operation_in_progress`.
    """
    owner_id = None if view.owner is None else view.owner.customer_id
    takes_seat = owner_takes_seat(view.seat_items(), default=context.rules.owner_uses_seat)
    is_unnamed = owner_id is None or view.named_owner_id is None
    is_member = owner_id is not None and await members.is_member(connection, view.id, owner_id)
    if not is_member and not (takes_seat and is_unnamed):
        return
    if await transfers.other_owner_is_named(connection, view.id, owner_id):
        raise Conflict("The owner of this subscription is being changed.", retry_after=2)


async def supersede_by(
    context: Context,
    connection: Connection,
    view: SubscriptionView,
    buying: JsonObject,
    *,
    ends_later: bool,
) -> None:
    """Let the step end another purchase that waits for its payment, if it may.

    Raises:
        MustSupersede: That purchase is to end before, and the raise is to be priced first.
    """
    if not await waiting_store.of_subscription(connection, view.id):
        return
    details = buying["details"]
    if not ends_later:
        raise MustSupersede(unpriced_raise(context, details))
    # A release that knows no `ends_waiting` finds no quantity, so it cannot send the raise over what waits.
    details["ends_waiting"] = details.pop("quantity")
    details["only_from"] = purchase_item(view.seat_items(), details["item_id"]).quantity or 0


def numbers_from(buying: JsonObject) -> int:
    """Return the quantity from which the numbers of the additions count that wait for this purchase of seats.

    If it is to end another purchase, they count only once that has ended: its seats, if it was paid, are not theirs.
    """
    details = buying["details"]
    return UNLIMITED if "ends_waiting" in details else int(details["quantity"])


def seats_left_after(decisions: Sequence[Decision], seats: Seats) -> int:
    """Return the seats that are left once every removal that may run was applied."""
    removed = sum(d.change.action is Action.REMOVE and d.verdict is Verdict.RUN for d in decisions)
    added = seats_required(decisions, seats) - seats.used - seats.reserved + removed
    then = seats._replace(used=seats.used - removed + added)
    return min(seats.total, total_after_release(then, removed))


async def release_step(
    connection: Connection,
    actor: Actor,
    view: SubscriptionView,
    fewer: int,
    purchasing: Purchasing,
    position: int,
) -> JsonObject:
    """Return the step that gives seats back, once it is known who was removed.

    Raises:
        Conflict: `quote_expired`.
        InvalidRequest: `seat_item_ambiguous`.
    """
    item = purchase_item(view.seat_items(), purchasing.item_id)
    details: JsonObject = {"item_id": item.id, "forgo_credit": purchasing.forgo_credit}
    if purchasing.untested is not None:
        details["untested"] = purchasing.untested
    if purchasing.proration_behavior is not None:
        details["proration_behavior"] = purchasing.proration_behavior
    if purchasing.quote_id is not None:
        quantity = max(1, (item.quantity or 0) - fewer)
        change = seats_update(item, quantity, purchasing.quote_id, purchasing.proration_behavior)
        await use_quote(connection, actor, view, change, is_computed=True)
        details["quote_id"] = purchasing.quote_id
    return {
        "position": position,
        "action": StepKind.RELEASE_SEATS.value,
        "state": "planned",
        "details": details,
    }


@dataclass(frozen=True, slots=True)
class Release:
    """What a call that gives seats back leaves. `removed`: members it removes."""

    total: int
    removed: int


async def release_of(
    context: Context, actor: Actor, subscription_id: SubscriptionId, asked: Sequence[AskedChange]
) -> Release:
    """Return what giving back the seats of a call's removals would leave.

    Raises:
        NotFound: the actor may not see the subscription.
        Forbidden: `role_required`.
        InvalidRequest: one person is named twice.
    """
    async with context.database.connection() as connection:
        seen = await read(connection, actor, subscription_id, context.rules)
        changes = await find_people(
            connection, actor, seen.view, asked, limit=context.rules.memberships_per_customer, lock=False
        )
    require(seen.granted, Permission.BUY_SEATS, *sorted(permissions_needed(changes)))
    refuse_twice(changes, asked, actor)
    seats = seen.view.seats(owner_uses_seat=context.rules.owner_uses_seat)
    allowed = entitlements(
        seen.view.status, past_due_allows_new_seats=context.rules.past_due_allows_new_seats
    )
    decisions = admit(changes, seats=seats, capacity=capacity(seats), entitlements=allowed)
    removed = sum(d.change.action is Action.REMOVE and d.verdict is Verdict.RUN for d in decisions)
    return Release(seats_left_after(decisions, seats), removed)


async def seats_needed(
    context: Context, actor: Actor, subscription_id: SubscriptionId, asked: Sequence[AskedChange]
) -> int:
    """Return the total that a call would need, at least the present one, for a quote.

    Raises:
        NotFound: the actor may not see the subscription.
        Forbidden: `role_required`.
        InvalidRequest: one person is named twice.
    """
    async with context.database.connection() as connection:
        seen = await read(connection, actor, subscription_id, context.rules)
        changes = await find_people(
            connection, actor, seen.view, asked, limit=context.rules.memberships_per_customer, lock=False
        )
    require(seen.granted, *sorted(permissions_needed(changes)))
    refuse_twice(changes, asked, actor)
    seats = seen.view.seats(owner_uses_seat=context.rules.owner_uses_seat)
    allowed = entitlements(
        seen.view.status, past_due_allows_new_seats=context.rules.past_due_allows_new_seats
    )
    decisions = admit(changes, seats=seats, capacity=UNLIMITED, entitlements=allowed)
    return max(seats.total, seats_required(decisions, seats))


async def purchase_step(
    connection: Connection,
    actor: Actor,
    view: SubscriptionView,
    decisions: Sequence[Decision],
    seats: Seats,
    purchasing: Purchasing,
) -> JsonObject:
    """Return the step that buys the seats of a call, in one write of the quantity.

    Raises:
        Conflict: `quote_expired`.
        InvalidRequest: `seat_item_ambiguous`.
    """
    item = purchase_item(view.seat_items(), purchasing.item_id)
    quantity = (item.quantity or 0) + seats_required(decisions, seats) - seats.total
    details: JsonObject = {"item_id": item.id, "quantity": quantity, "forgo_credit": purchasing.forgo_credit}
    if purchasing.proration_behavior is not None:
        details["proration_behavior"] = purchasing.proration_behavior
    if purchasing.quote_id is not None:
        change = seats_update(item, quantity, purchasing.quote_id, purchasing.proration_behavior)
        await use_quote(connection, actor, view, change, is_computed=True)
        details["quote_id"] = purchasing.quote_id
    return {"position": 0, "action": StepKind.BUY_SEATS.value, "state": "planned", "details": details}
