"""End an operation that does not end by itself, for an operator, without sending anything.

A step that was never sent fails. Any other step is read at Stripe once, and settled by what Stripe shows.
"""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import structlog

from app.context import Context
from app.errors import Conflict, NotFound, ServiceUnavailable
from app.mirror.first_fill import is_own_account
from app.operations import lease_store, runner
from app.operations import store as operations
from app.operations.lifecycle import Event, State
from app.operations.rows import Step
from app.operations.sending import late_seconds, open_until

log = structlog.get_logger(__name__)

_LEASE_WAIT_SECONDS = 30.0
_ASK_AGAIN_SECONDS = 0.5


async def release(context: Context, operation_id: str) -> list[Step]:
    """Settle every step of the operation, and return them.

    `context` must be one that sends no write, see `app.opening.open_context`.

    Raises:
        NotFound: There is no such operation.
        Conflict: `operation_in_progress`: it waits for its payment, a request of it may still take effect, or a process
            works on it. `wrong_account`: the Stripe key is of another account or mode than the cache.
        ServiceUnavailable: Stripe or the database does not answer, so a step that was sent cannot be read.
    """
    is_own = await is_own_account(context)
    async with context.database.connection() as connection:
        found = await operations.operation(connection, operation_id)
        steps = await operations.steps(connection, operation_id)
    if found is None:
        raise NotFound("There is no such operation. `coseat doctor` lists those that do not end.")
    if found.settled_at is not None:
        return steps
    _check_releasable(context, steps)
    token = uuid4()
    await _take(context, operation_id, token)
    async with runner.operation_lease(context, operation_id, token):
        async with context.database.transaction() as connection:
            steps = await operations.steps(connection, operation_id)
            _check_releasable(context, steps)
            for step in steps:
                if step.state is State.PLANNED:
                    await operations.transition(
                        connection, operation_id, step, Event.CANNOT_BE_SENT, code="operation_expired"
                    )
            await operations.retire_old_keys(
                connection, operation_id, late_seconds=late_seconds(context.rules), key_seconds=0.0
            )
            steps = await operations.steps(connection, operation_id)
        # Another account shows nothing of what was sent, which would settle a step that took effect as failed.
        if not is_own and not all(step.is_settled for step in steps):
            raise ServiceUnavailable(
                "Stripe does not answer, so what was sent cannot be read. Run the command again."
            )
        await runner.run_leased(context, operation_id, token)
    async with context.database.connection() as connection:
        steps = await operations.steps(connection, operation_id)
    log.info("operation_released", operation_id=operation_id)
    return steps


def _check_releasable(context: Context, steps: list[Step]) -> None:
    for step in steps:
        if step.state is State.AWAITING_PAYMENT:
            raise Conflict(
                "The operation waits for its payment. Cancel it: POST /v1/operations/{id}/cancel, or cancel its "
                "subscription."
            )
        until = None if step.is_settled else open_until(context.rules, step)
        if until is not None and until > 0:
            raise Conflict(
                f"A request of the operation may still take effect at Stripe for {until:.0f} s. Run the command again "
                "after that.",
                retry_after=int(until) + 1,
            )


async def _take(context: Context, operation_id: str, token: UUID) -> None:
    """Take the operation's lease, once the process that works on it has released it."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + _LEASE_WAIT_SECONDS
    while True:
        async with context.database.connection() as connection:
            if await lease_store.take(
                connection, operation_id, lease_token=token, lease_seconds=context.rules.operation_lease
            ):
                return
        if loop.time() >= give_up:
            raise Conflict(
                "A process works on the operation. Run the command again in a minute.", retry_after=60
            )
        await asyncio.sleep(_ASK_AGAIN_SECONDS)
