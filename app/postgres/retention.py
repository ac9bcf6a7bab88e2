"""Delete rows that are past their retention, a thousand at a time, so that each transaction is short."""

from __future__ import annotations

from app.postgres import installation_counts
from app.postgres.database import Connection

BATCH = 1000

# Stripe resends an event for 3 days, and an operator can resend any event of the last 30. Quotes and idempotency keys
# last 24 hours. A refresh without pending notifications is needed only until its spacing is over.
_EXPIRED = {
    "webhook_events": "received_at < clock_timestamp() - interval '35 days'",
    "idempotency_keys": "created_at < clock_timestamp() - interval '24 hours'",
    "quotes": "expires_at < clock_timestamp() - interval '24 hours'",
    "reservations": "released_at < clock_timestamp() - interval '7 days'",
    "refreshes": "notifications = 0 and dead_at is null and lease_token is null"
    " and not_before < clock_timestamp() - interval '1 hour'",
    "request_rates": "full_at < clock_timestamp()",
    "workers": "reported_at < clock_timestamp() - interval '1 day'",
}

# The journals: what was changed, who did it, and how each write ended. A step goes with its operation.
_JOURNALS = {
    "audit_events": "at < clock_timestamp() - interval '{days} days'",
    "operation_steps": "settled_at < clock_timestamp() - interval '{days} days' and exists (select from operations o"
    " where o.id = operation_id and o.settled_at < clock_timestamp() - interval '{days} days')",
    "operations": "settled_at < clock_timestamp() - interval '{days} days'"
    " and not exists (select from operation_steps t where t.operation_id = operations.id)",
}


async def purge(connection: Connection, *, journal_days: int) -> dict[str, int]:
    """Delete the expired rows, each batch in its own transaction, and return the number of rows by table.

    Counts of more than a day ago are merged.

    `journal_days`: for how long operations and the audit trail are kept.
    """
    deleted = {}
    journals = {table: condition.format(days=int(journal_days)) for table, condition in _JOURNALS.items()}
    for table, condition in (*_EXPIRED.items(), *journals.items()):
        # The condition is checked again when the row is locked, because a notification may have arrived in between.
        statement = f"""delete from {table} where ctid = any(array(
            select ctid from {table} where {condition} limit {BATCH} for update skip locked)) and {condition}"""
        number = BATCH
        deleted[table] = 0
        while number == BATCH:
            number = int((await connection.execute(statement)).rpartition(" ")[2])
            deleted[table] += number
    await installation_counts.fold(connection)
    return deleted
