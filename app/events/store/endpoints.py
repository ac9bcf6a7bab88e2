"""Statements about webhook endpoints: where events are sent, and the queues of what is not delivered yet.

An endpoint has one queue for each subscription, and one for events without a subscription (the empty id). A queue is
made when the first event is to be sent, and stays. Its `next_position` is the event at its head, null if all were
delivered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.domain.snapshots import JsonObject
from app.postgres.database import Connection

BY_OPERATOR: Final = "Disabled by an operator."
"""The reason of an endpoint that was disabled on purpose."""

_COLUMNS = """id, url, description, types, status, disabled_reason, secret, former_secret, former_until, queued_to,
        created_at"""

# The endpoints of a table, by one look into its index for each: the table is large, and they are few.
_NAMED = """
    select endpoint_id from (
        with recursive named as (
            (select endpoint_id from {table} order by endpoint_id limit 1)
            union all
            select (select t.endpoint_id from {table} t where t.endpoint_id > named.endpoint_id
                order by t.endpoint_id limit 1)
            from named where named.endpoint_id is not null)
        select endpoint_id from named) {table}_named"""
_DELETED = f"""
    select endpoint_id as id from (
        {_NAMED.format(table="webhook_queues")} union {_NAMED.format(table="webhook_deliveries")}) named
    where endpoint_id is not null and not exists (select from webhook_endpoints w where w.id = endpoint_id)"""

_DELETE_ROWS = """
    with queues as (
        delete from webhook_queues where endpoint_id = $1 and subscription_id = any(array(
            select subscription_id from webhook_queues where endpoint_id = $1 order by subscription_id limit 1000))
          and not exists (select from webhook_endpoints where id = $1)
        returning 1
    ), deliveries as (
        delete from webhook_deliveries where endpoint_id = $1 and position = any(array(
            select position from webhook_deliveries where endpoint_id = $1 order by position limit 1000))
          and not exists (select from webhook_endpoints where id = $1)
        returning 1
    )
    select (select count(*) from queues) + (select count(*) from deliveries)"""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where events are sent. The secrets are encrypted.

    `types` is None for all. `queued_to` is the position up to which the log was put into the queues.
    """

    id: str
    url: str
    description: str | None
    types: list[str] | None
    status: str
    disabled_reason: str | None
    secret: str
    former_secret: str | None
    former_until: datetime | None
    queued_to: int
    created_at: datetime


async def insert(
    connection: Connection,
    endpoint_id: str,
    *,
    url: str,
    description: str | None,
    types: Sequence[str] | None,
    secret: str,
    after: int,
) -> None:
    """Store an endpoint that begins after a position. A second call with the same id changes nothing."""
    await connection.execute(
        """insert into webhook_endpoints (id, url, description, types, status, secret, queued_to)
        values ($1, $2, $3, $4, 'enabled', $5, $6) on conflict do nothing""",
        endpoint_id,
        url,
        description,
        None if types is None else list(types),
        secret,
        after,
    )


async def one(connection: Connection, endpoint_id: str, *, locked: bool = False) -> Endpoint | None:
    """Return an endpoint, or None; `locked` until the transaction ends."""
    row = await connection.fetchrow(
        f"select {_COLUMNS} from webhook_endpoints where id = $1 {'for update' if locked else ''}",
        endpoint_id,
    )
    return None if row is None else Endpoint(**dict(row))


async def page(connection: Connection, *, after: str, limit: int) -> list[Endpoint]:
    """Return the next endpoints by id."""
    rows = await connection.fetch(
        f"select {_COLUMNS} from webhook_endpoints where id > $1 order by id limit $2", after, limit
    )
    return [Endpoint(**dict(row)) for row in rows]


async def change(
    connection: Connection,
    endpoint_id: str,
    *,
    url: str,
    description: str | None,
    types: Sequence[str] | None,
    status: str,
    reason: str | None,
) -> None:
    """Store what an operator has changed."""
    await connection.execute(
        """update webhook_endpoints set url = $2, description = $3, types = $4, status = $5, disabled_reason = $6
        where id = $1""",
        endpoint_id,
        url,
        description,
        None if types is None else list(types),
        status,
        reason,
    )


