"""Run the steps of an operation, phase by phase, and try each again until it is settled or its runner gives up.

The request that admitted an operation runs it until the request's deadline. Then a worker does, soon and with growing
pauses. If the process dies, the lease of the operation runs out, and a worker goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import structlog

from app.context import Context
from app.domain.ids import SubscriptionId
from app.domain.payments import PaymentStep
from app.domain.roles import Permission
from app.domain.seats import Seats
from app.errors import BillingError, NotFound
from app.identity.actors import Actor
from app.mirror import refreshing as sync
from app.mirror.store import subscriptions
from app.mirror.visibility import see
from app.operations import abandoning, lease_store, waiting
from app.operations import store as operations
from app.operations.kinds import Ended, Ending, Work, rulebook_of
from app.operations.one_step import carry_out, settle_failed
from app.operations.rows import Operation, Step
from app.operations.sending import HANDED_OVER_SECONDS, is_known, pauses
from app.postgres.database import Connection
from app.postgres.leases import renewing_lease
from app.stripe.breaker import StripeAway

log = structlog.get_logger(__name__)

CONCURRENCY = 16
_SERVER_ERROR = 500

Result = TypeVar("Result")

_running: set[asyncio.Task[object]] = set()
"""Tasks that outlive the requests that began them; the event loop itself would let go of them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """An operation as its reader may know it; `operation.principal` says whose it is.

    `is_own`: the reader asked for it. `seats` is None if the subscription shows the reader none now. `sees_members`,
    `sees_amounts` and `sees_payers_own` are False if it shows them no members, no amounts, or no links to the payer's
    invoices.
    `payment`: what is left to pay, as Stripe has it now, None if nothing waits for it.
    """

    operation: Operation
    steps: list[Step]
    seats: Seats | None
    sees_members: bool
    sees_amounts: bool
    sees_payers_own: bool
    is_own: bool
    payment: PaymentStep | None = None


async def run(context: Context, operation_id: str, token: UUID, *, patience: float = 0.0) -> list[Ended]:
    """Run every step that is not settled, and return what became of those that were tried, in the order of phases.

    A step that stays open is tried again for `patience` seconds, unless a try that takes as long as the last one would
    end too late. The operation is left to a worker if an outcome is unknown even then, a payment is awaited, or the
    lease is lost.

    Raises:
        BillingError: Stripe or the database does not answer, so nothing could be judged.
    """
    give_up = asyncio.get_running_loop().time() + patience
    async with operation_lease(context, operation_id, token):
        return await _run(context, operation_id, token, give_up)


async def run_leased(context: Context, operation_id: str, token: UUID) -> list[Ended]:
    """Run each step once that is not settled, for a caller that renews the lease itself. Raises as `run`."""
    return await _run(context, operation_id, token, 0.0)


@asynccontextmanager
async def operation_lease(context: Context, operation_id: str, token: UUID) -> AsyncIterator[None]:
    """Renew the operation's lease until the block ends; what is unsettled then goes to a worker."""
    seconds = context.rules.operation_lease

    async def renew(connection: Connection) -> None:
        await lease_store.renew(connection, operation_id, token, lease_seconds=seconds)

    try:
        async with renewing_lease(context.database, seconds, renew):
            yield
    finally:
        await hand_over(context, operation_id, token)


async def hand_over(context: Context, operation_id: str, token: UUID) -> None:
    """Free the lease of an operation that is not settled, so that a worker takes it up after a pause."""
    async with context.database.connection() as connection:
        await lease_store.hand_over(
            connection,
            operation_id,
            token,
            longest_seconds=min(HANDED_OVER_SECONDS, context.rules.operation_lease),
            payment_seconds=context.rules.operation_lease,
        )


async def _run(context: Context, operation_id: str, token: UUID, give_up: float) -> list[Ended]:
    async with context.database.connection() as connection:
        operation = await operations.operation(connection, operation_id)
        steps = [step for step in await operations.steps(connection, operation_id) if not step.is_settled]
    if operation is None or operation.settled_at is not None:
        return []
    rules = rulebook_of(context, operation)
    ended: list[Ended] = []
    if steps:
        steps = await rules.permitted(context, operation, steps, give_up)
    if steps:
        limit = asyncio.Semaphore(CONCURRENCY)
        for phase in rules.phases:
            batch = [step for step in steps if phase.includes(step)]
            ready = await rules.ready(context, operation, phase, batch) if batch else []
            if ready is None:
                break
            ended += await asyncio.gather(
                *(_guarded(Work(context, operation, step, token, rules), limit, give_up) for step in ready)
            )
    async with context.database.connection() as connection:
        await operations.finish_if_settled(connection, operation_id)
    return ended


