"""Subscriptions as each role sees them."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import orjson

from app.catalogue.schemas import Recurring, Tier, TransformQuantity, WithInternal
from app.context import Rules
from app.domain.roles import Permission
from app.domain.snapshots import JsonObject
from app.domain.views import SubscriptionView
from app.http.schemas import Answer, Contact, Instant, Page, Payment, RoleName, Seats
from app.http.stripe_values import (
    BillingMode,
    BillingScheme,
    CollectionMethod,
    PauseBehavior,
    SubscriptionStatus,
    TiersMode,
)
from app.mirror.visibility import Seen


class ItemPrice(WithInternal):
    """Amounts are null for a role that may not see them; `nickname` is shown to service keys that act for nobody."""

    id: str
    currency: str | None
    billing_scheme: BillingScheme | None
    nickname: str | None = None
    recurring: Recurring | None
    unit_amount: int | None
    unit_amount_decimal: str | None
    tiers_mode: TiersMode | None
    tiers: list[Tier] | None
    transform_quantity: TransformQuantity | None


class ItemProduct(Answer):
    """The product of an item's price."""

    id: str
    name: str | None
    supports_shared_subscriptions: bool


class SubscriptionItem(Answer):
    """`quantity` is null on a metered item; the period is the item's own."""

    id: str
    price: ItemPrice
    product: ItemProduct
    quantity: int | None
    current_period_start: Instant | None
    current_period_end: Instant | None


class AppliedDiscount(Answer):
    """`promotion_code` is the code's text, null for a coupon. `percent_off` or `amount_off` (minor units) is set.

    `ends_at` is null for a discount that has no end or counts once.
    """

    promotion_code: str | None
    name: str | None
    percent_off: float | None
    amount_off: int | None
    currency: str | None
    ends_at: Instant | None


class Shared(Answer):
    """`owner` is null where metadata names no existing customer: member management is closed then.

    `owner_may_purchase`: the owner pays, or the payer allowed them to buy; null for a plain user.
    """

    owner: Contact | None
    owner_may_purchase: bool | None
    seats: Seats


class PauseCollection(Answer):
    """Invoices are made and not collected: Stripe's `behavior` says what becomes of them.

    `resumes_at` is null until somebody ends the pause. The subscription's `status` says nothing of it.
    """

    behavior: PauseBehavior
    resumes_at: Instant | None


class PendingChange(Answer):
    """A change that waits for its payment. It ends by itself at `expires_at`, or when `cancelOperation` ends it.

    `payment` is null for a role that may neither buy nor end it, and if Stripe does not answer.
    """

    expires_at: Instant | None
    operation_id: str
    payment: Payment | None


class Subscription(Answer):
    """`role` is the caller's own, null for a service key that acts for nobody.

    `collection_method`: `charge_automatically`, or `send_invoice` if Stripe mails invoices. `schedule_id`: the
    subscription schedule that manages when it ends; such an end is changed in the Dashboard (`managed_by_schedule`).
    `discounts` and `pending_change` are null for a role that may not see amounts. `default_payment_method_id` is null
    also for a manager who does not pay.
    """

    id: str
    customer_id: str
    status: SubscriptionStatus
    role: RoleName | None
    currency: str
    items: list[SubscriptionItem]
    shared: Shared | None
    created: Instant
    start_date: Instant | None
    trial_start: Instant | None
    trial_end: Instant | None
    cancel_at: Instant | None
    cancel_at_period_end: bool
    canceled_at: Instant | None
    ended_at: Instant | None
    billing_mode: BillingMode | None
    collection_method: CollectionMethod | None
    pause_collection: PauseCollection | None
    schedule_id: str | None
    latest_invoice_id: str | None
    default_payment_method_id: str | None
    discounts: list[AppliedDiscount] | None
    pending_change: PendingChange | None
    synced_at: Instant


class SubscriptionAnswer(Answer):
    """A subscription, as the caller's role shows it."""

    subscription: Subscription


class SubscriptionList(Page):
    """Subscriptions, newest first."""

    data: list[Subscription]


def shown(seen: Seen, rules: Rules) -> Subscription:
    """Return a subscription as the API answers it."""
    return Subscription.model_validate(document(seen, rules))


