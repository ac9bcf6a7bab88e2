"""The audit trail, as the triggers of the mirror wrote it."""

from __future__ import annotations

from app.cache.database import Connection
from app.domain.ids import SubscriptionId
from app.domain.snapshots import JsonObject


async def page(
    connection: Connection, subscription_id: SubscriptionId, *, before: int | None, limit: int
) -> list[JsonObject]:
    """Newest first."""
    rows = await connection.fetch(
        """select id, at, door, operation_id, principal, actor_id, action, customer_id, before, after
        from audit_events where subscription_id = $1 and ($2::bigint is null or id < $2)
        order by id desc limit $3""",
        subscription_id,
        before,
        limit,
    )
    return [dict(row) for row in rows]
