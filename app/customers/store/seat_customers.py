"""SQL statements for the customers that were created for a seat, and that nobody has reached."""

from __future__ import annotations

from app.domain.ids import CustomerId
from app.postgres.database import Connection

_RETRY_SECONDS = 60

# Nothing of ours rests on such a customer: no login, no seat, no promised seat, no invitation, no write.
_EMPTIED = f"""s.claimed_at is null and s.kept_at is null
    and (s.deleting_at is null or s.deleting_at < clock_timestamp() - interval '{_RETRY_SECONDS} seconds')
    and exists (select from customers c where c.id = s.customer_id and c.existence = 'present' and c.user_id is null)
    and not exists (select from identities i where i.customer_id = s.customer_id)
    and not exists (select from memberships m where m.customer_id = s.customer_id)
    and not exists (select from reservations r where r.released_at is null
        and (r.customer_id = s.customer_id or r.moves_from = s.customer_id
            or (r.customer_id is null and r.email = s.email)))
    and not exists (select from invitations v where v.state = 'open' and lower(v.email collate "C") = s.email)
    and not exists (select from operation_steps t where t.customer_id = s.customer_id and t.settled_at is null)"""


async def emptied(connection: Connection, *, limit: int) -> list[CustomerId]:
    """Return seat customers that may be deleted at Stripe, if nobody has used them there."""
    rows = await connection.fetch(
        f"select s.customer_id from seat_customers s where {_EMPTIED} order by s.created_at limit $1", limit
    )
    return [CustomerId(row["customer_id"]) for row in rows]


async def begin_deletion(connection: Connection, customer_id: CustomerId) -> bool:
    """Store that the customer's deletion begins. Return False if something rests on it by now.

    Call it in a transaction. An addition locks the row too, and the condition is read after that lock.
    """
    await connection.execute("select from seat_customers where customer_id = $1 for update", customer_id)
    return (
        await connection.fetchval(
            f"""update seat_customers s set deleting_at = clock_timestamp()
            where s.customer_id = $1 and {_EMPTIED} returning 1""",
            customer_id,
        )
        is not None
    )


async def keep(connection: Connection, customer_id: CustomerId) -> None:
    """Store that the customer is in use at Stripe, so it is not deleted. The doctor names it."""
    await connection.execute(
        """update seat_customers set deleting_at = null, kept_at = clock_timestamp() where customer_id = $1""",
        customer_id,
    )
