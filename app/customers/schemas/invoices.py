"""Answers about invoices. Amounts are in minor units of the invoice's `currency`."""

from __future__ import annotations

from app.http.schemas import Answer, Instant, Page
from app.http.stripe_values import BillingReason, InvoiceStatus


class InvoiceLine(Answer):
    """A line of an invoice.

    `amount` is in minor units, and negative if it is a credit.
    """

    description: str | None
    amount: int
    quantity: int | None
    price_id: str | None
    product_id: str | None
    subscription_item_id: str | None
    proration: bool
    period_start: Instant | None
    period_end: Instant | None


class Invoice(Answer):
    """An invoice. Amounts are in minor units of `currency`."""

    id: str
    customer_id: str | None
    subscription_id: str | None
    number: str | None
    status: InvoiceStatus | None
    currency: str
    subtotal: int
    total: int
    amount_due: int
    amount_paid: int
    amount_remaining: int
    billing_reason: BillingReason | None
    hosted_invoice_url: str | None
    invoice_pdf: str | None
    period_start: Instant | None
    period_end: Instant | None
    due_date: Instant | None
    created: Instant
    lines: list[InvoiceLine]
    synced_at: Instant


class InvoiceAnswer(Answer):
    """An invoice."""

    invoice: Invoice


class InvoiceList(Page):
    """Invoices, newest first."""

    data: list[Invoice]
