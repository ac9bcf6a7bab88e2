"""Who a credential's subject is at Stripe: rows (issuer, subject) and customer, unique both ways, written once."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from app.domain.ids import CustomerId
from app.postgres.database import Connection, UniqueViolation

_LINK = """
    insert into identities (issuer, subject, customer_id, linked_at) values ($1, $2, $3, clock_timestamp())
    on conflict (issuer, subject) do update set customer_id = excluded.customer_id, linked_at = excluded.linked_at
    where identities.customer_id is null
    returning customer_id"""

# Two customers that name one user: nobody is linked. One that is linked already stays whose it is.
_BY_USER_ID = """
    select min(c.id) from customers c
    where c.user_id = $1 and c.presence = 'present'
    having count(*) = 1 and not exists (select from identities i where i.customer_id = min(c.id))"""

_TAKE_CREATION = """
    insert into identities as i (issuer, subject, lease_until)
    values ($1, $2, clock_timestamp() + $3 * interval '1 second')
    on conflict (issuer, subject) do update set lease_until = excluded.lease_until
    where i.customer_id is null and (i.lease_until is null or i.lease_until < clock_timestamp())
    returning creation_key"""

_CLAIM_SEAT_CUSTOMER = """
    update seat_customers s set claimed_at = clock_timestamp()
    from customers c
    where s.email = $1 and s.claimed_at is null and c.id = s.customer_id and c.presence = 'present'
      and lower(c.email) = s.email
      and not exists (select from identities i where i.customer_id = s.customer_id)
    returning s.customer_id"""


@dataclass(frozen=True, slots=True)
class Creation:
    """The right to create a subject's one customer; `key` is the same for whoever holds it next."""

    key: UUID


async def customer_of(connection: Connection, issuer: str, subject: str) -> CustomerId | None:
    return _customer_id(
        await connection.fetchval(
            "select customer_id from identities where issuer = $1 and subject = $2", issuer, subject
        )
    )


async def is_present(connection: Connection, customer_id: str) -> bool:
    return (
        await connection.fetchval(
            "select 1 from customers where id = $1 and presence = 'present'", customer_id
        )
        is not None
    )


async def link(connection: Connection, issuer: str, subject: str, customer_id: CustomerId) -> bool:
    """False where the subject or the customer has another partner already. Opens its own savepoint."""
    try:
        async with connection.transaction():
            linked = await connection.fetchval(_LINK, issuer, subject, customer_id)
    except UniqueViolation:
        return False
    return linked is not None


async def customer_by_user_id(connection: Connection, subject: str) -> CustomerId | None:
    return _customer_id(await connection.fetchval(_BY_USER_ID, subject))


async def take_creation(
    connection: Connection, issuer: str, subject: str, *, lease_seconds: float
) -> Creation | None:
    """None while another call is creating this subject's customer, or when it is linked."""
    key = await connection.fetchval(_TAKE_CREATION, issuer, subject, lease_seconds)
    return None if key is None else Creation(key)


async def claim_seat_customer(connection: Connection, email: str) -> CustomerId | None:
    """Once, the unlinked customer that a seat add created for this e-mail; the caller links it at once."""
    return _customer_id(await connection.fetchval(_CLAIM_SEAT_CUSTOMER, email))


def _customer_id(value: str | None) -> CustomerId | None:
    return None if value is None else CustomerId(value)
