"""Stripe's JSON, as plain data, into snapshots: the only place where a Stripe field is named.

The layout is that of the pinned API version: periods on items, an invoice's subscription under `parent`. What
comes in is untrusted: a wrong type raises MalformedObject, which parks the object instead of breaking its callers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeGuard

from app.domain import metadata as keys
from app.domain.credits import Bill, BilledLine, CreditedLines
from app.domain.ids import (
    CustomerId,
    InvoiceId,
    PaymentMethodId,
    PriceId,
    ProductId,
    SubscriptionId,
    SubscriptionItemId,
)
from app.domain.payments import PaymentStep, PromotionCode, PurchaseInvoice
from app.domain.snapshots import (
    Customer,
    Invoice,
    JsonObject,
    PaymentMethod,
    Price,
    Product,
    Snapshot,
    Subscription,
    SubscriptionItem,
)

Json = Mapping[str, Any]

_LARGEST = 2**63 - 1
_LATEST_INSTANT = 253_402_300_799
_ID = re.compile(r"[\x20-\x7e]{1,255}")


class MalformedObject(ValueError):
    """An object of Stripe's lacks what its type promises; the message names the field, never its value."""


def is_id(value: object) -> TypeGuard[str]:
    """Stripe's ids have up to 255 characters; those of products and prices may be chosen by the account's owner."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _clean(value: str) -> str:
    """Postgres stores neither NUL nor half a surrogate pair."""
    if value.isascii() and "\x00" not in value:
        return value
    return value.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


def _text(source: Json, key: str) -> str | None:
    value = source.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise MalformedObject(f"{key} is not a string")
    return _clean(value)


def _need(source: Json, key: str) -> str:
    value = _text(source, key)
    if not value:
        raise MalformedObject(f"{key} is missing")
    return value


def _id(source: Json) -> str:
    value = source.get("id")
    if not is_id(value):
        raise MalformedObject("id is not an id")
    return value


def _whole(source: Json, key: str) -> int | None:
    value = source.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _LARGEST:
        raise MalformedObject(f"{key} is not a whole number in range")
    return value


def _amount(source: Json, key: str) -> int:
    return _whole(source, key) or 0


def _object(source: Json, key: str) -> JsonObject | None:
    value = source.get(key)
    if value is None or type(value) is dict:
        return value
    raise MalformedObject(f"{key} is not an object")


def _list(source: Json, key: str) -> list[Any]:
    value = source.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedObject(f"{key} is not a list")
    return value


def _objects(source: Json, key: str) -> list[Json]:
    values = _list(source, key)
    if not all(type(value) is dict for value in values):
        raise MalformedObject(f"{key} holds something else than objects")
    return values


def _reference(source: Json, key: str) -> str | None:
    """An id, or the id of an expanded object."""
    value = source.get(key)
    return _text(value, "id") if type(value) is dict else _text(source, key)


def _metadata(source: Json) -> dict[str, str]:
    values = _object(source, "metadata") or {}
    return {key: _clean(value) for key, value in values.items() if isinstance(value, str)}


def _decimal(source: Json, key: str) -> str | None:
    """Stripe sends decimal strings; the SDK's own parser may have made a Decimal of them."""
    value = source.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
        raise MalformedObject(f"{key} is not a decimal")
    return _clean(str(value))


def _scalar(source: Json, key: str) -> str | int | bool | None:
    value = source.get(key)
    return (
        _text(source, key)
        if isinstance(value, str)
        else value
        if isinstance(value, bool)
        else _whole(source, key)
    )


def _picked(source: Json | None, names: tuple[str, ...]) -> JsonObject | None:
    return None if source is None else _values(source, names)


def _values(source: Json, names: tuple[str, ...]) -> JsonObject:
    """Plain values alone: what is kept as JSON is as little trusted as a column."""
    return {name: (_decimal if name.endswith("_decimal") else _scalar)(source, name) for name in names}


def product(source: Json) -> Product:
    metadata = _metadata(source)
    return Product(
        id=ProductId(_id(source)),
        created=_amount(source, "created"),
        active=bool(source.get("active", True)),
        name=_text(source, "name") or "",
        description=_text(source, "description"),
        images=[_clean(image) for image in _list(source, "images") if isinstance(image, str)],
        unit_label=_text(source, "unit_label"),
        default_price_id=_reference(source, "default_price"),
        supports_sharing=keys.flag(metadata, keys.SUPPORTS_SHARING),
        owner_uses_seat=keys.optional_flag(metadata, keys.OWNER_USES_SEAT),
        sellable=keys.flag(metadata, keys.SELLABLE),
        deleted=source.get("deleted") is True,
    )


