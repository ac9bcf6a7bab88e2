"""Delete rows that are past their retention, a thousand at a time, so that each transaction is short.

The age of a row is compared with the time at which the statement began. PostgreSQL does not look an age up in an index
if it is compared with `clock_timestamp()`, which may change from row to row: it reads the whole table.
"""

from __future__ import annotations

from typing import Final

from app.postgres.database import Connection

BATCH: Final = 1000

# Stripe resends an event for 3 days, and an operator can resend any event of the last 30. Quotes and idempotency keys
# last 24 hours. A refresh without pending notifications is needed only until its spacing is over. There is a rate for
# each caller of the last minutes, and a row for each worker, so these two tables are small and have no index.
_EXPIRED: Final = {
    "webhook_events": ("received_at", "35 days"),
    "idempotency_keys": ("created_at", "24 hours"),
    "quotes": ("expires_at", "24 hours"),
    "reservations": ("released_at", "7 days"),
    "refreshes": ("not_before", "1 hour"),
    "request_rates": ("full_at", "0 seconds"),
    "workers": ("reported_at", "1 day"),
}
_ONLY_IF: Final = {"refreshes": "and notifications = 0 and dead_at is null and lease_token is null"}

# The condition is checked again when the row is locked, because a notification may have arrived in between. The order
# makes PostgreSQL use the index, whatever its statistics say about the share of expired rows.
_DELETE: Final = f"""
    with gone as (
        delete from {{table}} where ctid = any(array(
            select ctid from {{table}} where {{expired}} order by {{column}} limit {BATCH} for update skip locked))
          and {{expired}}
        returning 1
    )
    select count(*) as {{table}} from gone"""

# The journals: what was changed, who did it, and how each write ended. The entries of the trail are numbered in the
# order of time, so the oldest are found without another index.
_DELETE_TRAIL: Final = f"""
    with gone as (
        delete from audit_events where id = any(array(select id from audit_events order by id limit {BATCH}))
          and at < statement_timestamp() - interval '{{days}} days'
        returning 1
    )
    select count(*) as audit_events from gone"""

# An operation is settled after all its steps, and they go with it.
_DELETE_OPERATIONS: Final = f"""
    with old as materialized (
        select id from operations where settled_at < statement_timestamp() - interval '{{days}} days'
        order by settled_at limit {BATCH} for update skip locked
    ), steps as (
        delete from operation_steps where operation_id = any(array(select id from old)) returning 1
    ), gone as (
        delete from operations where id = any(array(select id from old)) returning 1
    )
    select (select count(*) from steps) as operation_steps, (select count(*) from gone) as operations"""


def statements(*, journal_days: int) -> dict[str, str]:
    """Return the statement for each table that deletes a batch of its expired rows.

    `journal_days`: for how long operations and the audit trail are kept.
    """
    expired = {
        table: _DELETE.format(
            table=table,
            column=column,
            expired=f"{column} < statement_timestamp() - interval '{age}' {_ONLY_IF.get(table, '')}",
        )
        for table, (column, age) in _EXPIRED.items()
    }
    return expired | {
        "audit_events": _DELETE_TRAIL.format(days=int(journal_days)),
        "operations": _DELETE_OPERATIONS.format(days=int(journal_days)),
    }


async def delete(connection: Connection, statement: str) -> dict[str, int]:
    """Run one of the statements, and return the number of rows that it deleted by table."""
    row = await connection.fetchrow(statement)
    if row is None:
        raise LookupError("a count that always answers one row answered none")
    return dict(row)
