"""The access check of the API: whether a customer may use a product now."""

from __future__ import annotations

from app.context import Context
from app.customers.store.access import AccessRow, best_access
from app.domain.ids import CustomerId, ProductId
from app.domain.statuses import OPEN, entitlements


async def access(
    context: Context, customer_id: CustomerId, product_id: ProductId
) -> tuple[bool, AccessRow | None]:
    """Return whether the customer may use the product, and by which subscription.

    It reads the cache in one statement and never calls Stripe. Without access, the subscription is one that would give
    it if its status were open, or None.
    """
    async with context.database.reading() as connection:
        best = await best_access(connection, customer_id, product_id, open_statuses=list(OPEN))
    return best is not None and entitlements(best.status).access, best
