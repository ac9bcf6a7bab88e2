"""Store when a worker last looked at Stripe's recent events, and how many of them never arrived."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.postgres.database import Connection

_TAKE = """
    insert into event_looks as l (looked_at, reached, seen, lost, is_complete)
    values (clock_timestamp() + ($2::float - $1::float) * interval '1 second', 0, 0, 0, true)
    on conflict (single) do update set looked_at = excluded.looked_at
    where l.looked_at < clock_timestamp() - $1::float * interval '1 second'
    returning reached"""

_RECORD = """
    update event_looks set looked_at = clock_timestamp(), reached = $1, seen = $2, lost = $3, is_complete = $4"""

# Foreign events are no sign that ours arrive. The bound keeps a flood of them from making each scrape slow.
_LAST_ACCEPTED = """
    select extract(epoch from clock_timestamp() - max(received_at))::float
    from (select received_at, outcome from webhook_events order by received_at desc limit 1000) newest
    where outcome not like 'foreign%'"""


@dataclass(frozen=True, slots=True)
class Look:
    """The last look: the number of events that changed a mirrored object, and of those that never arrived."""

    seen: int
    lost: int
    is_complete: bool


async def take(connection: Connection, *, every_seconds: int, try_again_seconds: int) -> int | None:
    """Take the look that is due, so that no other worker does it; None if none is due.

    Returns the Unix second, by Stripe's clock, up to which the last look reached, 0 before the first one. If the look
    is not recorded, it is due again after `try_again_seconds`.
    """
    reached: int | None = await connection.fetchval(_TAKE, every_seconds, try_again_seconds)
    return reached


async def record(connection: Connection, *, reached: int, seen: int, lost: int, is_complete: bool) -> None:
    """Store the result of a look that reached up to Unix second `reached`."""
    await connection.execute(_RECORD, reached, seen, lost, is_complete)


async def last(connection: Connection) -> Look | None:
    """Return the last look, None before the first one."""
    row = await connection.fetchrow("select seen, lost, is_complete from event_looks where reached > 0")
    return None if row is None else Look(**dict(row))


async def arrived(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Return the ids of those events that were delivered."""
    rows = await connection.fetch("select id from webhook_events where id = any($1)", ids)
    return {row["id"] for row in rows}


async def last_accepted(connection: Connection) -> float | None:
    """Return the seconds since an event of ours was last accepted, None if none of the newest 1,000 is ours."""
    found: float | None = await connection.fetchval(_LAST_ACCEPTED)
    return found


async def clock_ahead(connection: Connection, *, now: float) -> float:
    """Return the seconds by which `now`, a Unix time of this machine, is ahead of PostgreSQL's clock."""
    return now - float(await connection.fetchval("select extract(epoch from clock_timestamp())::float"))
