"""What Coseat keeps of Stripe's objects, field by field: the meeting point of gateway, cache and rules.

Amounts are whole minor units of `currency`; `*_decimal` are decimal strings of minor units; instants are whole Unix
seconds, as Stripe sends them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from app.domain.ids import (
    CustomerId,
    InvoiceId,
    PaymentMethodId,
    PriceId,
    ProductId,
    SubscriptionId,
    SubscriptionItemId,
)

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Product:
    id: ProductId
    created: int
    active: bool
    name: str
    description: str | None
    images: list[str]
    unit_label: str | None
    default_price_id: str | None
    supports_sharing: bool
    owner_uses_seat: bool | None
    sellable: bool
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Price:
    id: PriceId
    created: int
    product_id: ProductId
    active: bool
    currency: str
    type: str
    billing_scheme: str
    unit_amount: int | None
    unit_amount_decimal: str | None
    recurring: JsonObject | None
    tiers_mode: str | None
    tiers: list[JsonObject] | None
    transform_quantity: JsonObject | None
    currency_options: JsonObject | None
    tax_behavior: str | None
    lookup_key: str | None
    nickname: str | None
    sellable: bool | None = None
    """True: on sale; False: never on sale; None: on sale if it is the default price of a product on sale."""
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Customer:
    id: CustomerId
    created: int
    email: str | None
    name: str | None
    phone: str | None
    currency: str | None
    balance: int
    default_payment_method_id: str | None
    default_source_id: str | None
    member_of: SubscriptionId | None
    member_role: str | None
    user_id: str | None
    operation_id: str | None
    metadata_problems: JsonObject
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class SubscriptionItem:
    """`quantity` is None on a metered item; the period is the item's own (they differ in mixed intervals)."""

    id: SubscriptionItemId
    price_id: PriceId
    product_id: ProductId
    quantity: int | None
    metered: bool
    current_period_start: int | None
    current_period_end: int | None


@dataclass(frozen=True, slots=True)
class Subscription:
    id: SubscriptionId
    created: int
    customer_id: CustomerId
    status: str
    currency: str
    items: list[SubscriptionItem]
    owner_id: CustomerId | None
    operation_id: str | None
    cancel_at: int | None
    cancel_at_period_end: bool
    canceled_at: int | None
    ended_at: int | None
    trial_start: int | None
    trial_end: int | None
    start_date: int | None
    billing_cycle_anchor: int | None
    billing_mode: str | None
    collection_method: str | None
    default_payment_method_id: str | None
    default_source_id: str | None
    latest_invoice_id: str | None
    pending_update: JsonObject | None
    discounts: list[str]
    metadata_problems: JsonObject
    discount_details: list[JsonObject] | None = None
    """One entry for each id of `discounts`, see `app.customers.discounts`; None where there is no discount."""
    pause_collection: JsonObject | None = None
    schedule_id: str | None = None
    items_complete: bool = True
    discounts_complete: bool = True
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class PaymentMethod:
    id: PaymentMethodId
    created: int
    customer_id: CustomerId | None
    type: str
    card: JsonObject | None
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Invoice:
    id: InvoiceId
    created: int
    customer_id: CustomerId | None
    subscription_id: SubscriptionId | None
    number: str | None
    status: str | None
    currency: str
    subtotal: int
    total: int
    amount_due: int
    amount_paid: int
    amount_remaining: int
    billing_reason: str | None
    hosted_invoice_url: str | None
    invoice_pdf: str | None
    period_start: int | None
    period_end: int | None
    due_date: int | None
    lines: list[JsonObject] = field(default_factory=list)
    deleted: bool = False


Snapshot = Product | Price | Customer | Subscription | PaymentMethod | Invoice
