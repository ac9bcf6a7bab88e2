"""A change of a subscription's members: admitted under the subscription's lock, then run, then answered per person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from app.context import Context
from app.customers import failures
from app.domain.ids import CustomerId, SubscriptionId, SubscriptionItemId
from app.domain.roles import Permission, Role, require
from app.domain.seats import Seats, capacity, is_shareable, purchase_item, total_after_release
from app.domain.snapshots import JsonObject
from app.domain.statuses import ENDED, entitlements
from app.domain.views import SubscriptionView
from app.errors import Conflict, FieldError, InvalidRequest
from app.identity.actors import Actor
from app.mirror.store import subscriptions
from app.mirror.visibility import read
from app.operations import people_store, waiting_store
from app.operations import store as operations
from app.operations.people_store import FoundPerson
from app.operations.step_kinds import StepKind
from app.postgres.database import Connection, UniqueViolation
from app.sharing.member_changes import (
    Action,
    Decision,
    MemberChange,
    Person,
    Verdict,
    additions_that_fit,
    admit,
    permissions_needed,
    seats_required,
)
from app.sharing.people import as_person, by_email
from app.subscriptions.quotes import use_quote
from app.subscriptions.seat_purchases import seats_update
from app.subscriptions.superseding import MustSupersede, superseding

_ADMISSION_TRIES = 5
UNLIMITED = 2**31


@dataclass(frozen=True, slots=True)
class AskedChange:
    """One change as the caller wrote it: an add names an e-mail (lower case) or a customer, others a customer."""

    action: Action
    pointer: str
    email: str | None = None
    customer_id: CustomerId | None = None
    role: Role | None = None


@dataclass(frozen=True, slots=True)
class Purchasing:
    """How a call that may buy seats, or gives back those of removed members, does it.

    `item_id` where several items give seats. `releases`: it gives seats back, and buys none.
    """

    item_id: SubscriptionItemId | None = None
    quote_id: str | None = None
    proration_behavior: str | None = None
    forgo_credit: bool = False
    releases: bool = False


@dataclass(frozen=True, slots=True)
class Admitted:
    """`again`: an earlier request with the same Idempotency-Key began this operation, and runs it."""

    operation_id: str
    lease_token: UUID
    anything_to_run: bool
    again: bool = False


async def admit_changes(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    asked: Sequence[AskedChange],
    operation_id: str,
    purchasing: Purchasing | None = None,
) -> Admitted:
    """Judges the call in one transaction and writes the operation with its steps and reservations.

    With `purchasing` the seats that are missing are bought first, in one write. Raises NotFound, Forbidden
    `role_required`, Conflict `not_shareable` or `quote_expired`, InvalidRequest for one person named twice.
    """

    async def admitted() -> Admitted:
        return await _admit_again(context, actor, subscription_id, asked, operation_id, purchasing)

    return await superseding(context, actor, subscription_id, admitted)


async def _admit_again(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    asked: Sequence[AskedChange],
    operation_id: str,
    purchasing: Purchasing | None,
) -> Admitted:
    for last_try in (False,) * (_ADMISSION_TRIES - 1) + (True,):
        try:
            async with context.database.transaction() as connection:
                await subscriptions.lock(connection, subscription_id)
                return await _admit(
                    context, connection, actor, subscription_id, asked, operation_id, purchasing
                )
        except UniqueViolation:
            # Another subscription's operation promised one of these people a seat since we looked: look again.
            if last_try:
                raise Conflict("These people are being added elsewhere right now.") from None
    raise AssertionError("the last try returns or raises")


async def leave(
    context: Context, actor: Actor, subscription_id: SubscriptionId, operation_id: str
) -> Admitted:
    """A member gives his own seat back, whatever the subscription's status. Raises Conflict `owner_cannot_leave`."""
    async with context.database.transaction() as connection:
        await subscriptions.lock(connection, subscription_id)
        seen = await read(connection, actor, subscription_id, context.rules)
        if seen.role is Role.OWNER:
            raise Conflict("Transfer the subscription before you leave it.", code="owner_cannot_leave")
        if seen.role is None or actor.customer_id is None:
            raise InvalidRequest("A service key must say who leaves: X-Acting-Customer.")
        require(seen.granted, Permission.LEAVE)
        if await operations.operation(connection, operation_id) is not None:
            return Admitted(operation_id, uuid4(), anything_to_run=True, again=True)
        person = Person(actor.customer_id, member_role=seen.view.asker_role)
        step = _step(0, Decision(MemberChange(Action.REMOVE, person), Verdict.RUN))
        return await insert_steps(
            context, connection, actor, subscription_id, operation_id, "leave", [step], {}
        )