_TIER = ("up_to", "unit_amount", "unit_amount_decimal", "flat_amount", "flat_amount_decimal")
_RECURRING = ("interval", "interval_count", "usage_type", "meter")


def _tiers(source: Json) -> list[JsonObject] | None:
    return [_values(tier, _TIER) for tier in _objects(source, "tiers")] or None


def _currency_options(source: Json) -> JsonObject | None:
    options, own = _object(source, "currency_options"), source.get("currency")
    if not options:
        return None
    found = {}
    for currency in options:
        option = _object(options, currency) or {}
        found[_clean(currency)] = {
            **_values(option, ("unit_amount", "unit_amount_decimal", "tax_behavior")),
            "tiers": _tiers(source if currency == own and "tiers" not in option else option),
        }
    return found


def price(source: Json) -> Price:
    return Price(
        id=PriceId(_id(source)),
        created=_amount(source, "created"),
        product_id=ProductId(_reference(source, "product") or ""),
        active=bool(source.get("active", True)),
        currency=_text(source, "currency") or "",
        type=_text(source, "type") or "one_time",
        billing_scheme=_text(source, "billing_scheme") or "per_unit",
        unit_amount=_whole(source, "unit_amount"),
        unit_amount_decimal=_decimal(source, "unit_amount_decimal"),
        recurring=_picked(_object(source, "recurring"), _RECURRING),
        tiers_mode=_text(source, "tiers_mode"),
        tiers=_tiers(source),
        transform_quantity=_picked(_object(source, "transform_quantity"), ("divide_by", "round")),
        currency_options=_currency_options(source),
        tax_behavior=_text(source, "tax_behavior"),
        lookup_key=_text(source, "lookup_key"),
        nickname=_text(source, "nickname"),
        sellable=keys.optional_flag(_metadata(source), keys.SELLABLE),
        deleted=source.get("deleted") is True,
    )


def customer(source: Json) -> Customer:
    """A deleted customer keeps its id alone: what it said of a person goes."""
    deleted = source.get("deleted") is True
    readable: Json = {"id": source.get("id"), "created": source.get("created")} if deleted else source
    metadata = _metadata(readable)
    membership = keys.membership_of(metadata)
    settings = _object(readable, "invoice_settings") or {}
    return Customer(
        id=CustomerId(_id(readable)),
        created=_amount(readable, "created"),
        email=_text(readable, "email"),
        name=_text(readable, "name"),
        phone=_text(readable, "phone"),
        currency=_text(readable, "currency"),
        balance=_amount(readable, "balance"),
        default_payment_method_id=_reference(settings, "default_payment_method"),
        default_source_id=_reference(readable, "default_source"),
        member_of=None if membership is None else membership.subscription_id,
        member_role=None if membership is None else membership.role,
        user_id=keys.text(metadata, keys.USER_ID),
        operation_id=keys.text(metadata, keys.OPERATION_ID),
        metadata_problems=keys.membership_problems(metadata),
        deleted=deleted,
    )


def _item(source: Json) -> SubscriptionItem:
    price_source = _object(source, "price") or {}
    recurring = _object(price_source, "recurring") or {}
    return SubscriptionItem(
        id=SubscriptionItemId(_id(source)),
        price_id=PriceId(_id(price_source)),
        product_id=ProductId(_reference(price_source, "product") or ""),
        quantity=_whole(source, "quantity"),
        metered=recurring.get("usage_type") == "metered",
        current_period_start=_whole(source, "current_period_start"),
        current_period_end=_whole(source, "current_period_end"),
    )


def _discount(value: object) -> str:
    """An id, or the id of an expanded discount."""
    return _id(value if type(value) is dict else {"id": value})


def _percent(source: Json) -> float | None:
    value = source.get("percent_off")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise MalformedObject("percent_off is not a number")
    return float(value)


