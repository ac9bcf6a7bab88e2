"""Abandoning a purchase that waits for its payment, or that Stripe has not been sent yet, by those who may end it.

Rules: docs/decisions/0017-let-a-waiting-purchase-hold-nothing.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from app.context import Context
from app.domain.roles import Permission
from app.errors import BillingError, Conflict, NotFound
from app.identity.actors import Actor
from app.mirror.store import subscriptions
from app.mirror.visibility import Seen, see
from app.operations import store as operations
from app.operations import waiting_store
from app.operations.endings import PAYMENT_ABANDONED
from app.operations.lifecycle import Event, State
from app.operations.rows import Operation, Step, StepChanged
from app.operations.sending import is_known
from app.operations.step_kinds import StepKind
from app.operations.waiting import settle_if_ended
from app.postgres.database import Connection

log = structlog.get_logger(__name__)

_ACCEPTED_SECONDS: Final = 3.0
_POLL_SECONDS: Final = 0.1


def may_abandon(actor: Actor, operation: Operation, seen: Seen | None) -> bool:
    """Return True if the actor may end the purchase.

    That is the caller who asked for it, the payer, an owner who may buy, and a service key.
    """
    if actor.is_service or operation.principal == actor.principal.key:
        return True
    return seen is not None and Permission.CANCEL_NOW in seen.granted


async def abandon(context: Context, actor: Actor, operation_id: str) -> None:
    """End what an operation waits for; once it has ended so, again changes nothing.

    While a payment is processing, the end is noted and carried out if that payment fails. What was not sent yet is
    withdrawn while Stripe is away.

    Raises:
        NotFound: There is no such operation, or the actor may not end it.
        Conflict: `operation_ended` if it ended otherwise, `operation_in_progress` if nothing of it waits yet.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + _ACCEPTED_SECONDS
    while True:
        async with context.database.transaction() as connection:
            operation, steps = await _visible(context, connection, actor, operation_id)
            waiting = await waiting_store.of_operation(connection, operation_id)
            if waiting is not None:
                await waiting_store.ask_to_end(connection, operation_id, PAYMENT_ABANDONED)
        if waiting is not None:
            break
        if not any(_may_wait(step) for step in steps if not step.is_settled):
            check_abandoned(operation, steps)
            return
        if context.breakers["write"].is_open and await _withdrawn(context, operation_id):
            return
        if loop.time() + _POLL_SECONDS > give_up:
            raise Conflict(
                "Stripe has not answered to this purchase yet, so it is not known whether it waits for a payment. "
                "Ask again in a second.",
                retry_after=1,
            )
        await asyncio.sleep(_POLL_SECONDS)
    try:
        ending = await settle_if_ended(context, waiting, end=PAYMENT_ABANDONED, wake=True)
    except BillingError as error:
        if is_known(error):
            raise
        # It was asked for, and a worker carries it out.
        log.warning("purchase_not_ended_yet", operation_id=operation_id, code=error.code)
        async with context.database.connection() as connection:
            await waiting_store.wake(connection, operation_id)
        return
    if ending is not None and ending.code != PAYMENT_ABANDONED:
        raise _ended()


async def _withdrawn(context: Context, operation_id: str) -> bool:
    """Settle a purchase that was accepted while Stripe is away; False if a part of it was sent.

    A worker would send it as soon as Stripe is back, whenever that is.
    """
    async with context.database.transaction() as connection:
        steps = [step for step in await operations.steps(connection, operation_id) if not step.is_settled]
        purchase = [step for step in steps if _may_wait(step)]
        if not purchase or any(step.state is not State.PLANNED or not _buys(step) for step in purchase):
            return False
        try:
            for step in purchase:
                await operations.transition(
                    connection, operation_id, step, Event.CANNOT_BE_SENT, code=PAYMENT_ABANDONED
                )
        except StepChanged:
            return False
        await operations.finish_if_settled(connection, operation_id)
    log.info("purchase_withdrawn", operation_id=operation_id)
    return True


async def expire_unsent(context: Context, operation: Operation, steps: Sequence[Step]) -> bool:
    """Settle the steps as `operation_expired` if nothing was sent within `PAYMENT_WINDOW`; return True if it was so.

    Stripe may be back hours later, when the seats were bought elsewhere or nobody wants them.
    """
    if not steps or any(step.was_sent for step in steps):
        return False
    async with context.database.connection() as connection:
        if await waiting_store.is_younger(connection, operation.id, seconds=context.rules.payment_window):
            return False
        for step in steps:
            await operations.transition(
                connection, operation.id, step, Event.CANNOT_BE_SENT, code="operation_expired"
            )
    return True


async def _visible(
    context: Context, connection: Connection, actor: Actor, operation_id: str
) -> tuple[Operation, Sequence[Step]]:
    operation = await operations.operation(connection, operation_id)
    if operation is None:
        raise NotFound()
    steps = await operations.steps(connection, operation_id)
    view = await subscriptions.subscription_view(
        connection, operation.subscription_id, asker=actor.customer_id
    )
    seen = None if view is None else see(view, actor, context.rules)
    if not is_visible(actor, operation, steps, seen):
        raise NotFound()
    return operation, steps


def is_visible(actor: Actor, operation: Operation, steps: Sequence[Step], seen: Seen | None) -> bool:
    """Return True if the actor may see the operation.

    That is one of their own, and a purchase that they may end or that they might have ended.
    """
    if actor.is_service or operation.principal == actor.principal.key:
        return True
    waited = any(step.invoice_id is not None for step in steps)
    return waited and may_abandon(actor, operation, seen)


def _may_wait(step: Step) -> bool:
    return step.action not in (StepKind.ADD, StepKind.REMOVE, StepKind.UPDATE, StepKind.SET_OWNER)


def _buys(step: Step) -> bool:
    return step.action in (
        StepKind.BUY_SEATS,
        "add_subscription",
        "update_subscription",
        "resume_subscription",
    )


def check_abandoned(operation: Operation, steps: Sequence[Step]) -> None:
    """Pass if the operation has ended by an abandonment.

    Raises:
        Conflict: `operation_ended` if it ended otherwise, `operation_in_progress` if nothing of it waits yet.
    """
    if any(step.state == State.FAILED and step.code == PAYMENT_ABANDONED for step in steps):
        return
    if operation.settled_at is None and not any(_may_wait(step) for step in steps):
        raise Conflict("Nothing of this operation waits for a payment.", retry_after=1)
    raise _ended()


def _ended() -> Conflict:
    return Conflict(
        "This operation has ended otherwise. Read it to see how; a change that was made is taken back by another one.",
        code="operation_ended",
    )
