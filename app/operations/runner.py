"""Running an operation's steps at Stripe and settling each from a known answer, whoever admitted it.

The request that admitted an operation runs it, and tries again what stays open until its deadline; then a worker
does, soon and with growing pauses. Should the process die, the operation's lease runs out and a worker goes on.
A step's idempotency key is operation, step and attempt: never the state it aims at, so that adding, removing and
adding again are three effects. The attempt is counted up only after an answer that is known to be a failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import structlog

from app.context import Context
from app.domain.ids import SubscriptionId
from app.domain.payments import PaymentStep
from app.domain.roles import Permission
from app.domain.seats import Seats, check_floor, is_shareable
from app.domain.snapshots import JsonObject
from app.domain.statuses import entitlements
from app.domain.views import SubscriptionView
from app.errors import BillingError, Conflict, NotFound, ServiceUnavailable, StripeErrorKept
from app.identity.actors import Actor
from app.mirror import refreshing as sync
from app.mirror.store import subscriptions
from app.mirror.visibility import see, see_as
from app.operations import store as operations
from app.operations import waiting
from app.operations.sending import (
    HANDED_OVER_SECONDS,
    is_final,
    is_known,
    locked_view,
    money_figures,
    pauses,
)
from app.operations.step_kinds import StepKind
from app.operations.steps import NotPermitted, run_step
from app.operations.store import Operation, Step
from app.postgres.database import Connection
from app.postgres.leases import renewing_lease
from app.sharing.member_changes import Action, MemberChange, Person, permissions_needed
from app.sharing.naming import named

log = structlog.get_logger(__name__)

CONCURRENCY = 16
_PHASES = [
    (StepKind.SET_OWNER, False),
    (StepKind.REMOVE, False),
    (StepKind.UPDATE, False),
    (StepKind.ADD, False),
    (StepKind.BUY_SEATS, False),
    (StepKind.ADD, True),
    (StepKind.RELEASE_SEATS, False),
]
"""The order in which an operation runs its steps; True: the additions whose seats are bought by the same call."""
_SERVER_ERROR = 500

Result = TypeVar("Result")

_running: set[asyncio.Task[object]] = set()
"""The event loop holds tasks weakly; these outlive the requests that began them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """An operation as its reader may know it; `operation.principal` says whose it is.

    `seats` is None if the subscription shows the reader no seats now. `sees_members`, `sees_amounts` and
    `sees_payers_own` are False if it shows them no members, no amounts, or no links to the payer's invoices.
    `payment`: what is left to pay, as Stripe has it now, None if nothing waits for it.
    """

    operation: Operation
    steps: list[Step]
    seats: Seats | None
    sees_members: bool
    sees_amounts: bool
    sees_payers_own: bool
    payment: PaymentStep | None = None


async def run(
    context: Context, operation_id: str, token: UUID, *, patience: float = 0.0
) -> PaymentStep | None:
    """Runs every step that is not settled, phase by phase; what is left to pay where seats are bought.

    What stays open is tried again for `patience` seconds. Leaves the operation to a worker when an outcome is unknown
    even then, a payment is awaited, or the lease is lost.
    """
    give_up = asyncio.get_running_loop().time() + patience
    async with operation_lease(context, operation_id, token):
        return await _run(context, operation_id, token, give_up)


@asynccontextmanager
async def operation_lease(context: Context, operation_id: str, token: UUID) -> AsyncIterator[None]:
    """Keeps the operation's lease; what is unsettled at the end goes to a worker."""
    seconds = context.rules.operation_lease

    async def renew(connection: Connection) -> None:
        await operations.renew(connection, operation_id, token, lease_seconds=seconds)

    try:
        async with renewing_lease(context.database, seconds, renew):
            yield
    finally:
        await hand_over(context, operation_id, token)


async def hand_over(context: Context, operation_id: str, token: UUID) -> None:
    """Frees the lease of an operation that is not settled yet, for a worker to take it up after a pause."""
    async with context.database.connection() as connection:
        await operations.hand_over(
            connection,
            operation_id,
            token,
            longest_seconds=min(HANDED_OVER_SECONDS, context.rules.operation_lease),
            payment_seconds=context.rules.operation_lease,
        )