async def _admit(
    context: Context,
    connection: Connection,
    actor: Actor,
    subscription_id: SubscriptionId,
    asked: Sequence[AskedChange],
    operation_id: str,
    purchasing: Purchasing | None,
) -> Admitted:
    seen = await read(connection, actor, subscription_id, context.rules)
    changes = await _find_people(connection, actor, seen.view, asked)
    require(seen.granted, *sorted(permissions_needed(changes)))
    _refuse_twice(changes, asked, actor)
    if await operations.operation(connection, operation_id) is not None:
        return Admitted(operation_id, uuid4(), anything_to_run=True, again=True)
    if not is_shareable(seen.view.seat_items()) and any(c.action is Action.ADD for c in changes):
        raise Conflict("No product of this subscription supports sharing.", code="not_shareable")
    seats = seen.view.seats(owner_uses_seat=context.rules.owner_uses_seat)
    target = await operations.lowest_target(connection, subscription_id)
    may_be_filled = capacity(seats, target)
    allowed = entitlements(
        seen.view.status, past_due_allows_new_seats=context.rules.past_due_allows_new_seats
    )
    decisions = admit(changes, seats=seats, capacity=may_be_filled, entitlements=allowed)
    steps: list[JsonObject] = []
    named = len(decisions)
    bought: tuple[str, int] | None = None
    buying: JsonObject | None = None
    releasing = purchasing is not None and purchasing.releases
    if (
        purchasing is not None
        and not releasing
        and any(decision.code == "seat_limit_reached" for decision in decisions)
    ):
        require(seen.granted, Permission.BUY_SEATS)
        await failures.check(connection, actor)
        await _check_alone(connection, subscription_id)
        decisions = admit(changes, seats=seats, capacity=UNLIMITED, entitlements=allowed)
        buying = await _buying(connection, actor, seen.view, decisions, seats, purchasing)
        bought = (buying["details"]["item_id"], buying["details"]["quantity"])
        await _check_nothing_waits(context, connection, seen.view, buying, purchasing)
        named = additions_that_fit(decisions, seats, may_be_filled)
    for decision in decisions:
        is_addition = decision.verdict is Verdict.RUN and decision.change.action is Action.ADD
        named -= is_addition
        steps.append(_step(len(steps), decision, awaits_seats=is_addition and named < 0))
    if buying is not None:
        steps.append({**buying, "position": len(steps)})
    request = {"changes": len(asked)}
    left: int | None = None
    if purchasing is not None and releasing:
        require(seen.granted, Permission.BUY_SEATS)
        await _check_alone(connection, subscription_id)
        left = _left_after(decisions, seats)
        steps.append(await _release(connection, actor, seen.view, seats.total - left, purchasing, len(steps)))
        if await waiting_store.of_subscription(connection, subscription_id):
            # The credit of the seats was tested before the admission.
            raise MustSupersede()
    return await insert_steps(
        context,
        connection,
        actor,
        subscription_id,
        operation_id,
        "member_change",
        steps,
        request,
        left,
        bought,
    )


async def _check_alone(connection: Connection, subscription_id: SubscriptionId) -> None:
    """Raise Conflict `operation_in_progress` while a change of the subscription may still take effect."""
    if await operations.subscription_change_runs(connection, subscription_id, beside_payment=True):
        raise Conflict("Another change of this subscription is still running.", retry_after=2)


async def _check_nothing_waits(
    context: Context,
    connection: Connection,
    view: SubscriptionView,
    buying: JsonObject,
    purchasing: Purchasing,
) -> None:
    """Raise MustSupersede, with the update to price first, while another purchase waits for its payment."""
    if not await waiting_store.of_subscription(connection, view.id):
        return
    details = buying["details"]
    params: JsonObject = {
        "items": [{"id": details["item_id"], "quantity": details["quantity"]}],
        "proration_behavior": purchasing.proration_behavior or context.rules.proration_behavior,
        "payment_behavior": "pending_if_incomplete",
    }
    raise MustSupersede(params, quote_id=purchasing.quote_id, forgo_credit=purchasing.forgo_credit)