def _amount_off(coupon: Json, currency: str) -> tuple[int | None, str | None]:
    """Return a coupon's amount and its currency: those of `currency` where the coupon has an option for it."""
    option = _object(_object(coupon, "currency_options") or {}, currency)
    if _text(coupon, "currency") != currency and option is not None:
        return _whole(option, "amount_off"), currency
    return _whole(coupon, "amount_off"), _text(coupon, "currency")


def _discount_detail(discount: Json, currency: str) -> JsonObject:
    """Return what a discount gives. Needs `promotion_code` and `source.coupon` expanded."""
    code = discount.get("promotion_code")
    coupon = _object(_object(discount, "source") or {}, "coupon") or {}
    amount, of = _amount_off(coupon, currency)
    return {
        "id": _id(discount),
        "promotion_code_id": _reference(discount, "promotion_code"),
        "promotion_code": _text(code, "code") if type(code) is dict else None,
        "name": _text(coupon, "name"),
        "percent_off": _percent(coupon),
        "amount_off": amount,
        "currency": of,
        "duration": _text(coupon, "duration"),
        "start": _whole(discount, "start"),
        "ends_at": _whole(discount, "end"),
    }


def _is_detailed(discount: object, currency: str) -> bool:
    """True if a discount is expanded far enough for `_discount_detail` to be right in `currency`."""
    if type(discount) is not dict or isinstance(discount.get("promotion_code"), str):
        return False
    coupon = (_object(discount, "source") or {}).get("coupon")
    if isinstance(coupon, str):
        return False
    foreign = type(coupon) is dict and coupon.get("currency") not in (None, currency)
    return not foreign or (coupon is not None and "currency_options" in coupon)


def _coupon_of(discount: object) -> JsonObject | None:
    """Return the coupon of an expanded discount, if that is expanded too."""
    source = _object(discount, "source") if type(discount) is dict else None
    coupon = None if source is None else source.get("coupon")
    return coupon if type(coupon) is dict else None


def foreign_coupons(source: Json) -> list[str]:
    """Return the ids of a subscription's coupons whose amounts in its currency are not told."""
    currency = _text(source, "currency") or ""
    coupons = [coupon for discount in _list(source, "discounts") if (coupon := _coupon_of(discount))]
    return [
        _id(coupon)
        for coupon in coupons
        if coupon.get("currency") not in (None, currency) and "currency_options" not in coupon
    ]


def with_currency_options(source: Json, options: Mapping[str, Json]) -> Json:
    """Return a subscription whose coupons carry their `currency_options`, given by the coupons' ids."""

    def completed(discount: Any) -> Any:
        coupon = _coupon_of(discount)
        if coupon is None or coupon.get("id") not in options:
            return discount
        whole = {**coupon, "currency_options": options[coupon["id"]]}
        return {**discount, "source": {**discount["source"], "coupon": whole}}

    return {**source, "discounts": [completed(discount) for discount in _list(source, "discounts")]}


def subscription(source: Json, items: list[Json] | None = None) -> Subscription:
    """`items`: the whole list where the embedded one was cut short."""
    metadata = _metadata(source)
    currency = _text(source, "currency") or ""
    discounts = _list(source, "discounts")
    expanded = [discount for discount in discounts if _is_detailed(discount, currency)]
    embedded = _object(source, "items") or {}
    sources = _objects(embedded, "data") if items is None else items
    billing_mode = _object(source, "billing_mode") or {}
    return Subscription(
        id=SubscriptionId(_id(source)),
        created=_amount(source, "created"),
        customer_id=CustomerId(_reference(source, "customer") or ""),
        status=_need(source, "status"),
        currency=currency,
        items=[_item(item) for item in sources],
        owner_id=keys.owner_of(metadata),
        operation_id=keys.text(metadata, keys.OPERATION_ID),
        cancel_at=_whole(source, "cancel_at"),
        cancel_at_period_end=bool(source.get("cancel_at_period_end", False)),
        canceled_at=_whole(source, "canceled_at"),
        ended_at=_whole(source, "ended_at"),
        trial_start=_whole(source, "trial_start"),
        trial_end=_whole(source, "trial_end"),
        start_date=_whole(source, "start_date"),
        billing_cycle_anchor=_whole(source, "billing_cycle_anchor"),
        billing_mode=_text(billing_mode, "type"),
        collection_method=_text(source, "collection_method"),
        default_payment_method_id=_reference(source, "default_payment_method"),
        default_source_id=_reference(source, "default_source"),
        latest_invoice_id=_reference(source, "latest_invoice"),
        pending_update=_picked(_object(source, "pending_update"), ("expires_at", "trial_end")),
        discounts=[_discount(discount) for discount in discounts],
        metadata_problems=keys.owner_problems(metadata),
        pause_collection=_pause_collection(source),
        schedule_id=_reference(source, "schedule"),
        discount_details=[_discount_detail(discount, currency) for discount in expanded] or None,
        items_complete=items is not None or embedded.get("has_more") is False,
        discounts_complete=len(expanded) == len(discounts),
    )