async def _run(context: Context, operation_id: str, token: UUID, give_up: float) -> PaymentStep | None:
    async with context.database.connection() as connection:
        operation = await operations.operation(connection, operation_id)
        steps = [step for step in await operations.steps(connection, operation_id) if not step.is_settled]
    if operation is None or operation.settled_at is not None:
        return None
    payments: list[PaymentStep] = []
    if steps:
        steps = await _those_permitted(context, operation, steps, give_up)
    if steps:
        limit = asyncio.Semaphore(CONCURRENCY)
        for kind, after_purchase in _PHASES:
            batch = [step for step in steps if step.action == kind and step.awaits_seats == after_purchase]
            if after_purchase and batch:
                batch = await named(context, operation_id)
            if kind is StepKind.ADD and batch:
                batch = await _those_that_fit(context, operation, batch)
            if batch and not await _phase_may_run(context, operation, kind, batch):
                break
            found = await asyncio.gather(
                *(_guarded(context, operation, step, token, limit, give_up) for step in batch)
            )
            payments += [payment for payment in found if payment is not None]
    async with context.database.connection() as connection:
        await operations.finish_if_settled(connection, operation_id)
    return payments[0] if payments else None


async def _phase_may_run(
    context: Context, operation: Operation, kind: StepKind, batch: Sequence[Step]
) -> bool:
    """Nothing follows a transfer that is not certain, or that failed: the former owner keeps their seat then."""
    if kind is StepKind.SET_OWNER:
        return True
    first: dict[StepKind, set[StepKind]] = {
        StepKind.RELEASE_SEATS: {StepKind.REMOVE, StepKind.ADD},
    }
    awaited = {StepKind.SET_OWNER} | first.get(kind, set())
    async with context.database.connection() as connection:
        before = [step for step in await operations.steps(connection, operation.id) if step.action in awaited]
    for step in before:
        if step.action == StepKind.SET_OWNER and step.state in ("refused", "failed"):
            for following in batch:
                await _refuse(context, operation, following, step.code or "changed_meanwhile")
            return any(following.was_sent for following in batch)
    return all(step.is_settled for step in before)


async def _those_permitted(
    context: Context, operation: Operation, steps: list[Step], give_up: float
) -> list[Step]:
    """Re-reads the plan and the actor from Stripe; a right that was lost meanwhile cancels what is not sent yet."""
    for pause in pauses():
        try:
            await _read_again(context, operation)
            break
        except BillingError:
            if asyncio.get_running_loop().time() + pause >= give_up:
                raise
        await asyncio.sleep(pause)
    view = await _seen_by_actor(context, operation)
    permitted = [step for step in steps if step.was_sent or _allows(context, operation, step, view)]
    for step in steps:
        if step not in permitted:
            await _refuse(context, operation, step, "role_required")
    return permitted


async def _read_again(context: Context, operation: Operation) -> None:
    reads = [sync.read_through(context, "subscription", operation.subscription_id)]
    if operation.actor_id is not None:
        reads.append(sync.read_through(context, "customer", operation.actor_id))
    await asyncio.gather(*reads)


async def _seen_by_actor(context: Context, operation: Operation) -> SubscriptionView | None:
    """By the cache, which every change of ours has reached before its operation is settled."""
    async with context.database.connection() as connection:
        return await subscriptions.subscription_view(
            connection, operation.subscription_id, asker=operation.actor_id
        )


def _allows(context: Context, operation: Operation, step: Step, view: SubscriptionView | None) -> bool:
    """`view` must have been read for the actor."""
    if operation.actor_id is None:
        return not operation.principal.startswith("user:")
    if step.action == StepKind.REMOVE and step.customer_id == operation.actor_id:
        # A seat is its holder's to give back: who leaves, and who has become owner, whoever is by now.
        return True
    if view is None:
        return False
    if operation.kind == "transfer":
        # The offer binds its giver: it holds while he is still the owner, or once control has moved.
        owner = None if view.owner is None else view.owner.customer_id
        return owner in (operation.request.get("from_id"), operation.request.get("to_id"))
    seen = see_as(view, operation.actor_id, context.rules)
    granted: frozenset[Permission] = frozenset() if seen is None else seen.granted
    if step.action in (StepKind.BUY_SEATS, StepKind.RELEASE_SEATS):
        return Permission.BUY_SEATS in granted
    return permissions_needed([_as_change(step)]) <= granted


def _as_change(step: Step) -> MemberChange:
    person = Person(step.customer_id, step.email, member_role=step.role_before)
    return MemberChange(Action(step.action), person, step.role)


async def _refuse(context: Context, operation: Operation, step: Step, code: str) -> None:
    """Only what was never sent can be refused: anything else may have taken effect."""
    if not step.was_sent:
        async with context.database.connection() as connection:
            await operations.settle_step(connection, operation.id, step.position, state="refused", code=code)