def _left_after(decisions: Sequence[Decision], seats: Seats) -> int:
    """The seats that are left when every removal that may run was applied."""
    removed = sum(d.change.action is Action.REMOVE and d.verdict is Verdict.RUN for d in decisions)
    added = seats_required(decisions, seats) - seats.used - seats.reserved + removed
    then = seats._replace(used=seats.used - removed + added)
    return min(seats.total, total_after_release(then, removed))


async def _release(
    connection: Connection,
    actor: Actor,
    view: SubscriptionView,
    fewer: int,
    purchasing: Purchasing,
    position: int,
) -> JsonObject:
    """Return the step that gives seats back, once it is known who was removed."""
    item = purchase_item(view.seat_items(), purchasing.item_id)
    details: JsonObject = {"item_id": item.id, "forgo_credit": purchasing.forgo_credit}
    if purchasing.proration_behavior is not None:
        details["proration_behavior"] = purchasing.proration_behavior
    if purchasing.quote_id is not None:
        quantity = max(1, (item.quantity or 0) - fewer)
        change = seats_update(item, quantity, purchasing.quote_id, purchasing.proration_behavior)
        await use_quote(connection, actor, view, change)
        details["quote_id"] = purchasing.quote_id
    return {
        "position": position,
        "action": StepKind.RELEASE_SEATS.value,
        "state": "planned",
        "details": details,
    }


@dataclass(frozen=True, slots=True)
class Release:
    """What a call that gives seats back would leave. `removed`: the members that it removes."""

    total: int
    removed: int


async def release_of(
    context: Context, actor: Actor, subscription_id: SubscriptionId, asked: Sequence[AskedChange]
) -> Release:
    """Return what giving back the seats of this call's removals would leave, for its quote and its test.

    Raises NotFound, Forbidden `role_required`, InvalidRequest for one person named twice.
    """
    async with context.database.connection() as connection:
        seen = await read(connection, actor, subscription_id, context.rules)
        changes = await _find_people(connection, actor, seen.view, asked)
    require(seen.granted, Permission.BUY_SEATS, *sorted(permissions_needed(changes)))
    _refuse_twice(changes, asked, actor)
    seats = seen.view.seats(owner_uses_seat=context.rules.owner_uses_seat)
    allowed = entitlements(
        seen.view.status, past_due_allows_new_seats=context.rules.past_due_allows_new_seats
    )
    decisions = admit(changes, seats=seats, capacity=capacity(seats), entitlements=allowed)
    removed = sum(d.change.action is Action.REMOVE and d.verdict is Verdict.RUN for d in decisions)
    return Release(_left_after(decisions, seats), removed)


async def seats_needed(
    context: Context, actor: Actor, subscription_id: SubscriptionId, asked: Sequence[AskedChange]
) -> int:
    """The total that this call would need, at least what there is: for a quote of what it would buy."""
    async with context.database.connection() as connection:
        seen = await read(connection, actor, subscription_id, context.rules)
        changes = await _find_people(connection, actor, seen.view, asked)
    require(seen.granted, *sorted(permissions_needed(changes)))
    _refuse_twice(changes, asked, actor)
    seats = seen.view.seats(owner_uses_seat=context.rules.owner_uses_seat)
    allowed = entitlements(
        seen.view.status, past_due_allows_new_seats=context.rules.past_due_allows_new_seats
    )
    decisions = admit(changes, seats=seats, capacity=UNLIMITED, entitlements=allowed)
    return max(seats.total, seats_required(decisions, seats))


async def _buying(
    connection: Connection,
    actor: Actor,
    view: SubscriptionView,
    decisions: Sequence[Decision],
    seats: Seats,
    purchasing: Purchasing,
) -> JsonObject:
    """Return the step of the one quantity write of the call."""
    item = purchase_item(view.seat_items(), purchasing.item_id)
    quantity = (item.quantity or 0) + seats_required(decisions, seats) - seats.total
    details: JsonObject = {"item_id": item.id, "quantity": quantity, "forgo_credit": purchasing.forgo_credit}
    if purchasing.proration_behavior is not None:
        details["proration_behavior"] = purchasing.proration_behavior
    if purchasing.quote_id is not None:
        change = seats_update(item, quantity, purchasing.quote_id, purchasing.proration_behavior)
        await use_quote(connection, actor, view, change)
        details["quote_id"] = purchasing.quote_id
    return {"position": 0, "action": StepKind.BUY_SEATS.value, "state": "planned", "details": details}


