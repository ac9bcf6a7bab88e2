"""SQL statements for seats that were given by e-mail, and that move to the customer of the login with that address."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from app.domain.ids import CustomerId, SubscriptionId
from app.postgres.database import Connection

# A seat moves only while nobody has reached its customer. A customer with a login is somebody's own.
_UNCLAIMED = """
    select k.subscription_id, k.customer_id, k.typed_email, m.role,
        not coalesce(i.acted_at >= k.since, false) as is_unclaimed_still
    from identities i
    join member_records k on lower(k.typed_email collate "C") = i.email and k.typed_email is not null
    join memberships m on m.subscription_id = k.subscription_id and m.customer_id = k.customer_id
    join subscriptions s on s.id = k.subscription_id and s.existence = 'present' and s.status <> all($2)
    where i.customer_id = $1 and k.customer_id <> $1
      and exists (select from customers c where c.id = $1 and c.existence = 'present')
      and not exists (select from identities o where o.customer_id = k.customer_id)"""

_DUE = """
    update identities i set seats_due = clock_timestamp() + $2 * interval '1 second'
    from (select issuer, subject from identities where seats_due <= statement_timestamp() and customer_id is not null
        order by seats_due limit $1 for update skip locked) due
    where i.issuer = due.issuer and i.subject = due.subject
    returning i.customer_id, i.seats_due as until"""

_TAKE = """
    update identities set seats_due = clock_timestamp() + $2 * interval '1 second'
    where customer_id = $1 and email is not null returning customer_id, seats_due as until"""


@dataclass(frozen=True, slots=True)
class UnclaimedSeat:
    """A membership that was given by e-mail, and that nobody has reached.

    `is_unclaimed_still`: the person of the address has not acted since it was given, so it stays unclaimed when it has
    moved.
    """

    subscription_id: SubscriptionId
    customer_id: CustomerId
    typed_email: str
    role: str
    is_unclaimed_still: bool


async def unclaimed(
    connection: Connection, customer_id: CustomerId, *, ended: list[str]
) -> list[UnclaimedSeat]:
    """Return the unclaimed seats of the address that belongs to the login of this customer."""
    rows = await connection.fetch(
        f"{_UNCLAIMED} order by k.customer_id, k.subscription_id", customer_id, ended
    )
    return [UnclaimedSeat(**dict(row)) for row in rows]


async def one_unclaimed(
    connection: Connection,
    customer_id: CustomerId,
    subscription_id: SubscriptionId,
    *,
    holder: CustomerId,
    ended: list[str],
) -> UnclaimedSeat | None:
    """Return one such seat as it is now, or None if it does not move to this customer any more."""
    row = await connection.fetchrow(
        f"{_UNCLAIMED} and k.subscription_id = $3 and k.customer_id = $4",
        customer_id,
        ended,
        subscription_id,
        holder,
    )
    return None if row is None else UnclaimedSeat(**dict(row))


async def hold(connection: Connection, holder: CustomerId, operation_id: str | None) -> None:
    """Let no other login take over the seat customer whose seat this operation moves; None: let it go again."""
    await connection.execute(
        "update seat_customers set moved_by = $2 where customer_id = $1", holder, operation_id
    )


@dataclass(frozen=True, slots=True)
class Look:
    """The right to look for the unclaimed seats of a customer's address, until `until`."""

    customer_id: CustomerId
    until: datetime


async def take(connection: Connection, customer_id: CustomerId, *, lease_seconds: float) -> Look | None:
    """Take the right to look for the seats of one customer's address; None if no address belongs to its login."""
    row = await connection.fetchrow(_TAKE, customer_id, lease_seconds)
    return None if row is None else Look(**dict(row))


async def take_due(connection: Connection, *, limit: int, lease_seconds: float) -> list[Look]:
    """Take the right to look for the seats of customers whose addresses, or whose seats, are new."""
    return [Look(**dict(row)) for row in await connection.fetch(_DUE, limit, lease_seconds)]


async def looked(connection: Connection, look: Look) -> None:
    """Store that nothing is left to move, unless something has become due since the look was taken."""
    await connection.execute(
        "update identities set seats_due = null where customer_id = $1 and seats_due = $2",
        look.customer_id,
        look.until,
    )
