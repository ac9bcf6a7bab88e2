"""The profile of a customer: name, phone, e-mail."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from app.context import Context
from app.customers.store import customers
from app.domain.ids import CustomerId
from app.domain.snapshots import JsonObject
from app.errors import NotFound
from app.mirror import refreshing as sync
from app.stripe.gateway import Fetched


async def profile(context: Context, customer_id: CustomerId) -> JsonObject:
    """Return the profile of a customer from the cache. Raises NotFound."""
    async with context.database.reading() as connection:
        found = await customers.profile(connection, customer_id)
    if found is None:
        raise NotFound()
    return found


async def update_profile(
    context: Context,
    customer_id: CustomerId,
    changes: Mapping[str, str],
    precondition: Callable[[JsonObject], None] | None,
    *,
    operation_id: str,
) -> None:
    """Change a customer at Stripe and apply the answer to the cache.

    `changes` are fields of Stripe's customer: name, phone, email. `precondition` judges the profile under the lease,
    unless it shows the changes: a call whose answer was lost is repeated.

    Raises:
        BillingError: What `precondition` raises.
        NotFound: There is no such customer.
        InvalidRequest: Stripe refuses a value.
        ServiceUnavailable: Stripe or the database does not answer.
    """
    await profile(context, customer_id)
    lease = await sync.take_lease(context, "customer", customer_id)
    if precondition is not None:
        try:
            shown = await profile(context, customer_id)
            if any(shown[name] != value for name, value in changes.items()):
                precondition(shown)
        except BaseException:
            await sync.release(context, lease)
            raise

    async def call() -> Fetched:
        return await context.billing.update_customer(
            customer_id, changes, idempotency_key=f"{operation_id}/profile"
        )

    await sync.apply(context, lease, call)
