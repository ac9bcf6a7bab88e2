"""The customers that a change of members names, as they are mirrored, and those that operations create."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.domain.ids import CustomerId, SubscriptionId
from app.postgres.database import Connection


@dataclass(frozen=True, slots=True)
class FoundPerson:
    """A customer that a change names, as they are mirrored, read under the subscription's lock.

    `member_role`: on this subscription. `elsewhere`: a live subscription has them as a member, or promises them a seat.
    `busy`: a step of this subscription that names them is not settled.
    """

    customer_id: CustomerId
    email: str | None
    member_role: str | None
    former_member: bool
    elsewhere: bool
    busy: bool


# One row a customer. A membership of a subscription that has ended, or does not exist, bars nothing.
_FOUND = """
    select c.id as customer_id, lower(c.email collate "C") as email,
        (select m.role from memberships m where m.subscription_id = $1 and m.customer_id = c.id) as member_role,
        exists (select from member_records k where k.subscription_id = $1 and k.customer_id = c.id) as former_member,
        exists (select from memberships m join subscriptions s on s.id = m.subscription_id
            where m.customer_id = c.id and m.subscription_id <> $1 and s.existence = 'present' and s.status <> all($3))
        or exists (select from reservations v
            where v.customer_id = c.id and v.released_at is null and v.subscription_id <> $1) as elsewhere,
        exists (select from operation_steps t
            where t.customer_id = c.id and t.settled_at is null and not t.awaits_seats
              and t.subscription_id = $1) as busy
    from customers c
    where c.existence = 'present' and """

_BY_ID = _FOUND + "c.id = any($2)"
_BY_EMAIL = _FOUND + 'lower(c.email collate "C") = any($2)'

_PROMISED_EMAILS = """
    select email, subscription_id from reservations
    where email = any($1) and released_at is null and customer_id is null"""


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


async def promised_emails(connection: Connection, emails: Sequence[str]) -> dict[str, SubscriptionId]:
    """Return the addresses for which an unsettled operation creates a customer, each with its subscription."""
    rows = await connection.fetch(_PROMISED_EMAILS, list(emails))
    return {row["email"]: SubscriptionId(row["subscription_id"]) for row in rows}


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
