"""Finish operations whose runner died, with the same keys, so that what was done is not done twice."""

from __future__ import annotations

from uuid import UUID

from app import tracing
from app.context import Context
from app.operations import lease_store, runner, store
from app.operations.sending import late_seconds


async def finish(context: Context, operation_id: str, token: UUID) -> None:
    """Carry an operation on whose process is gone, or that waits for its payment.

    Raises:
        BillingError: Stripe or the database does not answer. A worker tries again after a pause.
    """
    async with context.database.connection() as connection:
        await store.retire_old_keys(connection, operation_id, late_seconds=late_seconds(context.rules))
        began_in = await lease_store.trace_context(connection, operation_id) if tracing.is_on() else None
    with tracing.span("finish operation", link=began_in):
        await runner.run(context, operation_id, token)
