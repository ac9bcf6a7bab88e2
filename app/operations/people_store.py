"""The customers that a change of members names, as they are mirrored, and those that operations create."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from app.domain.ids import CustomerId, SubscriptionId
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


# One row a customer. A membership of a subscription that has ended, or does not exist, bars nothing.
_FOUND = """
    select c.id as customer_id, lower(c.email collate "C") as email,
        (select m.role from memberships m where m.subscription_id = $1 and m.customer_id = c.id) as member_role,
        exists (select from member_records k where k.subscription_id = $1 and k.customer_id = c.id) as former_member,
        o.number as others, o.unclaimed,
        exists (select from operation_steps t
            where t.customer_id = c.id and t.settled_at is null and not t.awaits_seats
              and t.subscription_id = $1) as busy
    from customers c
    cross join lateral (
        select count(*) as number, count(*) filter (where is_typed and c.user_id is null
            and not exists (select from identities i where i.customer_id = c.id)) as unclaimed
        from (
            select subscription_id, bool_or(is_typed) as is_typed from (
                select m.subscription_id, exists (select from member_records k where k.customer_id = c.id
                    and k.subscription_id = m.subscription_id and k.typed_email is not null) as is_typed
                from memberships m join subscriptions s on s.id = m.subscription_id
                where m.customer_id = c.id and m.subscription_id <> $1
                  and s.existence = 'present' and s.status <> all($3)
                union all
                select v.subscription_id, v.email is not null from reservations v
                where v.customer_id = c.id and v.released_at is null and v.subscription_id <> $1) held
            group by subscription_id) other) o
    where c.existence = 'present' and """

_BY_ID = _FOUND + "c.id = any($2)"
_BY_EMAIL = _FOUND + 'lower(c.email collate "C") = any($2)'

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
    connection: Connection, subscription_id: SubscriptionId, emails: Sequence[str], *, ended: Sequence[str]
) -> list[FoundPerson]:
    """Return the customers with these addresses, ASCII-lowered; several may share one."""
    rows = await connection.fetch(_BY_EMAIL, subscription_id, list(emails), list(ended))
    return [FoundPerson(**dict(row)) for row in rows]


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
    """Record a customer that was created for an e-mail: the person with that address reaches it at first login, once.

    It takes the place of one that nobody has reached and that does not exist any more.
    """
    await connection.execute(
        """delete from seat_customers s where s.email = $2 and s.claimed_at is null and s.customer_id <> $1
        and not exists (select from customers c where c.id = s.customer_id and c.existence = 'present')""",
        customer_id,
        email,
    )
    await connection.execute(
        """insert into seat_customers (customer_id, email, operation_id) values ($1, $2, $3)
        on conflict do nothing""",
        customer_id,
        email,
        operation_id,
    )
