"""Statements that fill the queues of endpoints, lease what is due, and store how a try has ended."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Final
from uuid import UUID

from app.domain.snapshots import JsonObject
from app.postgres.database import Connection, Record

IN_FLIGHT: Final = 8
"""Requests to one endpoint at the same time, each for another subscription."""
AGAIN_IN_FLIGHT: Final = 4
"""Of these, the most that send a delivery again because an operator wants it."""
_KEPT_FOR_AGAIN: Final = 2
_TURN_SECONDS: Final = 1
_BATCH: Final = 1000

# PostgreSQL expects a third of all rows to be before a time, unless it is said that almost all have none.
_OPEN = """
    select e.id from webhook_endpoints e, event_log l
    where e.status = 'enabled' and (e.queued_to < l.position
        or exists (select from webhook_queues q where q.endpoint_id = e.id and q.next_position is not null
            and q.due_at <= statement_timestamp() and (q.lease_until is null or q.lease_until < clock_timestamp()))
        or exists (select from webhook_deliveries d where d.endpoint_id = e.id and d.again_at is not null
            and d.again_at <= clock_timestamp()))
    order by e.id"""

# A statement sees what was committed when it began. So the endpoint is locked by a statement of its own, and the later
# ones see all that its last holder has leased. The lock lets other workers store their tries.
_HOLD = "select id from webhook_endpoints where id = $1 and status = 'enabled' for no key update skip locked"

# A queue may be ahead of the batch, since `_ADVANCE` looks in the log. So of the batch the first event that it has not
# delivered counts. `on conflict` has waited for the queue's row and sees it as it is now.
_ENQUEUE = f"""
    with endpoint as (
        select id, types, queued_to from webhook_endpoints where id = $1 and status = 'enabled'
        for no key update skip locked
    ), batch as (
        select v.position, coalesce(v.subscription_id, '') as subscription_id, v.type
        from endpoint e cross join lateral (
            select position, subscription_id, type from events where position > e.queued_to
            order by position limit {_BATCH}) v
    ), wanted as (
        select b.position, b.subscription_id from batch b, endpoint e where e.types is null or b.type = any(e.types)
    ), queued as (
        insert into webhook_queues as q (endpoint_id, subscription_id, delivered_to, next_position, due_at, failures)
        select e.id, n.subscription_id, e.queued_to, min(n.position), clock_timestamp(), 0
        from wanted n, endpoint e group by e.id, e.queued_to, n.subscription_id order by n.subscription_id
        on conflict (endpoint_id, subscription_id) do update set due_at = excluded.due_at, next_position = (
            select min(n.position) from wanted n
            where n.subscription_id = q.subscription_id and n.position > q.delivered_to)
        where q.next_position is null
    ), moved as (
        update webhook_endpoints w
        set queued_to = coalesce((select max(position) from batch), greatest(e.queued_to, l.position))
        from endpoint e, event_log l where w.id = e.id
    )
    select count(*) from batch"""

# What is in flight is read from the database: queues by their leases, and redeliveries by the time in the future at
# which they are due again if their process is killed. While a redelivery waits, some places are kept for it.
_LEASED = """select q.subscription_id from webhook_queues q
    where q.endpoint_id = $1 and q.next_position is not null and q.lease_until > clock_timestamp()"""
_AGAIN = """select d.id, d.again_at, coalesce(v.subscription_id, '') as subscription_id
    from webhook_deliveries d join events v on v.position = d.position
    where d.endpoint_id = $1 and d.again_at is not null"""

_LEASE = f"""
    with leased as materialized ({_LEASED}
    ), again as materialized ({_AGAIN}
    ), free as (
        select {IN_FLIGHT} - (select count(*) from leased)
            - greatest(count(*) filter (where a.again_at > clock_timestamp()), least(count(*), {_KEPT_FOR_AGAIN}))
            as number from again a
    ), due as (
        select q.endpoint_id, q.subscription_id from webhook_queues q
        where q.endpoint_id = $1 and q.next_position is not null
          and q.due_at <= statement_timestamp() and (q.lease_until is null or q.lease_until < clock_timestamp())
          and q.subscription_id not in (select subscription_id from again where again_at > clock_timestamp())
        order by q.due_at limit greatest((select number from free), 0) for update skip locked
    )
    update webhook_queues q set lease_token = $2, lease_until = clock_timestamp() + $3 * interval '1 second'
    from due where q.endpoint_id = due.endpoint_id and q.subscription_id = due.subscription_id
    returning q.subscription_id"""

_EVENT = ("id", "type", "created", "sequence", "previous_sequence", "subscription_id", "customer_id", "data")
_SENT = f"""w.id as endpoint_id, w.url, w.secret,
        case when w.former_until > clock_timestamp() then w.former_secret end as former_secret,
        v.position, {", ".join(f"v.{name}" for name in _EVENT)}, clock_timestamp() as at"""

_HEAD = f"""
    select q.subscription_id as queue, q.failures, q.failing_since, {_SENT}
    from webhook_queues q
    join webhook_endpoints w on w.id = q.endpoint_id and w.status = 'enabled'
    join events v on v.position = q.next_position
    where q.endpoint_id = $1 and q.subscription_id = $2 and q.lease_token = $3"""

# An event that commits between the choice of the next one and the end of the transaction is put into the queue by
# `_ENQUEUE`, which waits for the row. So the row is locked by a statement of its own, before the next one is chosen.
#
# The commit does not wait for the disk, so that deliveries hold up no other commit. After a crash of PostgreSQL, the
# events of its last second are sent again.
_LOCK = """
    select q.next_position, w.types, set_config('synchronous_commit', 'off', true)
    from webhook_queues q join webhook_endpoints w on w.id = q.endpoint_id
    where q.endpoint_id = $1 and q.subscription_id = $2 and q.lease_token = $3 for update of q"""

# A queue that has more events keeps its lease, unless a redelivery waits for a place of the endpoint. One for the same
# subscription is sent before the next event.
#
# Plans are made once for all queues. In the order of positions, PostgreSQL would read all events of other subscriptions
# up to the next one, and 100,000 of them follow the end of a large team. By the order of sequences it reads none.
_ADVANCE = f"""
    with next as (
        select min(position) as position from (
            (select v.position from events v
                where v.subscription_id = $2 and v.sequence > $7 and ($5::text[] is null or v.type = any($5))
                order by v.sequence limit 1)
            union all
            (select v.position from events v
                where $2 = '' and v.subscription_id is null and v.position > $4
                  and ($5::text[] is null or v.type = any($5))
                order by v.position limit 1)) found
    ), again as (
        select count(*) > 0 as waits, coalesce(bool_or(a.subscription_id = $2), false) as is_own
        from ({_AGAIN} and d.again_at <= clock_timestamp()) a
    )
    update webhook_queues set delivered_to = $4, next_position = next.position, failures = 0, failing_since = null,
        due_at = clock_timestamp() + case when again.is_own then {_TURN_SECONDS} else 0 end * interval '1 second',
        lease_until = case when next.position is not null and not again.waits
            then clock_timestamp() + $6 * interval '1 second' end,
        lease_token = case when next.position is not null and not again.waits then lease_token end
    from next, again where endpoint_id = $1 and subscription_id = $2 and lease_token = $3
    returning lease_token"""

_ATTEMPT = """
    insert into webhook_deliveries as d (id, endpoint_id, position, event_id, state, attempts)
    values ($1, $2, $3, $4, $5, jsonb_build_array($6::jsonb))
    on conflict (endpoint_id, position) do update set
        state = case when d.state = 'delivered' then d.state else excluded.state end,
        again_at = case when $7 then null else d.again_at end,
        attempts = (select jsonb_agg(a order by n) from (
            select a, n from jsonb_array_elements(d.attempts || excluded.attempts) with ordinality x(a, n)
            order by n desc limit 100) newest)"""


_TAKE_AGAIN = f"""
    with leased as materialized ({_LEASED}
    ), again as materialized ({_AGAIN}
    ), busy as (
        select subscription_id from leased
        union all select subscription_id from again where again_at > clock_timestamp()
    ), free as (
        select least({AGAIN_IN_FLIGHT}, {IN_FLIGHT} - (select count(*) from leased)) - count(*) as number
        from again where again_at > clock_timestamp()
    ), first as (
        select distinct on (a.subscription_id) a.id, a.again_at from again a
        where a.again_at <= clock_timestamp() and a.subscription_id not in (select subscription_id from busy)
        order by a.subscription_id, a.again_at, a.id
    ), due as (
        select d.id from webhook_deliveries d
        where d.endpoint_id = $1 and d.again_at <= clock_timestamp() and d.id = any(array(
            select id from first order by again_at limit greatest((select number from free), 0)))
        for update skip locked
    ), taken as (
        update webhook_deliveries d set again_at = clock_timestamp() + $2 * interval '1 second'
        from due where d.id = due.id returning d.endpoint_id, d.position
    )
    select coalesce(v.subscription_id, '') as queue, 0 as failures, null::timestamptz as failing_since, {_SENT}
    from taken t join webhook_endpoints w on w.id = t.endpoint_id join events v on v.position = t.position"""


@dataclass(frozen=True, slots=True)
class Head:
    """The event at the head of a queue that is leased, and where it is sent. `at` is the time of the database.

    `former_secret` is set while the secret before the last rotation signs too.
    """

    endpoint_id: str
    url: str
    secret: str
    former_secret: str | None
    queue: str
    failures: int
    failing_since: datetime | None
    position: int
    event: JsonObject
    at: datetime


def _head(row: Record) -> Head:
    names = [one.name for one in fields(Head) if one.name != "event"]
    return Head(event={name: row[name] for name in _EVENT}, **{name: row[name] for name in names})


async def open_endpoints(connection: Connection) -> list[str]:
    """Return the endpoints that have something to be done for."""
    return [row["id"] for row in await connection.fetch(_OPEN)]


async def hold(connection: Connection, endpoint_id: str) -> bool:
    """Keep other workers from an endpoint until the transaction ends; False if one has it, or it is disabled."""
    return await connection.fetchval(_HOLD, endpoint_id) is not None


async def enqueue(connection: Connection, endpoint_id: str) -> int:
    """Put the next events into the queues of an endpoint; return their number, 0 if another process does it."""
    return int(await connection.fetchval(_ENQUEUE, endpoint_id) or 0)


async def lease(connection: Connection, endpoint_id: str, token: UUID, *, seconds: float) -> list[str]:
    """Lease queues that are due, as many as their endpoint may have in flight; return their subscriptions.

    The endpoint is held.
    """
    return [row["subscription_id"] for row in await connection.fetch(_LEASE, endpoint_id, token, seconds)]


async def head(connection: Connection, endpoint_id: str, queue: str, token: UUID) -> Head | None:
    """Return the head of a leased queue, None if the lease or the endpoint is lost."""
    row = await connection.fetchrow(_HEAD, endpoint_id, queue, token)
    return None if row is None else _head(row)


async def succeeded(connection: Connection, sent: Head, token: UUID, *, seconds: float) -> bool:
    """Go on to the next event of the queue; return True if it may be sent now, and is leased for so many seconds.

    False if there is none, or if a redelivery goes first.
    Runs in a transaction, whose commit then does not wait for the disk.
    """
    locked = await connection.fetchrow(_LOCK, sent.endpoint_id, sent.queue, token)
    if locked is None or locked["next_position"] != sent.position:
        return False
    lease = await connection.fetchval(
        _ADVANCE,
        sent.endpoint_id,
        sent.queue,
        token,
        sent.position,
        locked["types"],
        seconds,
        sent.event["sequence"],
    )
    if sent.failures:
        await connection.execute(
            """update webhook_queues set due_at = clock_timestamp()
            where endpoint_id = $1 and next_position is not null and failures > 0 and due_at > clock_timestamp()""",
            sent.endpoint_id,
        )
    return lease is not None


async def failed(connection: Connection, sent: Head, token: UUID, *, pause: float) -> None:
    """Try the head of the queue again after so many seconds."""
    await connection.execute(
        """update webhook_queues set failures = failures + 1,
            failing_since = coalesce(failing_since, clock_timestamp()),
            due_at = clock_timestamp() + $4 * interval '1 second', lease_token = null, lease_until = null
        where endpoint_id = $1 and subscription_id = $2 and lease_token = $3""",
        sent.endpoint_id,
        sent.queue,
        token,
        pause,
    )


async def release(connection: Connection, endpoint_id: str, queue: str, token: UUID) -> None:
    """Give a leased queue back, because this process ends."""
    await connection.execute(
        """update webhook_queues set lease_token = null, lease_until = null
        where endpoint_id = $1 and subscription_id = $2 and lease_token = $3""",
        endpoint_id,
        queue,
        token,
    )


async def record_attempt(
    connection: Connection, sent: Head, delivery_id: str, *, state: str, attempt: JsonObject, is_again: bool
) -> None:
    """Store one try. The newest 100 of an event are kept. `is_again`: an operator wanted it, and it is done now."""
    await connection.execute(
        _ATTEMPT, delivery_id, sent.endpoint_id, sent.position, sent.event["id"], state, attempt, is_again
    )


async def take_again(connection: Connection, endpoint_id: str, *, seconds: float) -> list[Head]:
    """Take deliveries that an operator wants to be sent again, as many as the endpoint may have in flight.

    The endpoint is held. They are sent outside of the queues. One that is not recorded within so many seconds is taken
    again.
    """
    return [_head(row) for row in await connection.fetch(_TAKE_AGAIN, endpoint_id, seconds)]


async def backlog(connection: Connection) -> list[JsonObject]:
    """Return what is shown of each endpoint, its failures, and the age of its oldest event that is not delivered.

    The age `oldest_seconds` is None without such an event.
    """
    rows = await connection.fetch(
        """select w.id, w.url, w.types, w.description, w.status, w.disabled_reason, w.created_at, (
            select extract(epoch from clock_timestamp() - v.created)::float from events v
            where v.position >= least((select min(q.next_position) from webhook_queues q
                where q.endpoint_id = w.id and q.next_position is not null), w.queued_to + 1)
            order by v.position limit 1) as oldest_seconds,
            (select coalesce(sum(q.failures), 0) from webhook_queues q where q.endpoint_id = w.id)::bigint as failures
        from webhook_endpoints w order by w.id"""
    )
    return [dict(row) for row in rows]


async def oldest_fact(connection: Connection) -> float:
    """Return the age in seconds of the oldest fact of which no event was made, 0 without one."""
    return float(
        await connection.fetchval(
            """select coalesce(extract(epoch from clock_timestamp() - (
                select at from event_facts order by number limit 1)), 0)::float"""
        )
    )
