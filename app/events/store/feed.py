"""Statements that read the log of events and the state on which it builds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NamedTuple

from app.domain.snapshots import JsonObject
from app.postgres.database import Connection

LOOKED_AT: Final = 10_000
"""Events that one page looks at. A page that finds few of its types says where the next one goes on."""

COLUMNS: Final = (
    "position, id, type, created, subscription_id, sequence, previous_sequence, customer_id, data"
)

_PAGE = f"""
    with looked_at as (select * from events where {{after}} limit {LOOKED_AT})
    select {COLUMNS} from looked_at where $2::text[] is null or type = any($2) order by position limit $3"""
_LOOKED_TO = f"""
    select max(position) from (select position from events where {{after}} limit {LOOKED_AT}) looked_at
    having count(*) = {LOOKED_AT}"""

_AFTER = "position > $1 order by position"
# Only the index of a subscription's events has this order. In that of positions alone, PostgreSQL would read the events
# of all others, if its statistics say that the subscription has many.
_OF_SUBSCRIPTION_AFTER = """(subscription_id, position) > ({id}, $1) and subscription_id <= {id}
    order by subscription_id, position"""

_STATES = """
    with chosen as (
        select s.id from subscriptions s join event_streams t on t.subscription_id = s.id
        where s.id >= $1 and s.existence = 'present' order by s.id limit $4 + 1
    )
    select * from (
        select id as subscription_id, rank, '' as customer_id, null as role from chosen, generate_series(0, 2) rank
        union all
        select c.id, 3, m.customer_id, m.role from chosen c cross join lateral (
            select customer_id, role from memberships
            where subscription_id = c.id and customer_id > case when c.id = $1 then $3 else '' end
            order by customer_id limit $4) m
    ) state
    where (subscription_id, rank, customer_id) > ($1, $2, $3)
    order by subscription_id, rank, customer_id limit $4"""


class Rank(IntEnum):
    """What a row of the snapshot tells of a subscription, in its order."""

    STATE = 0
    OWNER = 1
    SEATS = 2
    MEMBER = 3


@dataclass(frozen=True, slots=True)
class Bounds:
    """The ends of the log: the positions of the newest event and of the newest one that was deleted."""

    newest: int
    purged_to: int
    opened: bool


class StatePlace(NamedTuple):
    """A place in the order of the states. `rank` is a `Rank`."""

    subscription_id: str
    rank: int
    customer_id: str


class State(NamedTuple):
    """One row of the snapshot that is to be filled. `role` is that of a member."""

    place: StatePlace
    role: str | None


async def bounds(connection: Connection) -> Bounds:
    """Return the ends of the log."""
    row = await connection.fetchrow(
        "select position as newest, purged_to, opened_at is not null as opened from event_log"
    )
    if row is None:
        raise LookupError("the log's row vanished")
    return Bounds(**dict(row))


async def page(
    connection: Connection,
    *,
    after: int,
    types: Sequence[str] | None,
    subscription_id: str | None,
    limit: int,
) -> list[JsonObject]:
    """Return up to `limit` events after a position, of these types and this subscription, among the next LOOKED_AT."""
    arguments: list[object] = [after, None if types is None else list(types), limit]
    rows = await connection.fetch(*_with_place(_PAGE, arguments, subscription_id))
    return [dict(row) for row in rows]


async def looked_to(connection: Connection, *, after: int, subscription_id: str | None) -> int | None:
    """Return the last position that `page` has looked at, None if it has looked at all."""
    found: int | None = await connection.fetchval(*_with_place(_LOOKED_TO, [after], subscription_id))
    return found


def _with_place(statement: str, arguments: list[object], subscription_id: str | None) -> tuple[Any, ...]:
    """Return the statement for all events, or for those of a subscription, and its arguments."""
    if subscription_id is None:
        return statement.format(after=_AFTER), *arguments
    after = _OF_SUBSCRIPTION_AFTER.format(id=f"${len(arguments) + 1}::text")
    return statement.format(after=after), *arguments, subscription_id


async def states(connection: Connection, after: StatePlace, limit: int) -> list[State]:
    """Return the next states of subscriptions and members, in the order of subscription, rank and customer."""
    rows = await connection.fetch(_STATES, *after, limit)
    return [
        State(StatePlace(row["subscription_id"], row["rank"], row["customer_id"]), row["role"])
        for row in rows
    ]


async def accesses(connection: Connection, after: tuple[str, str], limit: int) -> list[JsonObject]:
    """Return the next products that customers may use, in the order of customer and product."""
    rows = await connection.fetch(
        """select a.customer_id, a.product_id, a.via, a.role, a.subscription_id, a.revision,
            coalesce(t.sequence, 0) as sequence
        from access_states a left join event_streams t on t.subscription_id = a.subscription_id
        where a.has_access and (a.customer_id, a.product_id) > ($1, $2)
        order by a.customer_id, a.product_id limit $3""",
        *after,
        limit,
    )
    return [dict(row) for row in rows]


# Deliveries are found by endpoint and position, for which there is an index. There is none by position alone.
_PURGE = """
    with gone as (
        delete from events where position = any(array(
            select position from events
            where position <= coalesce((
                select min(least(w.queued_to, (select min(q.next_position) - 1 from webhook_queues q
                    where q.endpoint_id = w.id and q.next_position is not null)))
                from webhook_endpoints w where w.status = 'enabled'), 9223372036854775807)
            order by position limit 1000))
          and created < clock_timestamp() - $1 * interval '1 day'
        returning position
    ), deliveries as (
        delete from webhook_deliveries where id = any(array(
            select d.id from webhook_endpoints w cross join gone cross join lateral (
                select id from webhook_deliveries
                where endpoint_id = w.id and position = gone.position offset 0) d))
    ), noted as (
        update event_log set purged_to = greatest(purged_to, (select max(position) from gone))
        where exists (select from gone)
    )
    select count(*) from gone"""


async def purge(connection: Connection, *, days: float) -> int:
    """Delete the oldest events that are older than so many days, up to 1000, with their deliveries.

    Return their number. An event that an enabled endpoint has not taken is kept, and so are all after it.
    """
    return int(await connection.fetchval(_PURGE, days))
