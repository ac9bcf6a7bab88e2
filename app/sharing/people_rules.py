"""The rules of operations on people: who may make a step now, whether a seat is free, and the order of the steps."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from app.context import Context, Rules
from app.domain.ids import CustomerId
from app.domain.roles import Permission
from app.domain.seats import capacity, check_floor, is_shareable, lacking
from app.domain.snapshots import JsonObject
from app.domain.statuses import entitlements
from app.domain.views import SubscriptionView
from app.errors import BillingError, Conflict
from app.mirror import refreshing as sync
from app.mirror.store import subscriptions
from app.mirror.visibility import see_as
from app.operations import store as operations
from app.operations.abandoning import expire_unsent
from app.operations.kinds import Phase, Refused, Steps, Wait
from app.operations.lifecycle import NOT_MADE, Event
from app.operations.rows import Operation, Step, StepChanged
from app.operations.sending import locked_view, money_details, pauses
from app.operations.step_kinds import StepKind
from app.postgres.database import Connection
from app.sharing import invitation_store, seat_releases
from app.sharing.invitation_store import ACCEPT_INVITATION
from app.sharing.member_changes import Action, MemberChange, Person, permissions_needed
from app.sharing.member_steps import MemberSteps, NewMemberSteps, OwnerSteps
from app.sharing.naming import named
from app.subscriptions.seat_steps import BuyingSteps, ReleasingSteps

log = structlog.get_logger(__name__)

_FIRST: dict[str, set[str]] = {StepKind.RELEASE_SEATS: {StepKind.REMOVE, StepKind.ADD}}
"""The phases that must be settled before a phase begins; a transfer before all of them."""


class PeopleRules:
    """The rulebook of member changes, leaving, transfers, acceptances, and the members of ended subscriptions."""

    phases: Sequence[Phase] = (
        Phase(StepKind.SET_OWNER),
        Phase(StepKind.REMOVE),
        Phase(StepKind.UPDATE),
        Phase(StepKind.ADD),
        Phase(StepKind.BUY_SEATS),
        Phase(StepKind.ADD, after_purchase=True),
        Phase(StepKind.RELEASE_SEATS),
    )

    def steps_of(self, step: Step) -> Steps:
        """Return the calls and records around this step."""
        if step.action == StepKind.SET_OWNER:
            return OwnerSteps()
        if step.action == StepKind.ADD and step.customer_id is None:
            return NewMemberSteps()
        if step.action == StepKind.BUY_SEATS:
            return BuyingSteps()
        if step.action == StepKind.RELEASE_SEATS:
            return ReleasingSteps()
        return MemberSteps()

    async def permitted(
        self, context: Context, operation: Operation, steps: Sequence[Step], give_up: float
    ) -> list[Step]:
        """Read subscription and right holder from Stripe; a right that was lost since cancels what is not sent yet.

        A worker sends a purchase within `PAYMENT_WINDOW` only.

        Raises:
            BillingError: Stripe cannot be read until `give_up`, on the event loop's clock.
        """
        await _read_again(context, operation, give_up)
        view = await _seen_by_right_holder(context, operation)
        permitted = [step for step in steps if step.was_sent or _allows(context, operation, step, view)]
        for step in steps:
            if step not in permitted:
                await _refuse(context, operation, step, _code_of_lost_right(operation))
        if asyncio.get_running_loop().time() >= give_up:
            purchases = [step for step in permitted if step.action == StepKind.BUY_SEATS]
            if await expire_unsent(context, operation, purchases):
                permitted = [step for step in permitted if step not in purchases]
        return await _tested(context, operation, permitted)

    async def ready(
        self, context: Context, operation: Operation, phase: Phase, batch: Sequence[Step]
    ) -> list[Step] | None:
        """Return the steps of a phase that may run now; None: neither this phase nor any after it.

        Additions that wait for a purchase are named once it was paid. Nothing follows a transfer that is not certain,
        or that failed: the former owner keeps their seat then.
        """
        fitting = list(batch)
        if phase.after_purchase:
            fitting = await named(context, operation.id)
        if phase.action == StepKind.ADD and fitting:
            fitting = await _those_that_fit(context, operation, fitting)
        if not fitting or phase.action == StepKind.SET_OWNER:
            return fitting
        awaited = {StepKind.SET_OWNER} | _FIRST.get(phase.action, set())
        async with context.database.connection() as connection:
            steps = await operations.steps(connection, operation.id)
        before = [step for step in steps if step.action in awaited]
        for step in before:
            if step.action == StepKind.SET_OWNER and step.state in NOT_MADE:
                for following in fitting:
                    await _refuse(context, operation, following, step.code or "changed_meanwhile")
                return fitting if any(following.was_sent for following in fitting) else None
        return fitting if all(step.is_settled for step in before) else None

    async def check(
        self, context: Context, connection: Connection, operation: Operation, step: Step
    ) -> Refused | Wait | None:
        """Judge a step right before it is sent: rights may be lost, and seats taken, since it was planned.

        Raises:
            ServiceUnavailable: The subscription or the right holder was changed, and the change is still to be read.
        """
        view = await locked_view(connection, operation.subscription_id, _right_holder(operation))
        is_accepting = operation.kind == ACCEPT_INVITATION
        if not _allows(context, operation, step, view) or (
            is_accepting and not await invitation_store.is_open(connection, str(step.invitation_id))
        ):
            return Refused(_code_of_lost_right(operation))
        if step.action == StepKind.RELEASE_SEATS and view is not None:
            return _against_release(context, view, step)
        if step.action != StepKind.ADD or step.was_sent:
            return None
        return await _against_seat(context, connection, operation, view)


async def _tested(context: Context, operation: Operation, steps: list[Step]) -> list[Step]:
    """Refuse all steps, before the first is sent, if the seats of the removed members cannot be given back.

    It is tested here only if Stripe was away at the admission, see `seat_releases`.
    """
    for release in steps:
        against = None
        if release.action == StepKind.RELEASE_SEATS:
            against = await seat_releases.test_first(context, operation, release)
        if against is not None:
            for step in steps:
                await _refuse(context, operation, step, against.code, money_details(against.members))
            return [step for step in steps if step.was_sent]
    return steps


def _right_holder(operation: Operation) -> CustomerId | None:
    """Return the customer on whose right the operation rests: its actor, or for an acceptance the inviter.

    None: a service key.
    """
    if operation.kind != ACCEPT_INVITATION:
        return operation.actor_id
    inviter_id = operation.request["inviter_id"]
    return None if inviter_id is None else CustomerId(str(inviter_id))


def _code_of_lost_right(operation: Operation) -> str:
    return "invitation_ended" if operation.kind == ACCEPT_INVITATION else "role_required"


async def _read_again(context: Context, operation: Operation, give_up: float) -> None:
    holder = _right_holder(operation)
    for pause in pauses():
        try:
            reads = [sync.read_through(context, "subscription", operation.subscription_id)]
            if holder is not None:
                reads.append(sync.read_through(context, "customer", holder))
            await asyncio.gather(*reads)
            return
        except BillingError:
            if asyncio.get_running_loop().time() + pause >= give_up:
                raise
        await asyncio.sleep(pause)


async def _seen_by_right_holder(context: Context, operation: Operation) -> SubscriptionView | None:
    """Return the mirrored subscription, which every change of ours has reached before its operation is settled."""
    async with context.database.connection() as connection:
        return await subscriptions.subscription_view(
            connection, operation.subscription_id, asker=_right_holder(operation)
        )


def _allows(context: Context, operation: Operation, step: Step, view: SubscriptionView | None) -> bool:
    """Return True if the right on which the step rests still holds; `view` must have been read for its holder."""
    if operation.kind == ACCEPT_INVITATION:
        return view is not None and may_invite(view, _right_holder(operation), step.role, context.rules)
    if operation.actor_id is None:
        return not operation.principal.startswith("user:")
    if step.action == StepKind.REMOVE and step.customer_id == operation.actor_id:
        # Every member may give their own seat back, also the one who has become owner.
        return True
    if view is None:
        return False
    if operation.kind != "transfer" and step.action == StepKind.SET_OWNER:
        return view.owner is not None and view.owner.customer_id == operation.actor_id
    if operation.kind == "transfer":
        # The offer binds its giver: it holds while they are still the owner, or once control has moved.
        owner = None if view.owner is None else view.owner.customer_id
        return owner in (operation.request.get("from_id"), operation.request.get("to_id"))
    seen = see_as(view, operation.actor_id, context.rules)
    granted: frozenset[Permission] = frozenset() if seen is None else seen.granted
    if step.action in (StepKind.BUY_SEATS, StepKind.RELEASE_SEATS):
        return Permission.BUY_SEATS in granted
    return permissions_needed([_as_change(step)]) <= granted


def may_invite(view: SubscriptionView, inviter_id: CustomerId | None, role: str | None, rules: Rules) -> bool:
    """Return True if the inviter may give somebody this role; `view` must have been read for them.

    The invitation of a service key (`inviter_id` None) needs an owner.
    """
    if inviter_id is None:
        return view.owner is not None
    seen = see_as(view, inviter_id, rules)
    needed = permissions_needed([MemberChange(Action.ADD, Person(None), role)])
    return seen is not None and needed <= seen.granted


def _as_change(step: Step) -> MemberChange:
    person = Person(step.customer_id, step.email, member_role=step.role_before)
    return MemberChange(Action(step.action), person, step.role)


async def _refuse(
    context: Context, operation: Operation, step: Step, code: str, details: JsonObject | None = None
) -> None:
    """Refuse a step that was never sent; any other may have taken effect."""
    if step.was_sent:
        return
    async with context.database.connection() as connection:
        try:
            await operations.transition(
                connection, operation.id, step, Event.RULE_REFUSES, code=code, details=details
            )
        except StepChanged:
            # The payer withdrew the permission at the same moment, which settles the step too.
            log.info("step_refused_elsewhere", operation_id=operation.id, position=step.position)


async def _those_that_fit(context: Context, operation: Operation, adds: list[Step]) -> list[Step]:
    """Refuse the additions that have no seat: the quantity may have been lowered, or a removal failed, since.

    The lock of the subscription decides which of several operations gets the last seat.
    """
    async with context.database.transaction() as connection:
        await subscriptions.lock(connection, operation.subscription_id)
        view = await subscriptions.subscription_view(connection, operation.subscription_id, asker=None)
        against = await _against_seat(context, connection, operation, view)
        if against is None:
            return adds
        sent = [step for step in adds if step.was_sent]
        if isinstance(against, Refused):
            for step in adds:
                if not step.was_sent:
                    await operations.transition(
                        connection,
                        operation.id,
                        step,
                        Event.RULE_REFUSES,
                        code=against.code,
                        details=against.details,
                    )
        return sent


async def _against_seat(
    context: Context, connection: Connection, operation: Operation, view: SubscriptionView | None
) -> Refused | Wait | None:
    """Return what bars the additions of the operation; None if all that are promised have a seat."""
    refused = _why_no_seat(context, view)
    if refused is None:
        return None
    steps = await operations.steps(connection, operation.id)
    if any(step.action == StepKind.REMOVE and not step.is_settled for step in steps):
        return Wait("a removal of the same call may free a seat")
    return refused


def _why_no_seat(context: Context, view: SubscriptionView | None) -> Refused | None:
    """Return the refusal of an addition; None if all that are promised fit."""
    if view is None or not is_shareable(view.seat_items()):
        return Refused("not_shareable")
    rules = context.rules
    if not entitlements(view.status, past_due_allows_new_seats=rules.past_due_allows_new_seats).new_seats:
        return Refused("subscription_not_active")
    seats = view.seats(owner_uses_seat=rules.owner_uses_seat)
    # An unsettled change that lowers the quantity left room for all that was promised before it.
    details = lacking(seats, capacity(seats))
    return None if details is None else Refused("seat_limit_reached", dict(details))


def _against_release(context: Context, view: SubscriptionView, step: Step) -> Refused | None:
    """Somebody may have got a seat since it was decided how many seats are given back."""
    try:
        check_floor(view.seats(owner_uses_seat=context.rules.owner_uses_seat), int(step.details["total"]))
    except Conflict as error:
        return Refused(error.code)
    return None
