"""Convert Stripe's objects into snapshots, by the layout of the pinned API version.

Every function raises MalformedObject if a field has the wrong type. Source of the fields: https://docs.stripe.com/api
"""

from __future__ import annotations

from collections.abc import Callable

from app.domain import metadata as keys
from app.domain.ids import (
    CustomerId,
    InvoiceId,
    PaymentMethodId,
    PriceId,
    ProductId,
    SubscriptionId,
    SubscriptionItemId,
    is_id_of,
)
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
from app.stripe.parsing.discounts import discount_detail, discount_id, is_detailed
from app.stripe.parsing.fields import (
    Json,
    MalformedObject,
    amount,
    array,
    decimal_string,
    instant,
    integer,
    mapping,
    mappings,
    metadata_of,
    object_id,
    picked,
    plain_values,
    reference,
    required_string,
    storable,
    string,
)


def product(source: Json) -> Product:
    """Return a product."""
    metadata = metadata_of(source)
    return Product(
        id=ProductId(object_id(source)),
        created=instant(source, "created") or 0,
        active=bool(source.get("active", True)),
        name=string(source, "name") or "",
        description=string(source, "description"),
        images=[storable(image) for image in array(source, "images") if isinstance(image, str)],
        unit_label=string(source, "unit_label"),
        default_price_id=reference(source, "default_price"),
        supports_sharing=keys.flag(metadata, keys.SUPPORTS_SHARING),
        owner_uses_seat=keys.optional_flag(metadata, keys.OWNER_USES_SEAT),
        sellable=keys.flag(metadata, keys.SELLABLE),
        deleted=source.get("deleted") is True,
    )


_TIER = ("up_to", "unit_amount", "unit_amount_decimal", "flat_amount", "flat_amount_decimal")


_RECURRING = ("interval", "interval_count", "usage_type", "meter")


def _tiers(source: Json) -> list[JsonObject] | None:
    return [plain_values(tier, _TIER) for tier in mappings(source, "tiers")] or None


def _currency_options(source: Json) -> JsonObject | None:
    options, own = mapping(source, "currency_options"), source.get("currency")
    if not options:
        return None
    found = {}
    for currency in options:
        option = mapping(options, currency) or {}
        found[storable(currency)] = {
            **plain_values(option, ("unit_amount", "unit_amount_decimal", "tax_behavior")),
            "tiers": _tiers(source if currency == own and "tiers" not in option else option),
        }
    return found


def price(source: Json) -> Price:
    """Return a price. It is complete only if `tiers` and `currency_options` are expanded."""
    return Price(
        id=PriceId(object_id(source)),
        created=instant(source, "created") or 0,
        product_id=ProductId(reference(source, "product") or ""),
        active=bool(source.get("active", True)),
        currency=string(source, "currency") or "",
        type=string(source, "type") or "one_time",
        billing_scheme=string(source, "billing_scheme") or "per_unit",
        unit_amount=integer(source, "unit_amount"),
        unit_amount_decimal=decimal_string(source, "unit_amount_decimal"),
        recurring=picked(mapping(source, "recurring"), _RECURRING),
        tiers_mode=string(source, "tiers_mode"),
        tiers=_tiers(source),
        transform_quantity=picked(mapping(source, "transform_quantity"), ("divide_by", "round")),
        currency_options=_currency_options(source),
        tax_behavior=string(source, "tax_behavior"),
        lookup_key=string(source, "lookup_key"),
        nickname=string(source, "nickname"),
        sellable=keys.optional_flag(metadata_of(source), keys.SELLABLE),
        deleted=source.get("deleted") is True,
    )


def customer(source: Json) -> Customer:
    """Return a customer. Of a deleted customer only the id and the creation time are read, no personal data."""
    deleted = source.get("deleted") is True
    readable: Json = {"id": source.get("id"), "created": source.get("created")} if deleted else source
    metadata = metadata_of(readable)
    membership = keys.membership_of(metadata)
    settings = mapping(readable, "invoice_settings") or {}
    return Customer(
        id=CustomerId(object_id(readable)),
        created=instant(readable, "created") or 0,
        email=string(readable, "email"),
        name=string(readable, "name"),
        phone=string(readable, "phone"),
        currency=string(readable, "currency"),
        balance=amount(readable, "balance"),
        default_payment_method_id=reference(settings, "default_payment_method"),
        default_source_id=reference(readable, "default_source"),
        member_of=None if membership is None else membership.subscription_id,
        member_role=None if membership is None else membership.role,
        user_id=keys.text(metadata, keys.USER_ID),
        operation_id=keys.text(metadata, keys.OPERATION_ID),
        metadata_problems=keys.membership_problems(metadata),
        further_memberships=keys.further_memberships_of(metadata),
        deleted=deleted,
    )


