"""Convert Stripe's JSON, as plain data, into values of the domain. No other module names Stripe's fields.

The layout is that of the pinned API version: periods on items, and an invoice's subscription under `parent`. The JSON
is untrusted: a wrong type raises MalformedObject, so the object is set aside and its callers go on.
"""

from app.stripe.parsing.discounts import (
    foreign_coupons,
    promotion_code,
    spent_discounts,
    with_currency_options,
)
from app.stripe.parsing.fields import MalformedObject, is_id, storable
from app.stripe.parsing.objects import (
    PARSERS,
    check_kind,
    created,
    customer,
    invoice,
    is_complete,
    payment_method,
    price,
    product,
    snapshot,
    subscription,
)
from app.stripe.parsing.payments import (
    SILENT_DECLINES,
    bill,
    billed_line,
    intent_step,
    invoice_item,
    invoice_payment_step,
    line_total,
    purchase_invoice,
    tax,
)

__all__ = [
    "PARSERS",
    "SILENT_DECLINES",
    "MalformedObject",
    "bill",
    "billed_line",
    "check_kind",
    "created",
    "customer",
    "foreign_coupons",
    "intent_step",
    "invoice",
    "invoice_item",
    "invoice_payment_step",
    "is_complete",
    "is_id",
    "line_total",
    "payment_method",
    "price",
    "product",
    "promotion_code",
    "purchase_invoice",
    "snapshot",
    "spent_discounts",
    "storable",
    "subscription",
    "tax",
    "with_currency_options",
]
