"""Delete customers at Stripe that the service created for a seat, that a removal emptied, and that nobody has used.

Without that, each address that is added and removed leaves a customer at Stripe.
"""

from __future__ import annotations

import structlog

from app.context import Context
from app.customers.store import seat_customers
from app.domain.ids import CustomerId
from app.domain.snapshots import Customer
from app.errors import BillingError
from app.mirror.held_objects import HeldObject, held

log = structlog.get_logger(__name__)

BATCH = 20


async def delete_emptied(context: Context) -> int:
    """Delete a batch of such customers, and return the number of those that were looked at.

    Nobody waits for it, so its calls to Stripe count as background work.

    Raises:
        ServiceUnavailable: The database does not answer.
    """
    async with context.database.connection() as connection:
        found = await seat_customers.emptied(connection, limit=BATCH)
    in_background = context.doing("refresh")
    for customer_id in found:
        try:
            await _delete(in_background, customer_id)
        except BillingError as error:
            # The deletion may have reached Stripe. The customer is found by no addition, and tried again in a minute.
            log.info("seat_customer_not_deleted", reason=error.code)
        except Exception as error:  # One customer that cannot be read must not keep the others.
            log.error("seat_customer_not_deleted", error=type(error).__name__, exc_info=error)
    return len(found)


async def _delete(context: Context, customer_id: CustomerId) -> None:
    async with held(context, "customer", customer_id) as one:
        async with context.database.transaction() as connection:
            if not await seat_customers.begin_deletion(connection, customer_id):
                await _release(one)
                return
        found = await one.read()
        customer = found.snapshot
        is_there = isinstance(customer, Customer) and not customer.deleted
        if isinstance(customer, Customer) and customer.memberships:
            # The Dashboard has given them a seat that was not mirrored yet. To apply it ends the deletion.
            async with one.applied(found):
                return
        if is_there and not await context.stripe.is_unused(customer_id):
            async with one.applied(found) as (connection, _):
                await seat_customers.keep(connection, customer_id)
            return
        if is_there:
            found = await context.stripe.delete_customer(customer_id)
        async with one.applied(found):
            log.info("seat_customer_deleted")


async def _release(one: HeldObject) -> None:
    """Apply the customer as it is, because something has changed since it was found."""
    async with one.applied(await one.read()):
        pass