def _item(source: Json) -> SubscriptionItem:
    price_source = mapping(source, "price") or {}
    recurring = mapping(price_source, "recurring") or {}
    return SubscriptionItem(
        id=SubscriptionItemId(object_id(source)),
        price_id=PriceId(object_id(price_source)),
        product_id=ProductId(reference(price_source, "product") or ""),
        quantity=integer(source, "quantity"),
        metered=recurring.get("usage_type") == "metered",
        current_period_start=instant(source, "current_period_start"),
        current_period_end=instant(source, "current_period_end"),
    )


def subscription(source: Json, items: list[Json] | None = None) -> Subscription:
    """Return a subscription. `items` is the whole list if the embedded one is incomplete."""
    metadata = metadata_of(source)
    currency = string(source, "currency") or ""
    discounts = array(source, "discounts")
    expanded = [discount for discount in discounts if is_detailed(discount, currency)]
    embedded = mapping(source, "items") or {}
    sources = mappings(embedded, "data") if items is None else items
    billing_mode = mapping(source, "billing_mode") or {}
    return Subscription(
        id=SubscriptionId(object_id(source)),
        created=instant(source, "created") or 0,
        customer_id=CustomerId(reference(source, "customer") or ""),
        status=required_string(source, "status"),
        currency=currency,
        items=[_item(item) for item in sources],
        owner_id=keys.owner_of(metadata),
        operation_id=keys.text(metadata, keys.OPERATION_ID),
        cancel_at=instant(source, "cancel_at"),
        cancel_at_period_end=bool(source.get("cancel_at_period_end", False)),
        canceled_at=instant(source, "canceled_at"),
        ended_at=instant(source, "ended_at"),
        trial_start=instant(source, "trial_start"),
        trial_end=instant(source, "trial_end"),
        start_date=instant(source, "start_date"),
        billing_cycle_anchor=instant(source, "billing_cycle_anchor"),
        billing_mode=string(billing_mode, "type"),
        collection_method=string(source, "collection_method"),
        default_payment_method_id=reference(source, "default_payment_method"),
        default_source_id=reference(source, "default_source"),
        latest_invoice_id=reference(source, "latest_invoice"),
        pending_update=_pending_update(source),
        discounts=[discount_id(discount) for discount in discounts],
        metadata_problems=keys.owner_problems(metadata),
        pause_collection=_pause_collection(source),
        schedule_id=reference(source, "schedule"),
        discount_details=[discount_detail(discount, currency) for discount in expanded] or None,
        items_complete=items is not None or embedded.get("has_more") is False,
        discounts_complete=len(expanded) == len(discounts),
    )


def _pause_collection(source: Json) -> JsonObject | None:
    paused = mapping(source, "pause_collection")
    if not paused:
        return None
    return {"behavior": required_string(paused, "behavior"), "resumes_at": instant(paused, "resumes_at")}


def _pending_update(source: Json) -> JsonObject | None:
    pending = mapping(source, "pending_update")
    return None if pending is None else {name: instant(pending, name) for name in ("expires_at", "trial_end")}


_CARD = ("brand", "last4", "exp_month", "exp_year", "funding", "country")


def payment_method(source: Json) -> PaymentMethod:
    """Return a payment method."""
    details = mapping(source, "card")
    card = picked(details, _CARD)
    if card is not None and details is not None:
        card["wallet"] = string(mapping(details, "wallet") or {}, "type")
    return PaymentMethod(
        id=PaymentMethodId(object_id(source)),
        created=instant(source, "created") or 0,
        customer_id=_customer_reference(source),
        type=required_string(source, "type"),
        card=card,
    )


def _customer_reference(source: Json) -> CustomerId | None:
    customer_id = reference(source, "customer")
    return None if customer_id is None else CustomerId(customer_id)