async def _those_that_fit(context: Context, operation: Operation, adds: list[Step]) -> list[Step]:
    """After the removals: the plan may have shrunk, or a removal failed, since the adds were admitted."""
    async with context.database.transaction() as connection:
        await subscriptions.lock(connection, operation.subscription_id)
        view = await subscriptions.subscription_view(connection, operation.subscription_id, asker=None)
        return await _fitting(context, connection, operation, adds, view)


async def _fitting(
    context: Context,
    connection: Connection,
    operation: Operation,
    adds: list[Step],
    view: SubscriptionView | None,
) -> list[Step]:
    """Settles those as refused that have no seat; the lock decides who of several has none."""
    why_not = _why_no_seat(context, view)
    if why_not is None:
        return adds
    others = await operations.steps(connection, operation.id)
    if any(step.action == StepKind.REMOVE and not step.is_settled for step in others):
        # What the call frees itself is not known to be free yet: its adds wait for that.
        return [step for step in adds if step.was_sent]
    code, figures = why_not
    for step in adds:
        if not step.was_sent:
            await operations.settle_step(
                connection, operation.id, step.position, state="refused", code=code, figures=figures
            )
    return [step for step in adds if step.was_sent]


def _why_no_seat(context: Context, view: SubscriptionView | None) -> tuple[str, JsonObject] | None:
    """The code and figures of a refusal; None where all that are promised fit."""
    if view is None or not is_shareable(view.seat_items()):
        return "not_shareable", {}
    rules = context.rules
    if not entitlements(view.status, past_due_allows_new_seats=rules.past_due_allows_new_seats).new_seats:
        return "subscription_not_active", {}
    seats = view.seats(owner_uses_seat=rules.owner_uses_seat)
    required = seats.used + seats.reserved
    if required > seats.total:
        return "seat_limit_reached", {"total": seats.total, "used": seats.used, "required": required}
    return None


async def _against(
    context: Context, connection: Connection, operation: Operation, step: Step
) -> Exception | None:
    """Right before a step is sent: rights may be lost, and seats taken or lowered by hand, since it was planned.

    Answers Conflict where that settled the step, ServiceUnavailable while a removal of the same call may free a seat.
    """
    view = await locked_view(connection, operation.subscription_id, operation.actor_id)
    if not _allows(context, operation, step, view):
        return NotPermitted()
    if step.action == StepKind.RELEASE_SEATS and view is not None:
        return _against_release(context, view, step)
    if step.action != StepKind.ADD or step.was_sent:
        return None
    if await _fitting(context, connection, operation, [step], view):
        return None
    found = await operations.steps(connection, operation.id)
    now = next(one for one in found if one.position == step.position)
    if now.is_settled:
        return Conflict("There is no free seat any more.", code=now.code)
    return ServiceUnavailable("A seat may be freed yet.", retry_after=2)


def _against_release(context: Context, view: SubscriptionView, step: Step) -> Exception | None:
    """Somebody may have been seated since it was decided how many seats are given back."""
    try:
        check_floor(view.seats(owner_uses_seat=context.rules.owner_uses_seat), int(step.figures["total"]))
    except BillingError as error:
        return error
    return None


async def _guarded(
    context: Context,
    operation: Operation,
    step: Step,
    token: UUID,
    limit: asyncio.Semaphore,
    give_up: float,
) -> PaymentStep | None:
    """One step, tried again until `give_up`; what is open then is the worker's, with the same key."""
    was_kept = False
    for pause in pauses():
        async with limit:
            try:
                return await _try(context, operation, step, token)
            except BillingError as error:
                log.warning("step_open", operation_id=operation.id, position=step.position, code=error.code)
                # Once Stripe is known to keep a 5xx, a read may settle the step: that needs no pause before it.
                is_readable = isinstance(error, StripeErrorKept) and not was_kept
                was_kept = isinstance(error, StripeErrorKept)
        if not is_readable:
            if asyncio.get_running_loop().time() + pause >= give_up:
                break
            await asyncio.sleep(pause)
        async with context.database.connection() as connection:
            found = await operations.steps(connection, operation.id)
        step = next(one for one in found if one.position == step.position)
        if step.is_settled:
            break
    return None


