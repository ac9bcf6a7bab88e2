"""Store which objects have pending notifications, and which lease is held while an object is fetched or written.

Leases end by the database's clock, so processes on machines with different clocks agree. An expired lease may be taken
by another holder. Snapshots of the late holder are then refused, because its token is no longer valid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from app.mirror.store.object_keys import id_of, key_of, keys_of
from app.postgres.database import Connection, Record

SPACING_SECONDS = 2
MAX_ATTEMPTS = 8
_LOOKED_AT = 200
"""Due refreshes that a worker looks at, at each end of the queue."""
OUTAGE_SECONDS = 20
"""Interval of tries during an outage of Stripe, in which no refresh becomes dead."""


@dataclass(frozen=True, slots=True)
class Lease:
    """An object's lease. `notifications` is the number of pending notifications when the lease was taken.

    `key` is that of its row (`app.mirror.store.object_keys`). `tenant`: the tenant of a refresh that a worker took,
    empty for other holders.
    """

    key: str
    kind: str
    token: UUID
    notifications: int
    attempts: int
    tenant: str = ""

    @property
    def id(self) -> str:
        """Return the object's id."""
        return id_of(self.kind, self.key)


def _lease(row: Record) -> Lease:
    return Lease(
        row["id"], row["kind"], row["token"], row["notifications"], row["attempts"], row.get("tenant", "")
    )


# Both ends of the queue are looked at: behind the backlog of one tenant, the newest notifications are those of others.
# A tenant is the customer who pays for what the object belongs to. Tenants get their turns in the order of their age.
_DUE = """
    with due as (
        (select id, kind, not_before from refreshes r where {due} order by not_before limit $5)
        union
        (select id, kind, not_before from refreshes r where {due} order by not_before desc limit $5)
    ), owned as (
        select d.id, d.not_before, case d.kind
            when 'subscription' then coalesce((select customer_id from subscriptions where id = d.id), d.id)
            when 'customer' then coalesce((select s.customer_id from memberships m
                join subscriptions s on s.id = m.subscription_id
                where m.customer_id = d.id order by m.subscription_id limit 1), d.id)
            when 'invoice' then coalesce((select customer_id from invoices where id = d.id), d.id)
            when 'payment_method' then coalesce((select customer_id from payment_methods where id = d.id), d.id)
            else d.kind end as tenant
        from due d
    ), turns as (
        select id, tenant, not_before, row_number() over (partition by tenant order by not_before)
            + coalesce(($4::jsonb ->> tenant)::int, 0) as turn
        from owned
    ), chosen as (
        select r.id, t.tenant from refreshes r join turns t on t.id = r.id
        where t.turn <= $3 and {due} order by t.turn, t.not_before limit $1 for update of r skip locked
    )
    update refreshes r set lease_token = gen_random_uuid(),
        lease_until = clock_timestamp() + $2 * interval '1 second'
    from chosen where r.id = chosen.id
    returning r.id, r.kind, r.lease_token as token, r.notifications, r.attempts, chosen.tenant""".replace(
    "{due}",
    """r.notifications > 0 and r.dead_at is null and r.not_before <= statement_timestamp()
        and (r.lease_until is null or r.lease_until < clock_timestamp())""",
)

_TAKE = """
    insert into refreshes as r (id, kind, notifications, notified_at, lease_token, lease_until)
    values ($1, $2, 0, 0, gen_random_uuid(), clock_timestamp() + $3 * interval '1 second')
    on conflict (id) do update set lease_token = excluded.lease_token, lease_until = excluded.lease_until
    where r.lease_until is null or r.lease_until < clock_timestamp()
    returning id, kind, lease_token as token, notifications, attempts"""

_HELD = "select 1 from refreshes where id = $1 and lease_token = $2 for update"

_RENEW = """
    update refreshes set lease_until = clock_timestamp() + $3 * interval '1 second'
    where id = $1 and lease_token = $2"""

_MARK_APPLIED = """
    update refreshes set
        notifications = case when notifications = $3 then 0 else notifications end,
        attempts = 0, last_error = null, dead_at = null, lease_token = null, lease_until = null,
        not_before = clock_timestamp() + $4 * interval '1 second'
    where id = $1 and lease_token = $2"""

_AGAIN = """
    update refreshes set notifications = greatest(notifications, 1), lease_token = null, lease_until = null,
        not_before = clock_timestamp() + $3 * interval '1 second'
    where id = $1 and lease_token = $2"""