def _pause_collection(source: Json) -> JsonObject | None:
    paused = _object(source, "pause_collection")
    if not paused:
        return None
    resumes_at = _whole(paused, "resumes_at")
    if resumes_at is not None and not 0 <= resumes_at <= _LATEST_INSTANT:
        raise MalformedObject("resumes_at is not an instant before the year 10000")
    return {"behavior": _need(paused, "behavior"), "resumes_at": resumes_at}


_CARD = ("brand", "last4", "exp_month", "exp_year", "funding", "country")


def payment_method(source: Json) -> PaymentMethod:
    details = _object(source, "card")
    card = _picked(details, _CARD)
    if card is not None and details is not None:
        card["wallet"] = _text(_object(details, "wallet") or {}, "type")
    return PaymentMethod(
        id=PaymentMethodId(_id(source)),
        created=_amount(source, "created"),
        customer_id=_customer_reference(source),
        type=_need(source, "type"),
        card=card,
    )


def _customer_reference(source: Json) -> CustomerId | None:
    customer_id = _reference(source, "customer")
    return None if customer_id is None else CustomerId(customer_id)


def _line(source: Json) -> JsonObject:
    parent = _object(source, "parent") or {}
    # A line that was collected from a pending invoice item names that item instead of a subscription item.
    details = _object(parent, "subscription_item_details") or _object(parent, "invoice_item_details") or {}
    pricing = _object(source, "pricing") or {}
    prices = _object(pricing, "price_details") or {}
    period = _object(source, "period") or {}
    return {
        "description": _text(source, "description"),
        "amount": _amount(source, "amount"),
        "quantity": _whole(source, "quantity"),
        "price_id": _reference(prices, "price"),
        "product_id": _reference(prices, "product"),
        "subscription_item_id": _text(details, "subscription_item"),
        "proration": details.get("proration") is True,
        "period_start": _whole(period, "start"),
        "period_end": _whole(period, "end"),
    }


def invoice(source: Json, all_lines: list[Json] | None = None) -> Invoice:
    """`all_lines`: the whole list where the embedded one was cut short."""
    parent = _object(source, "parent") or {}
    details = _object(parent, "subscription_details") or {}
    subscription_id = _reference(details, "subscription")
    lines = _object(source, "lines") or {}
    return Invoice(
        id=InvoiceId(_id(source)),
        created=_amount(source, "created"),
        customer_id=_customer_reference(source),
        subscription_id=None if subscription_id is None else SubscriptionId(subscription_id),
        number=_text(source, "number"),
        status=_text(source, "status"),
        currency=_text(source, "currency") or "",
        subtotal=_amount(source, "subtotal"),
        total=_amount(source, "total"),
        amount_due=_amount(source, "amount_due"),
        amount_paid=_amount(source, "amount_paid"),
        amount_remaining=_amount(source, "amount_remaining"),
        billing_reason=_text(source, "billing_reason"),
        hosted_invoice_url=_text(source, "hosted_invoice_url"),
        invoice_pdf=_text(source, "invoice_pdf"),
        period_start=_whole(source, "period_start"),
        period_end=_whole(source, "period_end"),
        due_date=_whole(source, "due_date"),
        lines=[_line(line) for line in (_objects(lines, "data") if all_lines is None else all_lines)],
        deleted=source.get("deleted") is True,
    )


SILENT_DECLINES = frozenset({"fraudulent", "lost_card", "stolen_card", "pickup_card", "merchant_blacklist"})
"""Reasons that Stripe asks not to show to a customer (its page "Decline codes")."""


