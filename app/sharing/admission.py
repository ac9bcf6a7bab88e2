"""Admit a change of a subscription's members, under the subscription's lock.

The operation then runs, and each person gets a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID, uuid4

from app.context import Context
from app.customers import failures
from app.domain.ids import SubscriptionId
from app.domain.roles import Permission, Role, require
from app.domain.seats import capacity, is_shareable
from app.domain.snapshots import JsonObject
from app.domain.statuses import entitlements
from app.errors import Conflict, InvalidRequest, PreconditionFailed
from app.identity.actors import Actor
from app.mirror.store import subscriptions
from app.mirror.visibility import Seen, read
from app.operations import seat_store, waiting_store
from app.operations import store as operations
from app.postgres.database import Connection, UniqueViolation
from app.sharing import invitation_store, owners
from app.sharing.member_changes import (
    Action,
    Decision,
    MemberChange,
    Person,
    Verdict,
    additions_that_fit,
    admit,
    needs_seat,
    permissions_needed,
)
from app.sharing.people import AskedChange, find_people, refuse_twice
from app.sharing.seat_changes import (
    UNLIMITED,
    Purchasing,
    check_alone,
    check_owner_is_certain,
    numbers_from,
    purchase_step,
    release_step,
    seats_left_after,
    supersede_by,
)
from app.subscriptions.end_changes import Precondition
from app.subscriptions.superseding import MustSupersede, superseding

_ADMISSION_TRIES = 5


@dataclass(frozen=True, slots=True)
class Admitted:
    """An operation that was admitted. The caller runs it under `lease_token`.

    `again`: an earlier request with the same Idempotency-Key began this operation, and runs it.
    """

    operation_id: str
    lease_token: UUID
    anything_to_run: bool
    again: bool = False

    @classmethod
    def before(cls, operation_id: str) -> Admitted:
        """Return an operation that an earlier request has begun. Its lease is not this call's."""
        return cls(operation_id, uuid4(), anything_to_run=True, again=True)


async def admit_changes(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    asked: Sequence[AskedChange],
    operation_id: str,
    purchasing: Purchasing | None = None,
    *,
    precondition: Precondition,
) -> Admitted:
    """Judge a call in one transaction; store its operation, steps and reservations.

    With `purchasing` the seats that are missing are bought first, in one write.

    Raises:
        NotFound: the actor may not see the subscription.
        Forbidden: `role_required`.
        Conflict: `not_shareable`, `quote_expired`, or `operation_in_progress` while another change of the subscription,
            its owner, or another addition of the same person, runs.
        InvalidRequest: one person is named twice, or it is not clear which item gives the seats.
        RateLimited: too many payments of the actor failed recently.
        BillingError: what `precondition` raises.
    """

    async def admitted(ends_later: bool) -> Admitted:
        return await _admit_again(
            context,
            actor,
            subscription_id,
            asked,
            operation_id,
            purchasing,
            precondition=precondition,
            ends_later=ends_later,
        )

    return await superseding(context, actor, subscription_id, admitted)


async def _admit_again(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    asked: Sequence[AskedChange],
    operation_id: str,
    purchasing: Purchasing | None,
    *,
    precondition: Precondition,
    ends_later: bool,
) -> Admitted:
    for last_try in (False,) * (_ADMISSION_TRIES - 1) + (True,):
        try:
            async with subscriptions.admitting(context.database, subscription_id) as connection:
                if any(change.action is Action.ADD for change in asked):
                    await invitation_store.expire_due(connection, subscription_id=subscription_id)
                return await _admit(
                    context,
                    connection,
                    actor,
                    subscription_id,
                    asked,
                    operation_id,
                    purchasing,
                    precondition=precondition,
                    ends_later=ends_later,
                )
        except PreconditionFailed:
            # The seats of invitations whose term is over were freed in what was rolled back. The next read shows them.
            async with subscriptions.admitting(context.database, subscription_id) as connection:
                await invitation_store.expire_due(connection, subscription_id=subscription_id)
            raise
        except UniqueViolation:
            # Another subscription's operation has promised one of these people a seat since they were read: read again.
            if last_try:
                raise Conflict("These people are being added elsewhere right now.") from None
    raise AssertionError("the last try returns or raises")