async def insert_steps(
    context: Context,
    connection: Connection,
    actor: Actor,
    subscription_id: SubscriptionId,
    operation_id: str,
    kind: str,
    steps: Sequence[JsonObject],
    request: JsonObject,
    seats_left: int | None = None,
    bought: tuple[str, int] | None = None,
) -> Admitted:
    """Write an operation on people; its lease is the caller's, who runs it.

    `seats_left`: the seats after it, which bind admissions until it is settled. `bought`: see `operations.insert`.
    """
    token = uuid4()
    await operations.insert(
        connection,
        operation_id=operation_id,
        subscription_id=subscription_id,
        kind=kind,
        principal=actor.principal.key,
        actor_id=actor.customer_id,
        source="api",
        request=request,
        steps=steps,
        lease_token=token,
        lease_seconds=context.rules.operation_lease,
        seat_total=seats_left,
        bought=bought,
    )
    await operations.finish_if_settled(connection, operation_id)
    return Admitted(operation_id, token, any(step["state"] == "planned" for step in steps))


def _step(position: int, decision: Decision, *, awaits_seats: bool = False) -> JsonObject:
    """`awaits_seats`: the seat is bought first. Until it is paid, an address names no customer."""
    change, person = decision.change, decision.change.person
    unnamed = awaits_seats and person.email is not None
    state = "planned" if decision.verdict is Verdict.RUN else decision.verdict.value
    return {
        "position": position,
        "action": change.action.value,
        "customer_id": None if unnamed else person.customer_id,
        "awaits_seats": awaits_seats,
        "email": person.email,
        "role": change.role,
        "role_before": person.member_role,
        "state": state,
        "code": decision.code,
        "details": decision.details,
    }


async def _find_people(
    connection: Connection, actor: Actor, view: SubscriptionView, asked: Sequence[AskedChange]
) -> list[MemberChange]:
    ids = sorted({change.customer_id for change in asked if change.customer_id is not None})
    emails = sorted({change.email for change in asked if change.email is not None})
    by_id = {
        p.customer_id: p
        for p in await people_store.people_by_id(connection, view.id, ids, ended=sorted(ENDED))
    }
    with_email: dict[str, list[FoundPerson]] = {}
    for found in await people_store.people_by_email(connection, view.id, emails, ended=sorted(ENDED)):
        with_email.setdefault(found.email or "", []).append(found)
    promised = await people_store.promised_emails(connection, emails)
    changes = []
    for change in asked:
        if change.email is not None:
            person = by_email(
                change.email, with_email.get(change.email, []), promised.get(change.email), view
            )
        else:
            person = _by_id(change, by_id.get(change.customer_id or CustomerId("")), actor, view)
        changes.append(
            MemberChange(change.action, person, None if change.role is None else change.role.value)
        )
    return changes


def _by_id(change: AskedChange, found: FoundPerson | None, actor: Actor, view: SubscriptionView) -> Person:
    """End users may add by id only whom this subscription has had before: an id must not be a way to anybody."""
    if found is None:
        return Person(change.customer_id, known=False)
    known_here = found.member_role is not None or found.former_member
    if change.action is Action.ADD and not actor.is_service and not known_here:
        return Person(change.customer_id, known=False)
    return as_person(found, view, None)


def _refuse_twice(changes: Sequence[MemberChange], asked: Sequence[AskedChange], actor: Actor) -> None:
    """One person named twice, be it once by e-mail and once by id: what was meant cannot be known.

    That an e-mail and an id are one person is told to an end user only of people whom this subscription has had.
    """
    seen: set[str] = set()
    errors = []
    for change, source in zip(changes, asked, strict=True):
        person = change.person
        is_shown = (
            actor.is_service or person.is_owner or person.former_member or person.member_role is not None
        )
        name = (person.customer_id if is_shown or source.email is None else None) or person.email or ""
        if name in seen:
            errors.append(FieldError(source.pointer, "duplicate", "This person is named twice in one call."))
        seen.add(name)
    if errors:
        raise InvalidRequest("One person is named twice.", errors=errors)
