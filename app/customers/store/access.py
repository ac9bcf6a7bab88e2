"""The statement of the access check: whether a customer may use a product."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.ids import CustomerId, ProductId, SubscriptionId
from app.mirror.store import access as access_rule
from app.postgres.database import Connection

_ACCESS = access_rule.best_access(customer="$1", product="$2", open_statuses="$3")


@dataclass(frozen=True, slots=True)
class AccessRow:
    """The subscription that gives access.

    `valid_until` (Unix seconds) ends the paid period or is its earlier end.
    """

    subscription_id: SubscriptionId
    status: str
    role: str
    via: str
    valid_until: int | None


async def best_access(
    connection: Connection, customer_id: CustomerId, product_id: ProductId, *, open_statuses: list[str]
) -> AccessRow | None:
    """Return the subscription that gives the best access to the product, or None.

    One whose status is in `open_statuses` comes before all others, and one of the customer's own before a seat.
    """
    row = await connection.fetchrow(_ACCESS, customer_id, product_id, open_statuses)
    if row is None:
        return None
    return AccessRow(SubscriptionId(row["id"]), row["status"], row["role"], row["via"], row["valid_until"])