def _line(source: Json) -> JsonObject:
    parent = mapping(source, "parent") or {}
    # A line for an invoice item that was pending names that invoice item instead of a subscription item.
    details = mapping(parent, "subscription_item_details") or mapping(parent, "invoice_item_details") or {}
    pricing = mapping(source, "pricing") or {}
    prices = mapping(pricing, "price_details") or {}
    period = mapping(source, "period") or {}
    return {
        "description": string(source, "description"),
        "amount": amount(source, "amount"),
        "quantity": integer(source, "quantity"),
        "price_id": reference(prices, "price"),
        "product_id": reference(prices, "product"),
        "subscription_item_id": string(details, "subscription_item"),
        "proration": details.get("proration") is True,
        "period_start": instant(period, "start"),
        "period_end": instant(period, "end"),
    }


def invoice(source: Json, all_lines: list[Json] | None = None) -> Invoice:
    """Return an invoice. `all_lines` is the whole list if the embedded one is incomplete."""
    parent = mapping(source, "parent") or {}
    details = mapping(parent, "subscription_details") or {}
    subscription_id = reference(details, "subscription")
    lines = mapping(source, "lines") or {}
    return Invoice(
        id=InvoiceId(object_id(source)),
        created=instant(source, "created") or 0,
        customer_id=_customer_reference(source),
        subscription_id=None if subscription_id is None else SubscriptionId(subscription_id),
        number=string(source, "number"),
        status=string(source, "status"),
        currency=string(source, "currency") or "",
        subtotal=amount(source, "subtotal"),
        total=amount(source, "total"),
        amount_due=amount(source, "amount_due"),
        amount_paid=amount(source, "amount_paid"),
        amount_remaining=amount(source, "amount_remaining"),
        billing_reason=string(source, "billing_reason"),
        hosted_invoice_url=string(source, "hosted_invoice_url"),
        invoice_pdf=string(source, "invoice_pdf"),
        period_start=instant(source, "period_start"),
        period_end=instant(source, "period_end"),
        due_date=instant(source, "due_date"),
        lines=[_line(line) for line in (mappings(lines, "data") if all_lines is None else all_lines)],
        deleted=source.get("deleted") is True,
    )


PARSERS: dict[str, Callable[[Json], Snapshot]] = {
    "product": product,
    "price": price,
    "customer": customer,
    "subscription": subscription,
    "payment_method": payment_method,
    "invoice": invoice,
}


_WITH_LIST: dict[str, Callable[[Json, list[Json]], Snapshot]] = {
    "subscription": subscription,
    "invoice": invoice,
}


def check_kind(kind: str, source: Json) -> None:
    """Check that an object is of this kind and has an id of this kind.

    Raises:
        MalformedObject: it is of another kind, or its id is.
    """
    if type(source) is not dict or source.get("object") != kind:
        raise MalformedObject(f"object is not {kind}")
    if not is_id_of(kind, object_id(source)):
        raise MalformedObject(f"id is not that of a {kind}")


def created(source: Json) -> int:
    """Return the Unix second of an object's creation, which must not be missing."""
    second = instant(source, "created")
    if second is None:
        raise MalformedObject("created is missing")
    return second


def snapshot(kind: str, source: Json, whole_list: list[Json] | None = None) -> Snapshot:
    """Return the snapshot of an object of this kind. `whole_list` are its items or lines if the embedded list is cut.

    Raises:
        MalformedObject: a field has the wrong type, or reading it fails in a way that nobody foresaw.
    """
    try:
        return PARSERS[kind](source) if whole_list is None else _WITH_LIST[kind](source, whole_list)
    except MalformedObject:
        raise
    except Exception as error:  # Whatever is wrong with one object, its callers go on with the others.
        raise MalformedObject(f"reading it fails with {type(error).__name__}") from error


def is_complete(source: Json) -> bool:
    """Return True if an embedded object has all lists that its snapshot needs.

    A price never has: webhooks do not include its tiers and currency options.
    """
    kind = source.get("object")
    if kind == "price":
        return False
    embedded = {"subscription": "items", "invoice": "lines"}.get(str(kind))
    return embedded is None or (mapping(source, embedded) or {}).get("has_more") is False