async def begin_after(connection: Connection, endpoint_id: str, position: int) -> None:
    """Let an endpoint go on after a position, whatever it has received."""
    await connection.execute("delete from webhook_queues where endpoint_id = $1", endpoint_id)
    await connection.execute(
        "update webhook_endpoints set queued_to = $2 where id = $1", endpoint_id, position
    )


async def first_undelivered(connection: Connection, endpoint_id: str) -> int:
    """Return the position after which an endpoint has not received everything."""
    return int(
        await connection.fetchval(
            """select least(e.queued_to, (select min(q.next_position) - 1 from webhook_queues q
                where q.endpoint_id = e.id and q.next_position is not null))
            from webhook_endpoints e where e.id = $1""",
            endpoint_id,
        )
    )


async def make_due(connection: Connection, endpoint_id: str, *, forgiven: bool = False) -> None:
    """Let every queue of an endpoint be tried at once. `forgiven`: its failures so far no longer count."""
    await connection.execute(
        """update webhook_queues set due_at = clock_timestamp(),
            failing_since = case when $2 then null else failing_since end
        where endpoint_id = $1 and next_position is not null""",
        endpoint_id,
        forgiven,
    )


async def rotate(connection: Connection, endpoint_id: str, *, secret: str, overlap: float) -> None:
    """Store a new secret. The one before signs too for `overlap` seconds."""
    await connection.execute(
        """update webhook_endpoints set former_secret = case when $3 > 0 then secret end,
            former_until = case when $3 > 0 then clock_timestamp() + $3 * interval '1 second' end, secret = $2
        where id = $1""",
        endpoint_id,
        secret,
        overlap,
    )


async def delete(connection: Connection, endpoint_id: str) -> bool:
    """Delete an endpoint; False if there is none. Its queues and deliveries are left to `delete_rows`."""
    return await connection.execute("delete from webhook_endpoints where id = $1", endpoint_id) == "DELETE 1"


async def deleted(connection: Connection) -> list[str]:
    """Return the endpoints that are deleted, and have queues or deliveries."""
    return [row["id"] for row in await connection.fetch(_DELETED)]


async def delete_rows(connection: Connection, endpoint_id: str) -> int:
    """Delete up to 1000 queues and as many deliveries of a deleted endpoint; return their number.

    A try that was under way when the endpoint was deleted stores its delivery afterwards.
    """
    return int(await connection.fetchval(_DELETE_ROWS, endpoint_id))


async def disable(connection: Connection, endpoint_id: str, reason: str) -> None:
    """Send nothing more to an endpoint, for this reason."""
    await connection.execute(
        "update webhook_endpoints set status = 'disabled', disabled_reason = $2 where id = $1 and status = 'enabled'",
        endpoint_id,
        reason,
    )


async def deliveries(
    connection: Connection, endpoint_id: str, *, before: int | None, limit: int
) -> list[JsonObject]:
    """Return what was tried, the newest event first."""
    rows = await connection.fetch(
        """select id, position, event_id, state, attempts from webhook_deliveries
        where endpoint_id = $1 and position < coalesce($2, 9223372036854775807) order by position desc limit $3""",
        endpoint_id,
        before,
        limit,
    )
    return [dict(row) for row in rows]


async def ask_again(connection: Connection, endpoint_id: str, delivery_id: str) -> bool:
    """Note that a delivery is to be sent again; False if there is none whose event is kept.

    One that is sent again at this moment, or waits for that, is not noted twice.
    """
    done = await connection.execute(
        """update webhook_deliveries d set again_at = coalesce(d.again_at, clock_timestamp())
        where d.endpoint_id = $1 and d.id = $2 and exists (select from events e where e.position = d.position)""",
        endpoint_id,
        delivery_id,
    )
    return bool(done == "UPDATE 1")