def intent_step(source: Json, kind: str, hosted_invoice_url: str | None = None) -> PaymentStep:
    """Return what a payment intent (`kind` payment) or a setup intent (`kind` setup) leaves to its customer."""
    failure = _object(source, "last_setup_error" if kind == "setup" else "last_payment_error") or {}
    decline = _text(failure, "decline_code")
    return PaymentStep(
        status=_need(source, "status"),
        client_secret=_text(source, "client_secret"),
        kind=kind,
        payment_method_id=_reference(source, "payment_method") or _reference(failure, "payment_method"),
        decline_code=None if decline in SILENT_DECLINES else decline,
        hosted_invoice_url=hosted_invoice_url,
    )


def invoice_payment_step(source: Json) -> PaymentStep | None:
    """Return what an open invoice leaves to its customer; None if the invoice is not open.

    Needs `payments.data.payment.payment_intent` expanded. Of several payments the open one counts, and of several
    open ones the default (Stripe allows an invoice to be paid in parts).
    """
    if _text(source, "status") != "open":
        return None
    url = _text(source, "hosted_invoice_url")
    payments = [
        one
        for one in _objects(_object(source, "payments") or {}, "data")
        if _text(one, "status") == "open" and _object(_object(one, "payment") or {}, "payment_intent")
    ]
    payments.sort(key=lambda one: one.get("is_default") is not True)
    intent = _object(_object(payments[0], "payment") or {}, "payment_intent") if payments else None
    if intent is None:
        return PaymentStep(None, None, "payment", hosted_invoice_url=url)
    return intent_step(intent, "payment", url)


def purchase_invoice(source: Json, at: int) -> PurchaseInvoice:
    """Parse the invoice of a purchase. `at`: the second of Stripe's answer. Needs what `invoice_payment_step` needs."""
    moments = _object(source, "status_transitions") or {}
    return PurchaseInvoice(
        id=_id(source),
        status=_text(source, "status") or "",
        payment=invoice_payment_step(source),
        paid_at=_whole(moments, "paid_at"),
        at=at,
    )


def tax(source: Json) -> int:
    """All taxes of an invoice, inclusive ones too, in minor units."""
    return sum(_amount(entry, "amount") for entry in _objects(source, "total_taxes"))


def spent_discounts(source: Json) -> frozenset[str]:
    """Ids of an invoice's discounts that count once, of their coupons and promotion codes; needs coupons expanded."""
    found: set[str] = set()
    for discount in _list(source, "discounts"):
        if type(discount) is not dict:
            continue
        coupon = _object(_object(discount, "source") or {}, "coupon") or {}
        if coupon.get("duration") == "once":
            ids = (_text(discount, "id"), _text(coupon, "id"), _reference(discount, "promotion_code"))
            found.update(one for one in ids if one is not None)
    return frozenset(found)


def line_total(source: Json) -> int:
    """What one invoice line adds to the invoice's total: its amount less discounts, with exclusive taxes."""
    taxes = [entry for entry in _objects(source, "taxes") if entry.get("tax_behavior") != "inclusive"]
    return _net_of_discounts(source) + sum(_amount(entry, "amount") for entry in taxes)


def _net_of_discounts(source: Json) -> int:
    taken = sum(_amount(entry, "amount") for entry in _objects(source, "discount_amounts"))
    return _amount(source, "amount") - taken


def billed_line(source: Json) -> BilledLine:
    """A line of an invoice or a preview. A line that stands for an invoice item may not name its subscription item."""
    parent = _object(source, "parent") or {}
    details = _object(parent, "subscription_item_details") or _object(parent, "invoice_item_details") or {}
    named = _object(_object(details, "proration_details") or {}, "credited_items")
    period = _object(source, "period") or {}
    item_id = _text(details, "subscription_item")
    return BilledLine(
        id=_id(source),
        item_id=None if item_id is None else SubscriptionItemId(item_id),
        amount=_net_of_discounts(source),
        period_start=_amount(period, "start"),
        period_end=_amount(period, "end"),
        invoice_item_id=_text(details, "invoice_item"),
        credited=None if named is None else _credited(named),
    )


def _credited(named: Json) -> CreditedLines:
    invoice_id = _need(named, "invoice")
    return CreditedLines(InvoiceId(invoice_id), frozenset(map(str, _list(named, "invoice_line_items"))))