async def leave(
    context: Context, actor: Actor, subscription_id: SubscriptionId, operation_id: str
) -> Admitted:
    """Admit that a member gives their own seat back, whatever the status is.

    Raises:
        NotFound: the actor may not see the subscription.
        Conflict: `owner_cannot_leave`.
        InvalidRequest: a service key does not name the customer who leaves.
        Forbidden: `role_required`.
    """
    async with subscriptions.admitting(context.database, subscription_id) as connection:
        seen = await read(connection, actor, subscription_id, context.rules)
        if seen.role is Role.OWNER:
            raise Conflict("Transfer the subscription before you leave it.", code="owner_cannot_leave")
        if seen.role is None or actor.customer_id is None:
            raise InvalidRequest("A service key must say who leaves: X-Acting-Customer.")
        require(seen.granted, Permission.LEAVE)
        if await operations.operation(connection, operation_id) is not None:
            return Admitted.before(operation_id)
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
    *,
    precondition: Precondition,
    ends_later: bool,
) -> Admitted:
    seen = await read(connection, actor, subscription_id, context.rules)
    changes = await find_people(
        connection, actor, seen.view, asked, limit=context.rules.memberships_per_customer, lock=True
    )
    require(seen.granted, *sorted(permissions_needed(changes)))
    refuse_twice(changes, asked, actor)
    if await operations.operation(connection, operation_id) is not None:
        return Admitted.before(operation_id)
    precondition(seen)
    if any(change.action is Action.ADD for change in changes):
        if not is_shareable(seen.view.seat_items()):
            raise Conflict("No product of this subscription supports sharing.", code="not_shareable")
        await check_owner_is_certain(context, connection, seen.view)
    judged = await _judged(context, connection, actor, seen, changes, purchasing, ends_later=ends_later)
    request: JsonObject = {"changes": len(asked)}
    naming = await owners.naming_step(connection, actor, seen.view, len(judged.steps))
    if naming is not None and any(step["state"] == "planned" for step in judged.steps):
        judged.steps.append(naming)
        request |= {"from_id": seen.view.customer_id, "to_id": seen.view.customer_id}
    return await insert_steps(
        context,
        connection,
        actor,
        subscription_id,
        operation_id,
        "member_change",
        judged.steps,
        request,
        judged.seats_left,
        judged.bought,
    )


class _Judged(NamedTuple):
    """The steps of a call. `seats_left` and `bought`: see `insert_steps`."""

    steps: list[JsonObject]
    seats_left: int | None = None
    bought: tuple[str, int] | None = None


async def _judged(
    context: Context,
    connection: Connection,
    actor: Actor,
    seen: Seen,
    changes: Sequence[MemberChange],
    purchasing: Purchasing | None,
    *,
    ends_later: bool,
) -> _Judged:
    """Judge the changes by the seats that there are, or that the call buys or gives back.

    `ends_later`: a purchase that waits for its payment is ended by the operation.
    """
    seats = seen.view.seats(owner_uses_seat=context.rules.owner_uses_seat)
    target = await seat_store.lowest_target(connection, seen.view.id)
    may_be_filled = capacity(seats, target)
    allowed = entitlements(
        seen.view.status, past_due_allows_new_seats=context.rules.past_due_allows_new_seats
    )
    decisions = admit(changes, seats=seats, capacity=may_be_filled, entitlements=allowed)
    if purchasing is not None and purchasing.releases:
        await _check_seats_may_change(connection, seen)
        seats_left = seats_left_after(decisions, seats)
        steps = _member_steps(decisions)
        fewer = seats.total - seats_left
        steps.append(await release_step(connection, actor, seen.view, fewer, purchasing, len(steps)))
        if fewer and await waiting_store.of_subscription(connection, seen.view.id):
            # The credit of the seats was tested before the admission. A call that gives none back ends nothing.
            raise MustSupersede(may_end_later=False)
        return _Judged(steps, seats_left)
    if purchasing is not None and any(decision.code == "seat_limit_reached" for decision in decisions):
        await _check_seats_may_change(connection, seen, buyer=actor)
        decisions = admit(changes, seats=seats, capacity=UNLIMITED, entitlements=allowed)
        buying = await purchase_step(connection, actor, seen.view, decisions, seats, purchasing)
        await supersede_by(context, connection, seen.view, buying, ends_later=ends_later)
        bought = (buying["details"]["item_id"], numbers_from(buying))
        steps = _member_steps(decisions, named=additions_that_fit(decisions, seats, may_be_filled))
        steps.append({**buying, "position": len(steps)})
        return _Judged(steps, bought=bought)
    return _Judged(_member_steps(decisions))


async def _check_seats_may_change(connection: Connection, seen: Seen, *, buyer: Actor | None = None) -> None:
    """Check that the actor may change the number of seats, and that no other change runs.

    `buyer`: an actor who buys seats. Too many payments of theirs that failed recently forbid it.
    """
    require(seen.granted, Permission.BUY_SEATS)
    if buyer is not None:
        await failures.check(connection, buyer)
    await check_alone(connection, seen.view.id)


def _member_steps(decisions: Sequence[Decision], *, named: int | None = None) -> list[JsonObject]:
    """Return one step for each decision, in their order.

    `named`: how many additions fit into the seats that are there. The further ones wait for the purchase of their
    seats. None: all additions fit.
    """
    left = len(decisions) if named is None else named
    steps: list[JsonObject] = []
    for decision in decisions:
        fills_seat = needs_seat(decision)
        left -= fills_seat
        steps.append(_step(len(steps), decision, awaits_seats=fills_seat and left < 0))
    return steps


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
    """Store an operation on people; its lease belongs to the caller, who runs it.

    `seats_left`: the number of seats after it. No admission goes above that number until the operation is settled.
    `bought`: see `operations.insert`.

    Raises:
        UniqueViolation: another operation has reserved a seat for one of these people.
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
    """Return the row of one decision's step.

    `awaits_seats`: the seat is bought first. Until it is paid, an e-mail names no customer.
    """
    change, person = decision.change, decision.change.person
    unnamed = awaits_seats and person.email is not None
    state = "planned" if decision.verdict is Verdict.RUN else decision.verdict.value
    is_addition = decision.verdict is Verdict.RUN and change.action is Action.ADD
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
        "invitation_id": person.invitation_id if is_addition else None,
    }
