"""Read what was billed, what paid for it, and which payment step remains.

Every function raises MalformedObject if a field has the wrong type.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.domain.credits import Bill, BilledLine, CreditedLines
from app.domain.ids import (
    InvoiceId,
    SubscriptionItemId,
)
from app.domain.payments import PaymentStep, PurchaseInvoice
from app.stripe.parsing.fields import (
    Json,
    amount,
    array,
    instant,
    mapping,
    mappings,
    object_id,
    reference,
    required_string,
    string,
)

SILENT_DECLINES = frozenset({"fraudulent", "lost_card", "stolen_card", "pickup_card", "merchant_blacklist"})
"""Decline codes that a customer must not see. Source: https://docs.stripe.com/declines/codes"""


def intent_step(source: Json, kind: str, hosted_invoice_url: str | None = None) -> PaymentStep:
    """Return the payment step of a payment intent (`kind` payment) or of a setup intent (`kind` setup)."""
    failure = mapping(source, "last_setup_error" if kind == "setup" else "last_payment_error") or {}
    decline = string(failure, "decline_code")
    return PaymentStep(
        status=required_string(source, "status"),
        client_secret=string(source, "client_secret"),
        kind=kind,
        payment_method_id=reference(source, "payment_method") or reference(failure, "payment_method"),
        decline_code=None if decline in SILENT_DECLINES else decline,
        hosted_invoice_url=hosted_invoice_url,
    )


def invoice_payment_step(source: Json) -> PaymentStep | None:
    """Return the payment step of an open invoice; None if the invoice is not open.

    Needs `payments.data.payment.payment_intent` expanded. Stripe allows an invoice to be paid in parts. So of several
    payments the open one is used, and of several open ones the default.
    """
    if string(source, "status") != "open":
        return None
    url = string(source, "hosted_invoice_url")
    intents = _open_intents(source)
    if not intents:
        return PaymentStep(None, None, "payment", hosted_invoice_url=url)
    return intent_step(intents[0], "payment", url)


def _open_intents(source: Json) -> list[Json]:
    """Return the intents of an invoice's open payments, the default one first."""
    payments = [
        one for one in mappings(mapping(source, "payments") or {}, "data") if string(one, "status") == "open"
    ]
    payments.sort(key=lambda one: one.get("is_default") is not True)
    found = (mapping(mapping(one, "payment") or {}, "payment_intent") for one in payments)
    return [intent for intent in found if intent]


def purchase_invoice(source: Json, at: int) -> PurchaseInvoice:
    """Return the invoice of a purchase, read at Unix second `at`. Needs what `invoice_payment_step` needs."""
    moments = mapping(source, "status_transitions") or {}
    return PurchaseInvoice(
        id=object_id(source),
        status=string(source, "status") or "",
        payment=invoice_payment_step(source),
        paid_at=instant(moments, "paid_at"),
        at=at,
        is_processing=any(string(intent, "status") == "processing" for intent in _open_intents(source)),
    )


def tax(source: Json) -> int:
    """Return all taxes of an invoice in minor units, inclusive ones too."""
    return sum(amount(entry, "amount") for entry in mappings(source, "total_taxes"))


def line_total(source: Json) -> int:
    """Return what a line adds to the invoice's total: its amount less discounts, with exclusive taxes."""
    taxes = [entry for entry in mappings(source, "taxes") if entry.get("tax_behavior") != "inclusive"]
    return _net_of_discounts(source) + sum(amount(entry, "amount") for entry in taxes)


def _net_of_discounts(source: Json) -> int:
    taken = sum(amount(entry, "amount") for entry in mappings(source, "discount_amounts"))
    return amount(source, "amount") - taken


def billed_line(source: Json) -> BilledLine:
    """Return a line of an invoice or a preview. A line for an invoice item may not name its subscription item."""
    parent = mapping(source, "parent") or {}
    details = mapping(parent, "subscription_item_details") or mapping(parent, "invoice_item_details") or {}
    named = mapping(mapping(details, "proration_details") or {}, "credited_items")
    period = mapping(source, "period") or {}
    item_id = string(details, "subscription_item")
    return BilledLine(
        id=object_id(source),
        item_id=None if item_id is None else SubscriptionItemId(item_id),
        amount=_net_of_discounts(source),
        period_start=instant(period, "start") or 0,
        period_end=instant(period, "end") or 0,
        invoice_item_id=string(details, "invoice_item"),
        credited=None if named is None else _credited(named),
    )


def _credited(named: Json) -> CreditedLines:
    invoice_id = required_string(named, "invoice")
    return CreditedLines(InvoiceId(invoice_id), frozenset(map(str, array(named, "invoice_line_items"))))


def invoice_item(source: Json) -> BilledLine:
    """Return an invoice item as a line. A pending one is on no invoice yet."""
    details = mapping(mapping(source, "parent") or {}, "subscription_details") or {}
    named = mapping(mapping(source, "proration_details") or {}, "credited_items")
    period = mapping(source, "period") or {}
    item_id = string(details, "subscription_item")
    return BilledLine(
        id=object_id(source),
        item_id=None if item_id is None else SubscriptionItemId(item_id),
        amount=amount(source, "net_amount" if source.get("net_amount") is not None else "amount"),
        period_start=instant(period, "start") or 0,
        period_end=instant(period, "end") or 0,
        invoice_item_id=object_id(source),
        credited=None if named is None else _credited_by_item(named),
    )


def _credited_by_item(named: Json) -> CreditedLines | None:
    lines = mapping(named, "invoice_line_item_details")
    if lines is not None:
        return _credited(lines)
    item_id = string(named, "invoice_item")
    return None if item_id is None else CreditedLines(None, frozenset({item_id}))


def bill(source: Json, lines: Sequence[BilledLine]) -> Bill:
    """Return an invoice as a source of credit. Needs `payments` expanded.

    `reversed` is 0, because only charges and credit notes show what was given back.
    """
    noted = (amount(source, f"{when}_payment_credit_notes_amount") for when in ("pre", "post"))
    return Bill(
        id=InvoiceId(object_id(source)),
        created=instant(source, "created") or 0,
        status=required_string(source, "status"),
        total=amount(source, "total"),
        amount_due=amount(source, "amount_due"),
        lines=lines,
        hosted_invoice_url=string(source, "hosted_invoice_url"),
        finalizes_at=instant(source, "automatically_finalizes_at"),
        payments=_payments(source),
        has_credit_notes=any(noted),
    )


def _payments(source: Json) -> list[str]:
    """Return the ids of the payment intents, or of charges without one, that paid the invoice."""
    entries = mappings(mapping(source, "payments") or {}, "data")
    paid = [mapping(entry, "payment") or {} for entry in entries if entry.get("status") == "paid"]
    named = (reference(one, "payment_intent") or reference(one, "charge") for one in paid)
    return [payment for payment in named if payment is not None]
