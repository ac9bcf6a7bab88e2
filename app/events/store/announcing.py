"""Statements of the transaction that makes events of facts. The holder of the log's row is the only writer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.domain.snapshots import JsonObject
from app.domain.statuses import OPEN
from app.events.facts import SEAT_KINDS, Expansion, Fact, Judgement, Level, Member, Stream
from app.mirror.store.access import best_access
from app.postgres.database import Connection

_FLAGGED_ITEM = """exists (select from jsonb_array_elements(s.items) i
    join products p on p.id = i ->> 'product_id' and p.supports_sharing)"""

_LEVELS = """
    select s.id as subscription_id, s.existence = 'present' as is_present, s.customer_id as payer_id, o.id as owner_id,
        subscription_state(s.status, s.cancel_at, s.cancel_at_period_end, s.ended_at, s.items) as data
    from subscriptions s
    left join customers o on o.id = coalesce(s.owner_id, s.customer_id) and o.existence = 'present'
    where """

# The customers of a subscription: members, owner, payer, and those whose access it gave when that was last judged.
_CUSTOMERS = """
    select x.number, x.subscription_id, c.customer_id
    from unnest($1::bigint[], $2::text[], $3::text[]) as x(number, subscription_id, reached)
    cross join lateral (
        select customer_id from (
            (select m.customer_id from memberships m
                where m.subscription_id = x.subscription_id and m.customer_id > x.reached
                order by m.customer_id limit $4)
            union
            (select a.customer_id from access_states a
                where a.subscription_id = x.subscription_id and a.customer_id > x.reached
                order by a.customer_id limit $4)
            union
            select u.customer_id from subscriptions s
            cross join lateral (values (s.customer_id), (coalesce(s.owner_id, s.customer_id))) u(customer_id)
            where s.id = x.subscription_id and u.customer_id > x.reached) every
        order by customer_id limit $4) c
    order by x.number, c.customer_id"""

_JUDGE = f"""
    with asked as (
        select distinct on (customer_id, subscription_id) customer_id, subscription_id, number
        from unnest($1::text[], $2::text[]) with ordinality a(customer_id, subscription_id, number)
        order by customer_id, subscription_id, number
    ), pairs as (
        select a.customer_id, x.item ->> 'product_id' as product_id, min(a.number) as number
        from asked a join subscriptions s on s.id = a.subscription_id
        cross join jsonb_array_elements(s.items) x(item)
        group by 1, 2
        union
        select t.customer_id, t.product_id, a.number
        from asked a join access_states t on t.customer_id = a.customer_id and t.subscription_id = a.subscription_id
    ), numbered as (
        select customer_id, product_id, min(number) as number from pairs group by 1, 2
    ), judged as (
        select n.*, coalesce(b.status = any($3), false) as has_access,
            case when b.status = any($3) then b.via end as via, case when b.status = any($3) then b.role end as role,
            case when b.status = any($3) then b.id end as subscription_id
        from numbered n left join lateral (
            {best_access(customer="n.customer_id", product="n.product_id", open_statuses="$3")}) b on true
    )
    select j.number::int as number, j.customer_id, j.product_id, j.has_access, j.via, j.role, j.subscription_id,
        greatest(coalesce(t.revision, 0), l.sequence_floor) + 1 as revision,
        t.subscription_id as former_subscription_id
    from event_log l cross join judged j
    left join access_states t on t.customer_id = j.customer_id and t.product_id = j.product_id
    where (coalesce(t.has_access, false), t.via, t.role, t.subscription_id)
        is distinct from (j.has_access, j.via, j.role, j.subscription_id)
    order by j.number, j.customer_id, j.product_id"""

_KEEP_ACCESS = """
    insert into access_states (customer_id, product_id, revision, has_access, via, role, subscription_id)
    select customer_id, product_id, revision, has_access, via, role, subscription_id
    from jsonb_populate_recordset(null::access_states, $1)
    on conflict (customer_id, product_id) do update set revision = excluded.revision,
        has_access = excluded.has_access, via = excluded.via, role = excluded.role,
        subscription_id = excluded.subscription_id"""

_EXPAND = """
    insert into event_expansions (subscription_id, product_id, source, operation_id, of_product, reached)
    select subscription_id, product_id, source, operation_id, of_product, ''
    from jsonb_to_recordset($1) as x(subscription_id text, product_id text, source text, operation_id text,
        of_product boolean)
    on conflict ({key}) do update set source = excluded.source, operation_id = excluded.operation_id,
        of_product = excluded.of_product, reached = ''"""


@dataclass(frozen=True, slots=True)
class Log:
    """The state of the log, and the time.

    `filled_until` and `opened_to` are None before the opening reaches them.
    """

    position: int
    sequence_floor: int
    filled: bool
    filled_until: int | None
    opened_to: str | None
    opened: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class AccessChange:
    """An access that is not what the last event said. `number`: which of the judgements, from 1."""

    number: int
    customer_id: str
    product_id: str
    has_access: bool
    via: str | None
    role: str | None
    subscription_id: str | None
    revision: int
    former_subscription_id: str | None


@dataclass(frozen=True, slots=True)
class OpenExpansion:
    """An expansion that has not reached its end."""

    number: int
    subscription_id: str | None
    product_id: str | None
    source: str
    operation_id: str | None
    of_product: bool
    reached: str


async def has_work(connection: Connection) -> bool:
    """Return True if there are facts or expansions, or the log was not opened although the copy is filled."""
    return bool(
        await connection.fetchval(
            """select exists (select from event_facts) or exists (select from event_expansions)
                or exists (select from event_log l, account a where l.opened_at is null and a.filled_at is not null)"""
        )
    )


async def take_log(connection: Connection) -> Log | None:
    """Lock the log and return it, None while another transaction writes events."""
    row = await connection.fetchrow(
        """select position, sequence_floor, filled_until, opened_to, opened_at is not null as opened,
            clock_timestamp() as at,
            exists (select from account where filled_at is not null) as filled
        from event_log for update of event_log skip locked"""
    )
    return None if row is None else Log(**dict(row))


async def note_fill(connection: Connection) -> None:
    """Store which transactions may have begun before the end of the fill was visible."""
    await connection.execute(
        "update event_log set filled_until = pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
    )


async def knows_fill(connection: Connection, filled_until: int) -> bool:
    """Return True once every transaction that may not have seen the end of the fill has ended."""
    return bool(
        await connection.fetchval(
            "select pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= $1", filled_until
        )
    )


async def facts(connection: Connection, limit: int, *, without: Collection[str] = ()) -> list[Fact]:
    """Return the oldest facts, except those of the kinds `without`."""
    rows = await connection.fetch(
        """select number, kind, subscription_id, customer_id, product_id, source, operation_id, data, at
        from event_facts where kind <> all($2) order by number limit $1""",
        limit,
        list(without),
    )
    return [Fact(**dict(row)) for row in rows]


async def forget(connection: Connection, told: Sequence[Fact], born: Collection[str]) -> None:
    """Delete the facts that were told, and those of seats that the birth of their subscription has told."""
    await connection.execute(
        """delete from event_facts
        where number = any($1) or (subscription_id = any($2) and kind = any($3))""",
        [fact.number for fact in told],
        list(born),
        list(SEAT_KINDS),
    )


async def levels(connection: Connection, subscription_ids: Collection[str]) -> dict[str, Level]:
    """Return the subscriptions as they are now."""
    rows = await connection.fetch(f"{_LEVELS} s.id = any($1)", list(subscription_ids))
    return {row["subscription_id"]: Level(**dict(row)) for row in rows}


async def levels_after(connection: Connection, subscription_id: str, limit: int) -> list[Level]:
    """Return the next subscriptions by id."""
    rows = await connection.fetch(f"{_LEVELS} s.id > $1 order by s.id limit $2", subscription_id, limit)
    return [Level(**dict(row)) for row in rows]


async def levels_of_product(
    connection: Connection, product_id: str, subscription_id: str, limit: int
) -> list[Level]:
    """Return the next subscriptions of a product by id."""
    rows = await connection.fetch(
        f"""{_LEVELS} s.id > $2 and s.items @> jsonb_build_array(jsonb_build_object('product_id', $1::text))
        order by s.id limit $3""",
        product_id,
        subscription_id,
        limit,
    )
    return [Level(**dict(row)) for row in rows]


async def streams(connection: Connection, subscription_ids: Collection[str]) -> dict[str, Stream]:
    """Return what was told of these subscriptions."""
    rows = await connection.fetch(
        "select subscription_id, sequence, owner_id, total from event_streams where subscription_id = any($1)",
        list(subscription_ids),
    )
    return {row["subscription_id"]: Stream(row["sequence"], row["owner_id"], row["total"]) for row in rows}


async def members(connection: Connection, subscription_ids: Collection[str]) -> dict[str, list[Member]]:
    """Return the customers whose metadata names these subscriptions."""
    found: dict[str, list[Member]] = {}
    rows = await connection.fetch(
        """select subscription_id, customer_id, role from memberships where subscription_id = any($1)
        order by subscription_id, customer_id""",
        list(subscription_ids),
    )
    for row in rows:
        found.setdefault(row["subscription_id"], []).append(Member(row["customer_id"], row["role"]))
    return found


async def owned(connection: Connection, customer_ids: Collection[str]) -> dict[str, list[str]]:
    """Return the subscriptions that these customers pay for or own, by customer."""
    found: dict[str, list[str]] = {}
    rows = await connection.fetch(
        """select owner_id as customer_id, id from subscriptions where owner_id = any($1)
        union select customer_id, id from subscriptions where customer_id = any($1) order by 1, 2""",
        list(customer_ids),
    )
    for row in rows:
        found.setdefault(row["customer_id"], []).append(row["id"])
    return found


async def flagged(connection: Connection, product_ids: Collection[str]) -> frozenset[str]:
    """Return those of the products that give seats."""
    rows = await connection.fetch(
        "select id from products where supports_sharing and id = any($1)", list(product_ids)
    )
    return frozenset(row["id"] for row in rows)


async def keep_streams(connection: Connection, changed: dict[str, Stream]) -> None:
    """Store what was told of these subscriptions."""
    if not changed:
        return
    await connection.execute(
        """insert into event_streams (subscription_id, sequence, owner_id, total)
        select * from unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[])
        on conflict (subscription_id) do update set sequence = excluded.sequence, owner_id = excluded.owner_id,
            total = excluded.total""",
        list(changed),
        [stream.sequence for stream in changed.values()],
        [stream.owner_id for stream in changed.values()],
        [stream.total for stream in changed.values()],
    )


async def expand(connection: Connection, wanted: Iterable[Expansion]) -> None:
    """Note what is to be looked at page by page. An expansion that is noted already begins again."""
    rows = [one._asdict() for one in wanted]
    for key in ("subscription_id", "product_id"):
        # Of several of one object the last one counts.
        if newest := {row[key]: row for row in rows if row[key] is not None}:
            await connection.execute(_EXPAND.format(key=key), list(newest.values()))


async def expansions(connection: Connection, limit: int) -> list[OpenExpansion]:
    """Return the oldest expansions."""
    rows = await connection.fetch(
        """select number, subscription_id, product_id, source, operation_id, of_product, reached
        from event_expansions order by number limit $1""",
        limit,
    )
    return [OpenExpansion(**dict(row)) for row in rows]


async def customers_of(
    connection: Connection, found: Sequence[OpenExpansion], each: int
) -> dict[int, list[str]]:
    """Return the next customers of each expansion's subscription, up to `each`, by the expansion's number."""
    rows = await connection.fetch(
        _CUSTOMERS,
        [one.number for one in found],
        [one.subscription_id for one in found],
        [one.reached for one in found],
        each,
    )
    page: dict[int, list[str]] = {one.number: [] for one in found}
    for row in rows:
        page[row["number"]].append(row["customer_id"])
    return page


async def advance(connection: Connection, number: int, reached: str) -> None:
    """Store how far an expansion has come."""
    await connection.execute("update event_expansions set reached = $2 where number = $1", number, reached)


async def end_expansions(connection: Connection, numbers: Collection[int]) -> None:
    """Delete expansions that have reached their end."""
    await connection.execute("delete from event_expansions where number = any($1)", list(numbers))


async def judge(connection: Connection, asked: Sequence[Judgement]) -> list[AccessChange]:
    """Return the accesses that are not what the last event said."""
    if not asked:
        return []
    rows = await connection.fetch(
        _JUDGE, [one.customer_id for one in asked], [one.subscription_id for one in asked], list(OPEN)
    )
    return [AccessChange(**dict(row)) for row in rows]


async def keep_access(connection: Connection, changes: Sequence[AccessChange]) -> None:
    """Store accesses as they are told now."""
    rows = [
        {name: getattr(one, name) for name in ("customer_id", "product_id", "revision", "has_access")}
        | {"via": one.via, "role": one.role, "subscription_id": one.subscription_id}
        for one in changes
    ]
    await connection.execute(_KEEP_ACCESS, rows)


async def write(connection: Connection, rows: Sequence[JsonObject]) -> None:
    """Write events that have their position, id and sequence."""
    await connection.execute(
        """insert into events (position, id, type, created, subscription_id, sequence, previous_sequence,
            customer_id, data)
        select position, id, type, created, subscription_id, sequence, previous_sequence, customer_id, data
        from jsonb_populate_recordset(null::events, $1)""",
        list(rows),
    )


async def keep_log(connection: Connection, *, position: int) -> None:
    """Store the position of the newest event."""
    await connection.execute("update event_log set position = $1", position)


async def keep_opening(connection: Connection, opened_to: str) -> None:
    """Store how far the opening has come."""
    await connection.execute("update event_log set opened_to = $1", opened_to)


async def open_log(connection: Connection) -> tuple[dict[str, int], datetime]:
    """Store that the log is open, and return the numbers of copied objects and the time."""
    at = await connection.fetchval("update event_log set opened_at = clock_timestamp() returning opened_at")
    return await counts(connection), at


async def counts(connection: Connection) -> dict[str, int]:
    """Return the numbers of copied objects by kind."""
    found = await connection.fetchval(
        """select jsonb_build_object(
            'products', (select count(*) from products where existence = 'present'),
            'prices', (select count(*) from prices where existence = 'present'),
            'customers', (select count(*) from customers where existence = 'present'),
            'subscriptions', (select count(*) from subscriptions where existence = 'present'),
            'invoices', (select count(*) from invoices where existence = 'present'))"""
    )
    return dict(found)
