"""Statements for an operator who looks at events and at how they were delivered."""

from __future__ import annotations

from collections.abc import Sequence

from app.domain.snapshots import JsonObject
from app.events.store.feed import COLUMNS, LOOKED_AT
from app.postgres.database import Connection

# The events of a subscription are numbered in their order. In that of positions, PostgreSQL might read those of all
# others.
_ITS_ORDER = "where subscription_id = $3 order by sequence"


async def newest(
    connection: Connection, *, types: Sequence[str], subscription_id: str | None, limit: int
) -> list[JsonObject]:
    """Return events, the newest first. Without types, those of every type.

    Without a subscription, only the newest LOOKED_AT events are looked at.
    """
    in_order, arguments = (
        ("order by position", []) if subscription_id is None else (_ITS_ORDER, [subscription_id])
    )
    rows = await connection.fetch(
        f"""select {COLUMNS} from (select * from events {in_order} desc limit {LOOKED_AT}) looked_at
        where cardinality($1::text[]) = 0 or type = any($1) order by position desc limit $2""",
        list(types),
        limit,
        *arguments,
    )
    return [dict(row) for row in rows]


async def event(connection: Connection, event_id: str) -> JsonObject | None:
    """Return an event that is kept, or None."""
    row = await connection.fetchrow(f"select {COLUMNS} from events where id = $1", event_id)
    return None if row is None else dict(row)


async def deliveries_of(connection: Connection, position: int) -> list[JsonObject]:
    """Return what was tried to deliver an event, by endpoint."""
    rows = await connection.fetch(
        """select d.endpoint_id, d.id, d.state, d.attempts from webhook_endpoints w
        join webhook_deliveries d on d.endpoint_id = w.id and d.position = $1 order by d.endpoint_id""",
        position,
    )
    return [dict(row) for row in rows]
