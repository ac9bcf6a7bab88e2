"""Finish operations whose runner died, with the same keys, so that what was done is not done twice."""

from __future__ import annotations

from uuid import UUID

from app.context import Context
from app.errors import BillingError
from app.operations import runner as operations
from app.operations import store as operation_rows
from app.operations import waiting
from app.operations.sending import is_known, late_seconds
from app.subscriptions import change_operations, purchases
from app.subscriptions import writes as subscription_writes
from app.subscriptions.stripe_calls import StripeCall


async def finish(context: Context, operation_id: str, token: UUID) -> None:
    """Carry an operation on whose process is gone, or that waits for its payment.

    A purchase is never sent again for a caller who is gone. It is looked for at Stripe, and has failed if it is not
    there.

    Raises:
        BillingError: Stripe or the database does not answer, or an outcome is open. A worker tries again after a pause.
    """
    async with context.database.connection() as connection:
        operation = await operation_rows.operation(connection, operation_id)
        await operation_rows.retire_old_keys(
            connection, operation_id, late_seconds=late_seconds(context.rules)
        )
    if operation is None or operation.settled_at is not None:
        return
    if operation.kind in context.rulebooks:
        await operations.run(context, operation_id, token)
        return
    if await waiting.follow(context, operation_id, token):
        return
    call = StripeCall(**operation.request)
    try:
        async with operations.operation_lease(context, operation_id, token):
            if operation.kind == "add_subscription":
                await purchases.find_again(context, operation_id, call)
            else:
                await change_operations.read_again(context, operation)
                await subscription_writes.write(context, operation_id, operation.subscription_id, call, token)
    except BillingError as error:
        if not is_known(error):
            raise
