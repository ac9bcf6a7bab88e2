"""SQL statements that read invoices."""

from __future__ import annotations

from app.domain.ids import CustomerId, InvoiceId, SubscriptionId
from app.domain.snapshots import JsonObject
from app.postgres.database import Connection

_COLUMNS = """id, customer_id, subscription_id, number, status, currency, subtotal, total, amount_due, amount_paid,
    amount_remaining, billing_reason, hosted_invoice_url, invoice_pdf, period_start, period_end, due_date, created,
    lines, synced_at"""

_ONE = f"select {_COLUMNS} from invoices where id = $1 and existence = 'present'"
_PAGE = f"""
    select {_COLUMNS} from invoices
    where customer_id = $1 and existence = 'present'
      and ($2::text is null or subscription_id = $2) and ($3::text is null or status = $3)
      and ($4::bigint is null or (created, id) < ($4, $5))
    order by created desc, id desc limit $6"""


async def invoice(connection: Connection, invoice_id: InvoiceId) -> JsonObject | None:
    """Return an invoice, or None."""
    row = await connection.fetchrow(_ONE, invoice_id)
    return None if row is None else dict(row)


async def customer_invoices(
    connection: Connection,
    customer_id: CustomerId,
    *,
    subscription_id: SubscriptionId | None,
    status: str | None,
    after: tuple[int, str] | None,
    limit: int,
) -> list[JsonObject]:
    """Return invoices, newest first.

    `after` is the (created, id) of the last row seen.
    """
    created, last_id = after or (None, None)
    rows = await connection.fetch(_PAGE, customer_id, subscription_id, status, created, last_id, limit)
    return [dict(row) for row in rows]
