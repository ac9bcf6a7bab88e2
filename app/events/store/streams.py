"""Statements of the one poller that feeds all event streams of a process."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from app.domain.ids import CustomerId
from app.domain.roles import Relations, Role, roles_of
from app.domain.snapshots import JsonObject
from app.events.store.feed import COLUMNS
from app.postgres.database import Connection

PAGE: Final = 1000

_ROLES = """
    select s.customer_id as payer_id, o.id as owner_id, m.role as member_role, s.id is not null as is_present,
        exists (select from jsonb_array_elements(s.items) i
            join products p on p.id = i ->> 'product_id' and p.supports_sharing
            where not coalesce((i ->> 'metered')::boolean, false)) as shareable
    from unnest($1::text[], $2::text[]) with ordinality as x(subscription_id, customer_id, number)
    left join subscriptions s on s.id = x.subscription_id and s.existence = 'present'
    left join customers o on o.id = coalesce(s.owner_id, s.customer_id) and o.existence = 'present'
    left join memberships m on m.subscription_id = x.subscription_id and m.customer_id = x.customer_id
    order by x.number"""


async def newest(connection: Connection) -> int:
    """Return the position of the newest event."""
    return int(await connection.fetchval("select position from event_log"))


async def events_between(
    connection: Connection, after: int, until: int, subscription_ids: Collection[str]
) -> list[JsonObject]:
    """Return the first events of these subscriptions after a position, up to another one and up to PAGE."""
    rows = await connection.fetch(
        f"""select {COLUMNS} from events where position > $1 and position <= $2 and subscription_id = any($3)
        order by position limit {PAGE}""",
        after,
        until,
        list(subscription_ids),
    )
    return [dict(row) for row in rows]


async def roles(connection: Connection, readers: Sequence[tuple[str, CustomerId]]) -> list[frozenset[Role]]:
    """Return the roles that each customer has on a subscription now."""
    rows = await connection.fetch(
        _ROLES, [subscription_id for subscription_id, _ in readers], [reader for _, reader in readers]
    )
    return [
        roles_of(
            reader,
            Relations(row["payer_id"], row["owner_id"], row["shareable"]),
            row["member_role"],
        )
        if row["is_present"]
        else frozenset()
        for (_, reader), row in zip(readers, rows, strict=True)
    ]