async def _try(context: Context, operation: Operation, step: Step, token: UUID) -> PaymentStep | None:
    """Raises BillingError where the step is open still."""
    async with context.database.connection() as connection:
        lease_seconds = context.rules.operation_lease
        if not await operations.renew(connection, operation.id, token, lease_seconds=lease_seconds):
            return None

    async def permitted(connection: Connection, step: Step) -> Exception | None:
        return await _against(context, connection, operation, step)

    if not step.has_sent_key:
        concerned = {"subscription": operation.subscription_id, "customer": operation.actor_id}
        await sync.refresh_if_notified(context, concerned)
    try:
        return await run_step(context, operation, step, token, permitted)
    except NotPermitted:
        async with context.database.connection() as connection:
            await operations.settle_step(
                connection, operation.id, step.position, state="refused", code="role_required"
            )
    except BillingError as error:
        async with context.database.connection() as connection:
            found = await operations.steps(connection, operation.id)
        now = next(one for one in found if one.position == step.position)
        if not is_final(context.rules, now, error):
            raise
        log.warning("step_failed", operation_id=operation.id, position=step.position, code=error.code)
        async with context.database.connection() as connection:
            await operations.settle_step(
                connection,
                operation.id,
                step.position,
                state="failed",
                code=error.code,
                figures={**now.figures, **money_figures(error.members)},
            )
    return None


async def run_within(context: Context, operation_id: str, token: UUID) -> PaymentStep | None:
    """Waits for the operation as long as a request may; what is not finished then goes on in the background."""
    deadline = context.rules.operation_deadline
    try:
        return await within(deadline, run(context, operation_id, token, patience=deadline))
    except TimeoutError:
        return None
    except BillingError as error:
        # It is admitted and stays so: the caller learns its id, and a worker goes on when the part is back.
        if error.status < _SERVER_ERROR:
            raise
        return None


async def within(seconds: float, work: Coroutine[Any, Any, Result]) -> Result:
    """The result, if it is there in so many seconds. Raises TimeoutError else: the work goes on in the background."""
    task = asyncio.create_task(work)
    _running.add(task)
    task.add_done_callback(_note_end)
    return await asyncio.wait_for(asyncio.shield(task), seconds)


def _note_end(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if task.cancelled() or (error := task.exception()) is None:
        return
    if isinstance(error, BillingError):
        if not is_known(error):
            log.warning("operation_open", code=error.code)
    else:
        log.error("operation_run_failed", error=type(error).__name__)


async def drain(seconds: float) -> None:
    """At shutdown: gives operations that outlived their requests the time to end; the rest is a worker's."""
    if _running:
        await asyncio.wait(set(_running), timeout=seconds)


async def outcome(
    context: Context,
    operation_id: str,
    actor: Actor,
    *,
    checked: bool = False,
    payment: PaymentStep | None = None,
) -> Outcome:
    """Return what became of the operation, with what its subscription shows the actor now.

    `checked`: only if the actor may see it. `payment`: what is left to pay, if that was read already.
    Raises NotFound for an unknown id and, alike and after the same work, for an operation that the actor may not see.
    """
    async with context.database.connection() as connection:
        operation = await operations.operation(connection, operation_id)
        steps = await operations.steps(connection, operation_id)
        subscription_id = SubscriptionId("") if operation is None else operation.subscription_id
        view = await subscriptions.subscription_view(connection, subscription_id, asker=actor.customer_id)
    # An operation outlives its actor's role: a manager who was removed since sees no seats and no members.
    seen = None if view is None else see(view, actor, context.rules)
    if operation is None or (checked and not waiting.is_visible(actor, operation, steps, seen)):
        raise NotFound()
    if payment is None:
        payment = await waiting.payment_shown(context, steps, operation)
    if payment is not None and seen is not None and not seen.sees_payers_own:
        payment = payment.without_the_payers_own()
    return Outcome(
        operation,
        steps,
        seen.view.seats(owner_uses_seat=context.rules.owner_uses_seat)
        if seen is not None and seen.view.is_shared()
        else None,
        sees_members=actor.is_service or (seen is not None and Permission.SEE_MEMBERS in seen.granted),
        sees_amounts=actor.is_service or (seen is not None and Permission.SEE_AMOUNTS in seen.granted),
        sees_payers_own=actor.is_service or (seen is not None and seen.sees_payers_own),
        payment=payment,
    )


@dataclass(frozen=True, slots=True)
class Accepted:
    """The change is not settled: its outcome is not known in time, or it waits for its payment.

    `payment`: what is left to pay, if that was read already.
    """

    operation_id: str
    payment: PaymentStep | None = None