def invoice_item(source: Json) -> BilledLine:
    """An invoice item as a line; one that is pending stands on no invoice yet."""
    details = _object(_object(source, "parent") or {}, "subscription_details") or {}
    named = _object(_object(source, "proration_details") or {}, "credited_items")
    period = _object(source, "period") or {}
    item_id = _text(details, "subscription_item")
    return BilledLine(
        id=_id(source),
        item_id=None if item_id is None else SubscriptionItemId(item_id),
        amount=_amount(source, "net_amount" if source.get("net_amount") is not None else "amount"),
        period_start=_amount(period, "start"),
        period_end=_amount(period, "end"),
        invoice_item_id=_id(source),
        credited=None if named is None else _credited_by_item(named),
    )


def _credited_by_item(named: Json) -> CreditedLines | None:
    lines = _object(named, "invoice_line_item_details")
    if lines is not None:
        return _credited(lines)
    item_id = _text(named, "invoice_item")
    return None if item_id is None else CreditedLines(None, frozenset({item_id}))


def bill(source: Json, lines: Sequence[BilledLine]) -> Bill:
    """An invoice as a source of credit, with `payments` expanded. Its charges and credit notes tell what went back."""
    noted = (_amount(source, f"{when}_payment_credit_notes_amount") for when in ("pre", "post"))
    return Bill(
        id=InvoiceId(_id(source)),
        created=_amount(source, "created"),
        status=_need(source, "status"),
        total=_amount(source, "total"),
        amount_due=_amount(source, "amount_due"),
        lines=lines,
        hosted_invoice_url=_text(source, "hosted_invoice_url"),
        finalizes_at=_whole(source, "automatically_finalizes_at"),
        payments=_payments(source),
        has_credit_notes=any(noted),
    )


def _payments(source: Json) -> list[str]:
    """Ids of the payment intents, or of charges without one, that paid the invoice."""
    entries = _objects(_object(source, "payments") or {}, "data")
    paid = [_object(entry, "payment") or {} for entry in entries if entry.get("status") == "paid"]
    named = (_reference(one, "payment_intent") or _reference(one, "charge") for one in paid)
    return [payment for payment in named if payment is not None]


def promotion_code(source: Json) -> PromotionCode:
    """Needs `promotion.coupon.currency_options` expanded."""
    coupon = _object(_object(source, "promotion") or {}, "coupon") or {}
    restrictions = _object(source, "restrictions") or {}
    customer_id = _reference(source, "customer")
    ends = [_whole(source, "expires_at"), _whole(coupon, "redeem_by")]
    amount_in = (_text(coupon, "currency"), *(_object(coupon, "currency_options") or {}))
    return PromotionCode(
        id=_id(source),
        code=_need(source, "code"),
        active=source.get("active") is True and coupon.get("valid") is True,
        percent_off=_percent(coupon),
        amount_off=_whole(coupon, "amount_off"),
        currency=_text(coupon, "currency"),
        duration=_text(coupon, "duration") or "once",
        duration_in_months=_whole(coupon, "duration_in_months"),
        expires_at=min((end for end in ends if end is not None), default=None),
        customer_id=None if customer_id is None else CustomerId(customer_id),
        used_up=_is_used_up(source) or _is_used_up(coupon),
        first_time_transaction=restrictions.get("first_time_transaction") is True,
        minimum_amount=_whole(restrictions, "minimum_amount"),
        minimum_amount_currency=_text(restrictions, "minimum_amount_currency"),
        currencies=frozenset()
        if coupon.get("amount_off") is None
        else frozenset(currency for currency in amount_in if currency is not None),
    )


def _is_used_up(source: Json) -> bool:
    most = _whole(source, "max_redemptions")
    return most is not None and _amount(source, "times_redeemed") >= most


PARSERS: dict[str, Callable[[Json], Snapshot]] = {
    "product": product,
    "price": price,
    "customer": customer,
    "subscription": subscription,
    "payment_method": payment_method,
    "invoice": invoice,
}


def is_complete(source: Json) -> bool:
    """Does a webhook's payload carry all that is projected? A price's tiers and currency options never come."""
    kind = source.get("object")
    if kind == "price":
        return False
    embedded = {"subscription": "items", "invoice": "lines"}.get(str(kind))
    return embedded is None or (_object(source, embedded) or {}).get("has_more") is False
