"""Define the snapshots: the fields that Coseat stores of each of Stripe's objects.

Amounts are whole minor units of `currency`. Fields that end in `_decimal` are decimal strings of minor units. Instants
are whole Unix seconds. Field names are those of https://docs.stripe.com/api unless a docstring says otherwise.
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
    """A product. `supports_sharing`, `owner_uses_seat` and `sellable` come from its metadata."""

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
    """A price. `recurring`, `tiers`, `transform_quantity` and `currency_options` hold only the fields in use."""

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
    """From the metadata. None: on sale if the price is the default price of a product that is on sale."""
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer. `member_of`, `member_role`, `user_id` and `operation_id` come from its metadata.

    `member_of` and `member_role` are the guide's one membership. `further_memberships` are the roles of the others by
    subscription id. `metadata_problems` are messages by metadata key, see `app.domain.metadata`.
    """

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
    further_memberships: JsonObject = field(default_factory=dict)
    deleted: bool = False

    @property
    def memberships(self) -> dict[SubscriptionId, str]:
        """Return the role on each subscription. If both forms name one subscription, the guide's role counts."""
        found = {SubscriptionId(name): str(role) for name, role in self.further_memberships.items()}
        if self.member_of is not None and self.member_role is not None:
            found[self.member_of] = self.member_role
        return found


@dataclass(frozen=True, slots=True)
class SubscriptionItem:
    """An item of a subscription.

    `quantity` is None for a metered item. The period is that of the item: items with other intervals have others.
    """

    id: SubscriptionItemId
    price_id: PriceId
    product_id: ProductId
    quantity: int | None
    metered: bool
    current_period_start: int | None
    current_period_end: int | None


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription with its items. `owner_id` and `operation_id` come from its metadata.

    `owner_id` is None if metadata names no owner, and NOBODY if its value names nobody (`app.domain.metadata`).

    `items_complete` and `discounts_complete` are False if the answer did not carry all items, or not what each
    discount gives. They are not stored.
    """

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
    """One entry for each id of `discounts`, see `app.customers.discounts`; None without a discount."""
    pause_collection: JsonObject | None = None
    schedule_id: str | None = None
    items_complete: bool = True
    discounts_complete: bool = True
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class PaymentMethod:
    """A payment method. `card` holds only the fields that may be shown."""

    id: PaymentMethodId
    created: int
    customer_id: CustomerId | None
    type: str
    card: JsonObject | None
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Invoice:
    """An invoice with its lines. A preview has no id of its own and is never stored."""

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