_FAILED = """
    update refreshes set attempts = attempts + 1, last_error = $3, lease_token = null, lease_until = null,
        dead_at = case when attempts + 1 >= $4 then clock_timestamp() end,
        not_before = clock_timestamp()
            + least(300, power(2, attempts)) * (0.5 + random() / 2) * interval '1 second'
    where id = $1 and lease_token = $2"""

_POSTPONED = """
    update refreshes set last_error = $3, lease_token = null, lease_until = null,
        not_before = clock_timestamp() + $4 * (0.5 + random() / 2) * interval '1 second'
    where id = $1 and lease_token = $2"""

_RELEASED = "update refreshes set lease_token = null, lease_until = null where id = $1 and lease_token = $2"

_REPLAY = """
    update refreshes r set dead_at = null, attempts = 0, last_error = null,
        notifications = greatest(r.notifications, 1), not_before = clock_timestamp()
    from (select id, kind, last_error, attempts from refreshes
          where dead_at is not null and ($1::text[] is null or id = any($1)) for update) was
    where r.id = was.id
    returning was.id, was.kind, was.last_error as reason, was.attempts"""

_UNREADABLE = """
    select kind, id, reason from unreadable_objects where $1::text[] is null or id = any($1) order by kind, id"""

_STATE = """
    select count(*) filter (where not_before <= clock_timestamp()) as due, count(*) as wanted,
        coalesce(extract(epoch from clock_timestamp() - min(not_before)), 0)::float as oldest,
        (select count(*) from refreshes where dead_at is not null) as dead
    from refreshes where notifications > 0 and dead_at is null"""

COUNT_NOTIFICATION: Final = """on conflict (id) do update set
    notifications = r.notifications + 1, notified_at = greatest(r.notified_at, excluded.notified_at),
    attempts = case when r.dead_at is null then r.attempts else 0 end,
    not_before = case when r.dead_at is null then r.not_before else clock_timestamp() end, dead_at = null"""
"""How an insert of notifications into `refreshes as r` ends. A notification revives a dead refresh."""

_NOTE = f"""
    insert into refreshes as r (id, kind, notifications, notified_at) values ($1, $2, 1, $3)
    {COUNT_NOTIFICATION}"""

_CLEAR_DEAD = """
    update refreshes set notifications = 0, attempts = 0, last_error = null, dead_at = null
    where id = any($1) and dead_at is not null and lease_token is null and notified_at < $2"""


async def due(
    connection: Connection,
    *,
    limit: int,
    lease_seconds: float,
    per_tenant: int | None = None,
    busy: Mapping[str, int] | None = None,
) -> list[Lease]:
    """Take the leases of up to `limit` objects whose refresh is due. Other workers skip them.

    Tenants get their turns. None gets more than `per_tenant` leases, of which `busy` counts those that it has.
    """
    rows = await connection.fetch(
        _DUE, limit, lease_seconds, per_tenant or limit, dict(busy or {}), _LOOKED_AT
    )
    return [_lease(row) for row in rows]


async def take(connection: Connection, kind: str, object_id: str, *, lease_seconds: float) -> Lease | None:
    """Take the lease of one object, None if another holder has it."""
    row = await connection.fetchrow(_TAKE, key_of(kind, object_id), kind, lease_seconds)
    return None if row is None else _lease(row)


async def still_held(connection: Connection, lease: Lease) -> bool:
    """Return True if the lease is valid. Its row is locked until the caller's transaction ends."""
    return await connection.fetchval(_HELD, lease.key, lease.token) is not None


async def renew(connection: Connection, lease: Lease, *, lease_seconds: float) -> None:
    """Extend a lease by `lease_seconds` from now. A lease that another holder has taken does not change."""
    await connection.execute(_RENEW, lease.key, lease.token, lease_seconds)


async def mark_applied(connection: Connection, lease: Lease) -> None:
    """Release the lease after the snapshot was applied, and clear the notifications that were pending when it began.

    If further notifications have arrived since, all stay pending. Their dates prove nothing: Stripe dates an answer
    when it is sent, which may be long after the object was read.
    """
    await connection.execute(_MARK_APPLIED, lease.key, lease.token, lease.notifications, SPACING_SECONDS)


