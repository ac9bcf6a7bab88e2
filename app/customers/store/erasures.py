"""SQL statements that erase the e-mail of a deleted customer outside of the customer's own row."""

from __future__ import annotations

from app.postgres.database import Connection

# A step that is not settled still needs its e-mail to find what it created. The erasure is tried again until it is.
_TAKE = """
    select e.customer_id, e.email from erasures e
    where not exists (select from operation_steps t where t.settled_at is null and t.email is not null
        and (t.customer_id = e.customer_id or lower(t.email collate "C") = e.email))
    order by e.noted_at limit $1 for update skip locked"""

# A step keeps that it named an address: by an address nobody finds the id of a person who did not become a member.
_BY_ID = (
    "update member_records set typed_email = null where customer_id = $1 and typed_email is not null",
    "delete from seat_customers where customer_id = $1",
    "update identities set email = null, seats_due = null where customer_id = $1",
    "update operation_steps set email = '' where customer_id = $1 and email is not null",
    "update reservations set email = null where customer_id = $1 and email is not null",
)
_BY_EMAIL = (
    """update operation_steps set email = '' where lower(email collate "C") = $1""",
    """delete from reservations where email = $1 and customer_id is null and released_at is not null""",
    # A caller may have made a key of the address. Such a key cannot stay.
    """delete from idempotency_keys where status is not null and position($1 in lower(key collate "C")) > 0""",
)
# Answers of other callers may show the person too, with the address as it was typed. The key stays without its answer:
# another request under it is refused, and the same request may claim it at once and finds its operation by its own id.
_ANSWERS = """
    update idempotency_keys set status = null, headers = null, body = null,
        created_at = least(created_at, clock_timestamp() - interval '60 seconds')
    where status is not null
      and (principal like '%:' || $1 or position(convert_to($1, 'UTF8') in body) > 0
        or position($2 in lower(convert_from(body, 'UTF8') collate "C")) > 0)"""


async def erase(connection: Connection, *, limit: int) -> int:
    """Erase up to `limit` deleted customers, and return their number. Call it in a transaction."""
    rows = await connection.fetch(_TAKE, limit)
    for row in rows:
        for statement in _BY_ID:
            await connection.execute(statement, row["customer_id"])
        if row["email"] is not None:
            for statement in _BY_EMAIL:
                await connection.execute(statement, row["email"])
        await connection.execute(_ANSWERS, row["customer_id"], row["email"])
        await connection.execute("delete from erasures where customer_id = $1", row["customer_id"])
    return len(rows)
