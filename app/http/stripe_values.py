"""Values of Stripe's that answers show: the document lists them, and an answer with a new one is still sent.

Stripe may add a value at any time. A cached object with one must not turn into an error for its readers.
Source: https://docs.stripe.com/api
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import WithJsonSchema
from typing_extensions import TypeAliasType

SubscriptionStatusName = Literal[
    "incomplete", "incomplete_expired", "trialing", "active", "past_due", "canceled", "unpaid", "paused"
]
InvoiceStatusName = Literal["draft", "open", "paid", "uncollectible", "void"]


def _one_of(*values: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "enum": list(values)})


SubscriptionStatus = TypeAliasType(
    "SubscriptionStatus", Annotated[str, _one_of(*get_args(SubscriptionStatusName))]
)
InvoiceStatus = TypeAliasType("InvoiceStatus", Annotated[str, _one_of(*get_args(InvoiceStatusName))])
UnpaidInvoiceStatus = TypeAliasType(
    "UnpaidInvoiceStatus", Annotated[str, _one_of(*get_args(InvoiceStatusName), "refunded")]
)
IntentStatus = TypeAliasType(
    "IntentStatus",
    Annotated[
        str,
        _one_of(
            "requires_payment_method",
            "requires_confirmation",
            "requires_action",
            "processing",
            "requires_capture",
            "canceled",
            "succeeded",
        ),
    ],
)
BillingReason = TypeAliasType(
    "BillingReason",
    Annotated[
        str,
        _one_of(
            "automatic_pending_invoice_item_invoice",
            "manual",
            "quote_accept",
            "subscription",
            "subscription_create",
            "subscription_cycle",
            "subscription_threshold",
            "subscription_update",
            "upcoming",
        ),
    ],
)
BillingMode = TypeAliasType("BillingMode", Annotated[str, _one_of("classic", "flexible")])
BillingScheme = TypeAliasType("BillingScheme", Annotated[str, _one_of("per_unit", "tiered")])
CollectionMethod = TypeAliasType(
    "CollectionMethod", Annotated[str, _one_of("charge_automatically", "send_invoice")]
)
CouponDuration = TypeAliasType("CouponDuration", Annotated[str, _one_of("once", "repeating", "forever")])
Interval = TypeAliasType("Interval", Annotated[str, _one_of("day", "week", "month", "year")])
PauseBehavior = TypeAliasType(
    "PauseBehavior", Annotated[str, _one_of("keep_as_draft", "mark_uncollectible", "void")]
)
PriceType = TypeAliasType("PriceType", Annotated[str, _one_of("recurring", "one_time")])
Rounding = TypeAliasType("Rounding", Annotated[str, _one_of("up", "down")])
TaxBehavior = TypeAliasType("TaxBehavior", Annotated[str, _one_of("exclusive", "inclusive", "unspecified")])
TiersMode = TypeAliasType("TiersMode", Annotated[str, _one_of("graduated", "volume")])
UsageType = TypeAliasType("UsageType", Annotated[str, _one_of("licensed", "metered")])
