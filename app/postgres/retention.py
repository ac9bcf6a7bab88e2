"""What may be forgotten: deleted a thousand rows at a time, so that no lock and no transaction is long."""

from __future__ import annotations

from app.postgres.database import Connection

BATCH = 1000

# Events: Stripe resends one for 3 days, and an operator any of the last 30. Quotes and idempotency keys last 24 h.
# A refresh that wants nothing says nothing that its object's row does not say, once its spacing is over.
_FORGOTTEN = {
    "webhook_events": "received_at < clock_timestamp() - interval '35 days'",
    "idempotency_keys": "created_at < clock_timestamp() - interval '24 hours'",
    "quotes": "expires_at < clock_timestamp() - interval '24 hours'",
    "reservations": "released_at < clock_timestamp() - interval '7 days'",
    "refreshes": "notifications = 0 and dead_at is null and lease_token is null"
    " and not_before < clock_timestamp() - interval '1 hour'",
    "request_rates": "full_at < clock_timestamp()",
}


async def purge(connection: Connection) -> dict[str, int]:
    """Deletes what is past its time, each batch in a transaction of its own; the number of rows by table."""
    deleted = {}
    for table, condition in _FORGOTTEN.items():
        # The condition is repeated where the row is locked: a refresh may have become wanted in between.
        statement = f"""delete from {table} where ctid = any(array(
            select ctid from {table} where {condition} limit {BATCH} for update skip locked)) and {condition}"""
        number = BATCH
        deleted[table] = 0
        while number == BATCH:
            number = int((await connection.execute(statement)).rpartition(" ")[2])
            deleted[table] += number
    return deleted