async def _guarded(work: Work, limit: asyncio.Semaphore, give_up: float) -> Ended:
    """Try one step until it is settled or `give_up`; a step that is open then is a worker's, with the same key."""
    loop, was_readable = asyncio.get_running_loop(), False
    for pause in pauses():
        async with limit:
            began = loop.time()
            ended = await _try(work)
        if ended.ending is Ending.SETTLED:
            if ended.answer is None:
                return ended
            return ended._replace(payment=await work.steps.payment(work.context, ended.answer))
        # Once Stripe is known to keep a 5xx, a read may settle the step: that needs no pause before it.
        was_readable = ended.ending is Ending.READABLE and not was_readable
        if not was_readable:
            # Another try that takes as long is to end in time: then it is known whether anything was sent.
            if isinstance(ended.error, StripeAway) or 2 * loop.time() - began + pause >= give_up:
                return ended
            await asyncio.sleep(pause)
        async with work.context.database.connection() as connection:
            found = await operations.steps(connection, work.operation.id)
        work = replace(work, step=next(one for one in found if one.position == work.step.position))
        if work.step.is_settled:
            break
    return Ended(Ending.SETTLED)


async def _try(work: Work) -> Ended:
    context, operation, step = work.context, work.operation, work.step
    async with context.database.connection() as connection:
        lease_seconds = context.rules.operation_lease
        if not await lease_store.renew(connection, operation.id, work.token, lease_seconds=lease_seconds):
            # Another process finishes the operation.
            return Ended(Ending.SETTLED)
    try:
        if operation.subscription_id and not step.has_sent_key:
            concerned = {"subscription": operation.subscription_id, "customer": operation.actor_id}
            await sync.refresh_if_notified(context, concerned)
        return await work.steps.tried(context, operation, step, partial(carry_out, work))
    except BillingError as error:
        log.warning("step_open", operation_id=operation.id, position=step.position, code=error.code)
        return await settle_failed(work, error)


async def run_within(context: Context, operation_id: str, token: UUID) -> PaymentStep | None:
    """Run an operation as long as a request may wait, and return what is left to pay, if seats are bought.

    What is not settled then goes on in the background. A request waits no longer once Stripe is known to be away. If
    too many requests wait for Stripe already, a worker runs the operation.
    """
    if context.stripe_waits.is_full:
        await hand_over(context, operation_id, token)
        return None
    deadline = context.rules.operation_deadline
    try:
        with context.stripe_waits.one_more():
            ended = await within(context, deadline, run(context, operation_id, token, patience=deadline))
        return next((one.payment for one in ended if one.payment is not None), None)
    except TimeoutError:
        return None
    except BillingError as error:
        # The operation is admitted and stays so: the caller learns its id, and a worker goes on with it.
        if error.status < _SERVER_ERROR:
            raise
        return None


async def unless_away(context: Context, asking: Callable[[], Awaitable[Result]]) -> Result | None:
    """Return what Stripe says to what is asked before a change is admitted.

    None if Stripe is away, or if as many requests as may wait for it do so already. Then the operation asks, before it
    sends anything.

    Raises:
        BillingError: What `asking` raises otherwise.
    """
    try:
        with context.stripe_waits.one_more():
            return await asking()
    except BillingError as error:
        if is_known(error) or not is_away(context):
            raise
        return None


def is_away(context: Context) -> bool:
    """Return True if no request may wait for Stripe now: it does not answer, or too many wait already."""
    return context.breakers["write"].is_open or context.stripe_waits.is_full


async def within(context: Context, seconds: float, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of the work.

    Raises:
        TimeoutError: It took longer than so many seconds, or Stripe is away. It goes on in the background.
    """
    return await context.breakers["write"].patiently(seconds, in_background(work))


def in_background(work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
    """Start work that may outlive its request; `drain` waits for it at shutdown."""
    task = asyncio.create_task(work)
    _running.add(task)
    task.add_done_callback(_note_end)
    return task


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
    """Give operations that outlived their requests some seconds to end, at shutdown; a worker does the rest."""
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
    async with context.database.reading() as connection:
        operation = await operations.operation(connection, operation_id)
        steps = await operations.steps(connection, operation_id)
        subscription_id = SubscriptionId("") if operation is None else operation.subscription_id
        view = await subscriptions.subscription_view(connection, subscription_id, asker=actor.customer_id)
    # An operation outlives its actor's role: a manager who was removed since sees no seats and no members.
    seen = None if view is None else see(view, actor, context.rules)
    if operation is None or (checked and not abandoning.is_visible(actor, operation, steps, seen)):
        raise NotFound()
    if payment is None and (actor.is_service or (seen is not None and waiting.sees_payment(seen))):
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
        is_own=operation.principal == actor.principal.key,
        payment=payment,
    )


@dataclass(frozen=True, slots=True)
class Accepted:
    """The change is not settled: its outcome is not known in time, or it waits for its payment.

    `payment`: what is left to pay, if that was read already.
    """

    operation_id: str
    payment: PaymentStep | None = None
