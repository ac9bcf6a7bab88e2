"""SQL statements of the doctor.

They find metadata without the intended effect, subscriptions with too few seats, and late deliveries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.domain.ids import SubscriptionId
from app.operations.waiting_store import PAID_WITHOUT_EFFECT
from app.postgres.database import Connection

LIMIT = 500
"""Greatest number of rows of one kind in a report. If there are more, they probably have the same cause."""

_METADATA_PROBLEMS = """
    select kind, id, key, problem from (
        select 'customer' as kind, c.id, o.key, o.value as problem
        from customers c, jsonb_each_text(c.metadata_problems) o
        where c.existence = 'present' and c.metadata_problems <> '{}'
        union all
        select 'subscription', s.id, o.key, o.value
        from subscriptions s, jsonb_each_text(s.metadata_problems) o
        where s.existence = 'present' and not s.terminal and s.metadata_problems <> '{}') found
    order by kind, id, key limit $1"""

_MEMBERSHIPS = """
    select m.customer_id, m.subscription_id, s.status, coalesce(s.existence, 'unknown') as existence,
        coalesce(s.owner_id, s.customer_id) = m.customer_id as is_owner, c.member_of = m.subscription_id as is_guides,
        c.further_memberships ? m.subscription_id as is_further
    from memberships m join customers c on c.id = m.customer_id left join subscriptions s on s.id = m.subscription_id
    where s.id is null or s.existence <> 'present' or s.terminal
       or coalesce(s.owner_id, s.customer_id) = m.customer_id
    order by m.customer_id, m.subscription_id limit $1"""

_OWNERLESS = """
    select s.id, s.owner_id from subscriptions s left join customers o on o.id = s.owner_id
    where s.owner_id is not null and s.existence = 'present' and not s.terminal
      and (o.id is null or o.existence <> 'present')
    order by s.id limit $1"""

_SHARED_LOGINS = """
    select user_id, array_agg(id order by id) as ids from customers
    where user_id is not null and existence = 'present'
    group by user_id having count(*) > 1 order by user_id limit $1"""

# This is a first filter: it may return a subscription that has enough seats, but it never misses one that has too few.
# app/domain/seats.py has the exact rule.
_CROWDED = """
    with taken as (
        select subscription_id as id, sum(number) as number from (
            select subscription_id, sum(users + managers) as number from membership_counts group by subscription_id
            union all
            select subscription_id, count(*) from reservations where released_at is null group by subscription_id) t
        group by subscription_id
    )
    select s.id from taken join subscriptions s on s.id = taken.id
    where s.existence = 'present' and not s.terminal and taken.number + 1 > (
        select coalesce(sum((item ->> 'quantity')::bigint), 0)
        from jsonb_array_elements(s.items) item join products p on p.id = item ->> 'product_id'
        where p.supports_sharing and not (item ->> 'metered')::boolean)
    order by s.id limit $1"""

_LOWERED_UNPAID = """
    select distinct s.id, i.id as invoice_id, i.status,
        (line ->> 'quantity')::bigint as billed, (item ->> 'quantity')::bigint as left
    from invoices i
    join subscriptions s on s.id = i.subscription_id and s.existence = 'present' and not s.terminal
    cross join jsonb_array_elements(i.lines) line
    join jsonb_array_elements(s.items) item on item ->> 'id' = line ->> 'subscription_item_id'
    where i.existence = 'present' and i.status in ('open', 'uncollectible')
      and (line ->> 'amount')::bigint > 0
      and (line ->> 'period_end')::bigint > extract(epoch from clock_timestamp())
      and (item ->> 'quantity')::bigint < (line ->> 'quantity')::bigint
    order by s.id, i.id limit $1"""

_PAID_WITHOUT_EFFECT = f"""
    select o.subscription_id, t.operation_id, t.invoice_id, i.amount_paid, i.currency
    from operation_steps t join operations o on o.id = t.operation_id left join invoices i on i.id = t.invoice_id
    where {PAID_WITHOUT_EFFECT} order by t.settled_at limit $1"""

_OTHER_VERSIONS = """
    select count(*) from webhook_events
    where received_at > clock_timestamp() - interval '1 day' and outcome = 'noted: other version'"""


_UNCLAIMED = """
    select k.subscription_id, k.customer_id, extract(epoch from clock_timestamp() - k.since)::float as age,
        exists (select from identities i where i.email = lower(k.typed_email collate "C")
            and i.customer_id is not null and i.customer_id <> k.customer_id) as has_login
    from member_records k
    join memberships m on m.subscription_id = k.subscription_id and m.customer_id = k.customer_id
    where k.typed_email is not null
    order by k.since, k.customer_id limit $1"""

_GHOSTS = """
    select s.customer_id, extract(epoch from clock_timestamp() - s.created_at)::float as age from seat_customers s
    join customers c on c.id = s.customer_id and c.existence = 'present'
    where s.claimed_at is null and s.kept_at is not null
      and not exists (select from identities i where i.customer_id = s.customer_id)
      and not exists (select from memberships m where m.customer_id = s.customer_id)
    order by s.created_at limit $1"""


async def unclaimed(connection: Connection) -> list[dict[str, Any]]:
    """Return seats that were given by e-mail and whose person has not acted, oldest first.

    `age` is in seconds. `has_login`: the address belongs to a login that has another customer, so the seat cannot move.
    """
    return [dict(row) for row in await connection.fetch(_UNCLAIMED, LIMIT)]


async def ghosts(connection: Connection) -> list[dict[str, Any]]:
    """Return customers that were created for a seat, have none, belong to no login, and are in use at Stripe."""
    return [dict(row) for row in await connection.fetch(_GHOSTS, LIMIT)]


async def metadata_problems(connection: Connection) -> list[dict[str, Any]]:
    """Return objects with metadata that does not have the intended effect.

    Each row has kind, id, key and problem.
    """
    return [dict(row) for row in await connection.fetch(_METADATA_PROBLEMS, LIMIT)]


async def memberships(connection: Connection) -> list[dict[str, Any]]:
    """Return memberships of absent, ended or own subscriptions, with the keys that name them."""
    return [dict(row) for row in await connection.fetch(_MEMBERSHIPS, LIMIT)]


async def ownerless(connection: Connection) -> list[tuple[str, str]]:
    """Return (subscription, named owner) for owners that do not exist."""
    return [(row["id"], row["owner_id"]) for row in await connection.fetch(_OWNERLESS, LIMIT)]


async def shared_logins(connection: Connection) -> list[tuple[str, list[str]]]:
    """Return (subject, customers) for subjects that several customers name."""
    return [(row["user_id"], row["ids"]) for row in await connection.fetch(_SHARED_LOGINS, LIMIT)]


async def crowded(connection: Connection) -> list[SubscriptionId]:
    """Return subscriptions that may have more people than seats."""
    return [SubscriptionId(row["id"]) for row in await connection.fetch(_CROWDED, LIMIT)]


async def lowered_unpaid(connection: Connection) -> list[dict[str, Any]]:
    """Return subscriptions with fewer units than an unpaid invoice bills.

    The invoice is for the running period.
    """
    return [dict(row) for row in await connection.fetch(_LOWERED_UNPAID, LIMIT)]


async def paid_without_effect(connection: Connection) -> list[dict[str, Any]]:
    """Return purchases that were paid, never took effect, and are not acknowledged.

    The amount is None if the invoice is not in the cache.
    """
    return [dict(row) for row in await connection.fetch(_PAID_WITHOUT_EFFECT, LIMIT)]


@dataclass(frozen=True, slots=True)
class Deliveries:
    """The webhook deliveries.

    `last`: seconds since the newest one, None if there was none. `other_version`: those of another API version in the
    last 24 h.
    """

    last: float | None
    other_version: int


async def deliveries(connection: Connection) -> Deliveries:
    """Return when the newest delivery came, and how many have another API version."""
    last = await connection.fetchval(
        """select extract(epoch from clock_timestamp() - received_at)::float from webhook_events
        order by received_at desc limit 1"""
    )
    return Deliveries(last, int(await connection.fetchval(_OTHER_VERSIONS)))