def body(seen: Seen, rules: Rules) -> bytes:
    """SubscriptionAnswer as JSON, without building the model: the hot read's answer, and what its ETag is made of.

    The contract tests hold it to the model's schema; building and dumping the model would cost a third of the read.
    """
    return orjson.dumps({"subscription": document(seen, rules)}, option=orjson.OPT_UTC_Z)


def document(seen: Seen, rules: Rules) -> JsonObject:
    """Return the members of a subscription that a role may see.

    Roles narrow a subscription only here.
    """
    view = seen.view
    amounts = Permission.SEE_AMOUNTS in seen.granted
    return {
        "id": view.id,
        "customer_id": view.customer_id,
        "status": view.status,
        "role": None if seen.role is None else seen.role.value,
        "currency": view.currency,
        "items": [_item(item, amounts=amounts, internal=seen.role is None) for item in view.items],
        "shared": _shared(seen, rules),
        "created": _instant(view.created),
        "start_date": _instant(view.start_date),
        "trial_start": _instant(view.trial_start),
        "trial_end": _instant(view.trial_end),
        "cancel_at": _instant(view.cancel_at),
        "cancel_at_period_end": view.cancel_at_period_end,
        "canceled_at": _instant(view.canceled_at),
        "ended_at": _instant(view.ended_at),
        "billing_mode": view.billing_mode,
        "collection_method": view.collection_method,
        "pause_collection": _pause_collection(view),
        "schedule_id": view.schedule_id,
        "latest_invoice_id": view.latest_invoice_id if amounts else None,
        "default_payment_method_id": view.default_payment_method_id
        if amounts and seen.sees_payers_own
        else None,
        "discounts": [_discount(detail) for detail in view.discount_details or ()] if amounts else None,
        "pending_change": _pending_change(view) if amounts else None,
        "synced_at": view.synced_at,
    }


_NO_AMOUNTS = dict.fromkeys(
    ("unit_amount", "unit_amount_decimal", "tiers_mode", "tiers", "transform_quantity")
)


def _item(item: JsonObject, *, amounts: bool, internal: bool) -> JsonObject:
    product, price = item["product"], item["price"]
    if not (amounts and internal):
        price = {**price, **({} if amounts else _NO_AMOUNTS)}
        if not internal:
            del price["nickname"]
    return {
        "id": item["id"],
        "price": price,
        "product": {
            "id": product["id"],
            "name": product["name"],
            "supports_shared_subscriptions": product["supports_shared_subscriptions"],
        },
        "quantity": item["quantity"],
        "current_period_start": _instant(item["current_period_start"]),
        "current_period_end": _instant(item["current_period_end"]),
    }


def _discount(detail: JsonObject) -> JsonObject:
    shown = {name: detail[name] for name in _DISCOUNT}
    shown["ends_at"] = _instant(detail["ends_at"])
    return shown


_DISCOUNT = ("promotion_code", "name", "percent_off", "amount_off", "currency")


def _pending_change(view: SubscriptionView) -> JsonObject | None:
    if view.waiting is None:
        return None
    payment = view.waiting_payment
    return {
        "expires_at": _instant(view.waiting["ends_at"]),
        "operation_id": view.waiting["operation_id"],
        "payment": None if payment is None else dataclasses.asdict(payment),
    }


def _pause_collection(view: SubscriptionView) -> JsonObject | None:
    if view.pause_collection is None:
        return None
    return {**view.pause_collection, "resumes_at": _instant(view.pause_collection["resumes_at"])}


def _instant(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _shared(seen: Seen, rules: Rules) -> JsonObject | None:
    view = seen.view
    if not view.is_shared():
        return None
    owner = view.owner
    return {
        "owner": None
        if owner is None
        else {"customer_id": owner.customer_id, "email": owner.email, "name": owner.name},
        "owner_may_purchase": may_purchase(view) if Permission.SEE_PURCHASES in seen.granted else None,
        "seats": view.seats(owner_uses_seat=rules.owner_uses_seat).as_members(),
    }


def may_purchase(view: SubscriptionView) -> bool:
    """Return True if there is an owner who pays or may buy on the payer's account."""
    return view.owner is not None and (view.owner.customer_id == view.customer_id or view.owner_may_purchase)
