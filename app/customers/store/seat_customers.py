"""SQL statements for the customers that were created for a seat, and that nobody has reached."""

from __future__ import annotations

from app.domain.ids import CustomerId
from app.postgres.database import Connection

_RETRY_SECONDS = 60

# The end of a customer's last membership marks it. Nothing of ours rests on such a customer: no login, no seat, no
# promised seat, no invitation, no write.
_EMPTIED = f"""s.emptied_at is not null and s.claimed_at is null and s.kept_at is null
    and (s.deleting_at is null or s.deleting_at < clock_timestamp() - interval '{_RETRY_SECONDS} seconds')
    and exists (select from customers c where c.id = s.customer_id and c.existence = 'present' and c.user_id is null)
    and not exists (select from identities i where i.customer_id = s.customer_id)
    and not exists (select from memberships m where m.customer_id = s.customer_id)
    and not exists (select from reservations r where r.released_at is null
        and (r.customer_id = s.customer_id or r.moves_from = s.customer_id
            or (r.customer_id is null and r.email = s.email)))
    and not exists (select from invitations v where v.state = 'open' and lower(v.email collate "C") = s.email)
    and not exists (select from operation_steps t where t.customer_id = s.customer_id and t.settled_at is null)"""

# A mark that is younger may be that of a membership which has ended since this statement began. The count of one key is
# a lookup, whatever the statistics say.
_FORGET_SEATED = """
    update seat_customers set emptied_at = null where customer_id = any(array(
        select s.customer_id from seat_customers s
        where s.emptied_at < clock_timestamp() - $1 * interval '1 second' and s.claimed_at is null
          and s.kept_at is null and (select count(*) > 0 from memberships m where m.customer_id = s.customer_id)
        for update skip locked))"""


async def emptied(connection: Connection, *, limit: int) -> list[CustomerId]:
    """Return seat customers that may be deleted at Stripe, if nobody has used them there.

    Those that have had a seat again for a while are not looked at any more. Those whose deletion has failed come last.
    """
    await connection.execute(_FORGET_SEATED, _RETRY_SECONDS)
    rows = await connection.fetch(
        f"""(select s.customer_id from seat_customers s where s.deleting_at is null and {_EMPTIED}
            order by s.emptied_at limit $1)
        union all
        (select s.customer_id from seat_customers s where s.deleting_at is not null and {_EMPTIED}
            order by s.deleting_at limit $1)
        limit $1""",
        limit,
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
