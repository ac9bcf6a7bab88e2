"""The customers that a change of members names, as they are mirrored, and those that operations create."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from app.domain.ids import CustomerId, SubscriptionId
from app.identity.store import UNCLAIMED
from app.postgres.database import Connection


@dataclass(frozen=True, slots=True)
class FoundPerson:
    """A customer that a change names, as they are mirrored, read under the subscription's lock.

    `member_role`: on this subscription. `others`: the other live subscriptions that have them as a member, or promise
    them a seat. `unclaimed`: how many of these were given to an e-mail whose person has no login yet. `busy`: a step of
    this subscription that names them is not settled.
    """

    customer_id: CustomerId
    email: str | None
    member_role: str | None
    former_member: bool
    others: int
    unclaimed: int
    busy: bool

    def is_full(self, limit: int, *, is_by_email: bool) -> bool:
        """Return True if the person has no membership left of `limit`, or of those that nobody has claimed."""
        return self.others >= limit or (is_by_email and self.unclaimed >= unclaimed_limit(limit))


def unclaimed_limit(limit: int) -> int:
    """Return how many of a person's memberships may wait for their first login."""
    return max(1, limit // 2)


# One row a customer. A membership of a subscription that has ended, or does not exist, bars nothing. Each lookup is
# limited to its one row: otherwise PostgreSQL may read a whole table to answer it for many customers.
_FOUND = """
    select c.id as customer_id, lower(c.email collate "C") as email, m.role as member_role,
        k.is_known is not null as former_member, o.number as others, o.unclaimed,
        exists (select from operation_steps t
            where t.customer_id = c.id and t.settled_at is null and not t.awaits_seats
              and t.subscription_id = $1) as busy
    from customers c
    left join lateral (select role from memberships m
        where m.subscription_id = $1 and m.customer_id = c.id limit 1) m on true
    left join lateral (select true as is_known from member_records k
        where k.subscription_id = $1 and k.customer_id = c.id limit 1) k on true
    left join lateral (select true as is_linked from identities i where i.customer_id = c.id limit 1) i on true
    cross join lateral (
        select count(*) as number, count(*) filter (
            where other.is_typed and c.user_id is null and i.is_linked is null) as unclaimed
        from (
            select held.subscription_id, bool_or(held.is_typed) as is_typed from (
                select m.subscription_id, k.typed_email is not null as is_typed
                from memberships m join subscriptions s on s.id = m.subscription_id
                left join lateral (select k.typed_email from member_records k
                    where k.subscription_id = m.subscription_id and k.customer_id = c.id limit 1) k on true
                where m.customer_id = c.id and m.subscription_id <> $1
                  and s.existence = 'present' and s.status <> all($3)
                union all
                select v.subscription_id, v.email is not null from reservations v
                where v.customer_id = c.id and v.released_at is null and v.subscription_id <> $1) held
            group by held.subscription_id) other) o
    where c.existence = 'present' and """

_BY_ID = _FOUND + "c.id = any($2)"

# Not an exists, which PostgreSQL may answer by reading the whole table: the count of one key is a lookup.
# By rank: the customer of the login to which the address belongs; the customer of a login that never verified one, by
# its own e-mail, if the operator's side made the link; the customer whose seat was given by the address and is
# unclaimed; any other customer without a login.
_CANDIDATES = f"""
    select a.address, found.rank, found.customer_id
    from unnest($1::text[]) a(address)
    cross join lateral (
        (select 1 as rank, i.customer_id from identities i join customers c on c.id = i.customer_id
            where i.email = a.address and c.existence = 'present' order by i.email_at desc limit 1)
        union all
        (select 2, c.id from customers c
            cross join lateral (select i.email_at, i.linked_by from identities i where i.customer_id = c.id limit 1) i
            where lower(c.email collate "C") = a.address and c.existence = 'present' and i.email_at is null
              and i.linked_by <> 'trigger')
        union all
        (select 3, s.customer_id from seat_customers s join customers c on c.id = s.customer_id
            where s.email = a.address and {UNCLAIMED}
            order by exists (select from memberships m where m.customer_id = s.customer_id) desc, s.created_at desc
            limit 1)
        union all
        (select 3, k.customer_id from member_records k join customers c on c.id = k.customer_id
            where lower(k.typed_email collate "C") = a.address and k.typed_email is not null
              and c.existence = 'present'
              and not (select count(*) > 0 from identities i where i.customer_id = k.customer_id)
              and not (select count(*) > 0 from seat_customers s where s.customer_id = k.customer_id)
            group by k.customer_id)
        union all
        (select 4, c.id from customers c
            where lower(c.email collate "C") = a.address and c.existence = 'present'
              and not (select count(*) > 0 from identities i where i.customer_id = c.id)
              and not (select count(*) > 0 from seat_customers s where s.customer_id = c.id and s.claimed_at is null))
    ) found"""
_WITHOUT_LOGIN = 4

_PROMISED_EMAILS = """
    select email, subscription_id from reservations
    where email = any($1) and released_at is null and customer_id is null"""

# What may still take effect keeps its keys, and an addition keeps its slot until it is settled.
_HELD_KEYS = """
    select v.slot from reservations v
    where v.customer_id = $1 and v.released_at is null and v.slot is not null
      and (v.operation_id, v.position) <> ($2, $3)
    union
    select jsonb_object_keys(t.writes) from operation_steps t
    where t.customer_id = $1 and t.settled_at is null and (t.state = 'in_flight' or t.attempt > 0)
      and (t.operation_id, t.position) <> ($2, $3)"""

_PROMISED_ELSEWHERE = """
    select distinct v.subscription_id from reservations v
    where v.customer_id = $1 and v.released_at is null and v.slot is not null and v.subscription_id <> $2"""

_CHOOSE_WRITES = """
    with step as (
        update operation_steps set writes = $3 where operation_id = $1 and position = $2 and settled_at is null
        returning operation_id, position
    )
    update reservations v set slot = $4 from step
    where v.operation_id = step.operation_id and v.position = step.position and v.released_at is null"""

_LIVE = """
    select id, existence = 'present' and status <> all($2) as is_live from subscriptions where id = any($1)"""


async def people_by_id(
    connection: Connection, subscription_id: SubscriptionId, ids: Sequence[str], *, ended: Sequence[str]
) -> list[FoundPerson]:
    """Return the customers with these ids.

    `ended`: the statuses in which a subscription no longer holds its members.
    """
    rows = await connection.fetch(_BY_ID, subscription_id, list(ids), list(ended))
    return [FoundPerson(**dict(row)) for row in rows]


async def people_by_email(
    connection: Connection,
    subscription_id: SubscriptionId,
    emails: Sequence[str],
    *,
    ended: Sequence[str],
    lock: bool,
) -> list[FoundPerson]:
    """Return the customers that additions by these addresses, ASCII-lowered, mean; `email` is that address.

    Several for one address mean that it is ambiguous. None: a new customer is created. With `lock`, a seat customer
    that is found is locked until the transaction ends, so that it is neither deleted nor emptied in between.
    """
    chosen: dict[str, dict[int, list[str]]] = {}
    for row in await connection.fetch(_CANDIDATES, list(emails)):
        chosen.setdefault(row["address"], {}).setdefault(row["rank"], []).append(row["customer_id"])
    named = [(address, ids) for address, ranks in chosen.items() if (ids := _first(ranks))]
    ids = sorted({customer_id for _, of_address in named for customer_id in of_address})
    kept = set(ids) - await _given_up(connection, ids, lock=lock)
    people = {
        one.customer_id: one for one in await people_by_id(connection, subscription_id, ids, ended=ended)
    }
    return [
        replace(people[customer_id], email=address)
        for address, of_address in named
        for customer_id in (CustomerId(one) for one in of_address)
        if customer_id in people and customer_id in kept
    ]


def _first(ranks: Mapping[int, list[str]]) -> list[str]:
    """Return the candidates of the best rank. Several customers without a login say nothing of whose address it is."""
    best = min(ranks)
    found = ranks[best]
    return [] if best == _WITHOUT_LOGIN and len(found) > 1 else found


async def _given_up(connection: Connection, ids: Sequence[str], *, lock: bool) -> set[str]:
    """Return those of these customers that are being deleted because nobody uses them; `lock` keeps all as they are."""
    rows = await connection.fetch(
        f"""select customer_id, deleting_at is not null as deleting from seat_customers
        where customer_id = any($1) order by customer_id {"for share" if lock else ""}""",
        list(ids),
    )
    return {row["customer_id"] for row in rows if row["deleting"]}


async def promised_emails(connection: Connection, emails: Sequence[str]) -> dict[str, set[SubscriptionId]]:
    """Return the addresses for which unsettled operations create a customer, each with its subscriptions."""
    found: dict[str, set[SubscriptionId]] = {}
    for row in await connection.fetch(_PROMISED_EMAILS, list(emails)):
        found.setdefault(row["email"], set()).add(SubscriptionId(row["subscription_id"]))
    return found


async def held_keys(
    connection: Connection, customer_id: CustomerId, operation_id: str, position: int
) -> frozenset[str]:
    """Return the metadata keys of a customer that other steps write, or have written without a known outcome."""
    rows = await connection.fetch(_HELD_KEYS, customer_id, operation_id, position)
    return frozenset(row["slot"] for row in rows)


async def promised_elsewhere(
    connection: Connection, customer_id: CustomerId, subscription_id: SubscriptionId
) -> set[SubscriptionId]:
    """Return the other subscriptions whose addition of this customer has been sent and is not settled."""
    rows = await connection.fetch(_PROMISED_ELSEWHERE, customer_id, subscription_id)
    return {SubscriptionId(row["subscription_id"]) for row in rows}


async def choose_writes(
    connection: Connection, operation_id: str, position: int, writes: Mapping[str, str], slot: str | None
) -> None:
    """Store the metadata that a step writes, and the slot that an addition takes.

    Raises:
        UniqueViolation: another addition has taken the slot, or creates the customer of this e-mail.
    """
    await connection.execute(_CHOOSE_WRITES, operation_id, position, dict(writes), slot)


async def liveness(
    connection: Connection, subscription_ids: Collection[SubscriptionId], *, ended: Sequence[str]
) -> dict[SubscriptionId, bool]:
    """Return for each of these subscriptions that is mirrored whether it has not ended."""
    rows = await connection.fetch(_LIVE, list(subscription_ids), list(ended))
    return {SubscriptionId(row["id"]): row["is_live"] for row in rows}


async def record_seat_customer(
    connection: Connection, customer_id: CustomerId, email: str, operation_id: str
) -> None:
    """Record a customer that was created for an e-mail: the person with that address reaches it, whenever they come."""
    await connection.execute(
        """insert into seat_customers (customer_id, email, operation_id) values ($1, $2, $3)
        on conflict do nothing""",
        customer_id,
        email,
        operation_id,
    )