async def run_again(connection: Connection, lease: Lease) -> None:
    """Release the lease so that the object is fetched again after the usual spacing."""
    await connection.execute(_AGAIN, lease.key, lease.token, SPACING_SECONDS)


async def failed(connection: Connection, lease: Lease, reason: str) -> None:
    """Release the lease and count a failed attempt. The next one follows after 1 s, doubling up to 5 minutes.

    After MAX_ATTEMPTS the refresh is dead until it is replayed.
    """
    await connection.execute(_FAILED, lease.key, lease.token, reason, MAX_ATTEMPTS)


async def note(connection: Connection, kind: str, object_id: str, *, notified_at: int) -> None:
    """Count a pending notification of an object. `notified_at` is a Unix second by Stripe's clock."""
    await connection.execute(_NOTE, key_of(kind, object_id), kind, notified_at)


async def clear_dead(connection: Connection, kind: str, ids: Iterable[str], *, before: int) -> None:
    """Clear the dead refreshes of objects of one kind whose rows equal Stripe.

    Only refreshes whose last notification is older than Unix second `before` are cleared: the rows show it.
    """
    await connection.execute(_CLEAR_DEAD, [key_of(kind, object_id) for object_id in ids], before)


async def postponed(connection: Connection, lease: Lease, reason: str) -> None:
    """Release the lease in an outage of Stripe: try again within OUTAGE_SECONDS, without counting an attempt."""
    await connection.execute(_POSTPONED, lease.key, lease.token, reason, OUTAGE_SECONDS)


async def release(connection: Connection, lease: Lease) -> None:
    """Release a lease under which nothing was fetched or written."""
    await connection.execute(_RELEASED, lease.key, lease.token)


@dataclass(frozen=True, slots=True)
class Dead:
    """A dead refresh. `reason` is that of its last attempt."""

    id: str
    kind: str
    reason: str | None
    attempts: int


async def wanted(connection: Connection, objects: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return those of the objects, given as (kind, id), that have a pending notification."""
    by_key = {key_of(kind, object_id): (kind, object_id) for kind, object_id in objects}
    rows = await connection.fetch(
        "select id from refreshes where id = any($1) and notifications > 0", list(by_key)
    )
    return {by_key[row["id"]] for row in rows}


async def was_read(connection: Connection, kind: str, object_id: str, *, seconds: int) -> bool:
    """Return True if a read of the object ended at most `seconds` ago, and nobody reads it now.

    It tells that Stripe was asked for an object which has no row because Stripe does not have it.
    """
    return bool(
        await connection.fetchval(
            """select lease_token is null and not_before > clock_timestamp() - $2 * interval '1 second'
            from refreshes where id = $1""",
            key_of(kind, object_id),
            seconds - SPACING_SECONDS,
        )
    )


async def dead(connection: Connection, *, limit: int) -> list[Dead]:
    """Return up to `limit` dead refreshes, oldest first."""
    rows = await connection.fetch(
        """select id, kind, last_error as reason, attempts from refreshes
        where dead_at is not null order by dead_at limit $1""",
        limit,
    )
    return [_dead(row) for row in rows]


def _dead(row: Record) -> Dead:
    return Dead(id_of(row["kind"], row["id"]), row["kind"], row["reason"], row["attempts"])


async def replay(connection: Connection, ids: list[str] | None) -> list[Dead]:
    """Make dead refreshes, and those of objects that cannot be read, due at once; return them as they were.

    None replays all.
    """
    keys = None if ids is None else [key for object_id in ids for key in keys_of(object_id)]
    async with connection.transaction():
        found = [_dead(row) for row in await connection.fetch(_REPLAY, keys)]
        replayed = {(one.kind, one.id) for one in found}
        for row in await connection.fetch(_UNREADABLE, ids):
            if (row["kind"], row["id"]) not in replayed:
                await note(connection, row["kind"], row["id"], notified_at=0)
                found.append(Dead(row["id"], row["kind"], row["reason"], 1))
    return found


@dataclass(frozen=True, slots=True)
class State:
    """The numbers of refreshes that are due, wanted and dead.

    `oldest` is the time in seconds since the oldest refresh was due, negative if it may not start yet.
    """

    due: int
    wanted: int
    oldest: float
    dead: int


async def state(connection: Connection) -> State:
    """Return the numbers of refreshes."""
    row = await connection.fetchrow(_STATE)
    if row is None:
        raise LookupError("a count that always answers one row answered none")
    return State(**dict(row))
