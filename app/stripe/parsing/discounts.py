"""Read discounts, coupons and promotion codes. Every function raises MalformedObject for a wrong type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.domain.ids import (
    CustomerId,
)
from app.domain.payments import PromotionCode
from app.domain.snapshots import (
    JsonObject,
)
from app.stripe.parsing.fields import (
    Json,
    MalformedObject,
    amount,
    array,
    instant,
    integer,
    mapping,
    object_id,
    reference,
    required_string,
    string,
)


def discount_id(value: object) -> str:
    """Return the id of a discount, which may be expanded."""
    return object_id(value if type(value) is dict else {"id": value})


def _percent(source: Json) -> float | None:
    value = source.get("percent_off")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise MalformedObject("percent_off is not a number")
    return float(value)


def _amount_off(coupon: Json, currency: str) -> tuple[int | None, str | None]:
    """Return a coupon's amount with its currency, in `currency` if the coupon has an option for it."""
    option = mapping(mapping(coupon, "currency_options") or {}, currency)
    if string(coupon, "currency") != currency and option is not None:
        return integer(option, "amount_off"), currency
    return integer(coupon, "amount_off"), string(coupon, "currency")


def discount_detail(discount: Json, currency: str) -> JsonObject:
    """Return what a discount gives. Needs `promotion_code` and `source.coupon` expanded."""
    code = discount.get("promotion_code")
    coupon = mapping(mapping(discount, "source") or {}, "coupon") or {}
    amount, of = _amount_off(coupon, currency)
    return {
        "id": object_id(discount),
        "promotion_code_id": reference(discount, "promotion_code"),
        "promotion_code": string(code, "code") if type(code) is dict else None,
        "name": string(coupon, "name"),
        "percent_off": _percent(coupon),
        "amount_off": amount,
        "currency": of,
        "duration": string(coupon, "duration"),
        "start": instant(discount, "start"),
        "ends_at": instant(discount, "end"),
    }


def is_detailed(discount: object, currency: str) -> bool:
    """Return True if a discount is expanded far enough for `discount_detail` to be right in `currency`."""
    if type(discount) is not dict or isinstance(discount.get("promotion_code"), str):
        return False
    coupon = (mapping(discount, "source") or {}).get("coupon")
    if isinstance(coupon, str):
        return False
    foreign = type(coupon) is dict and coupon.get("currency") not in (None, currency)
    return not foreign or (coupon is not None and "currency_options" in coupon)


def _coupon_of(discount: object) -> JsonObject | None:
    """Return the coupon of an expanded discount, if that is expanded too."""
    source = mapping(discount, "source") if type(discount) is dict else None
    coupon = None if source is None else source.get("coupon")
    return coupon if type(coupon) is dict else None


def foreign_coupons(source: Json) -> list[str]:
    """Return the ids of a subscription's coupons whose amounts in its currency are missing."""
    currency = string(source, "currency") or ""
    coupons = [coupon for discount in array(source, "discounts") if (coupon := _coupon_of(discount))]
    return [
        object_id(coupon)
        for coupon in coupons
        if coupon.get("currency") not in (None, currency) and "currency_options" not in coupon
    ]


def with_currency_options(source: Json, options: Mapping[str, Json]) -> Json:
    """Return the subscription's JSON with the `currency_options` of its coupons, given by coupon id."""

    def completed(discount: Any) -> Any:
        coupon = _coupon_of(discount)
        if coupon is None or coupon.get("id") not in options:
            return discount
        whole = {**coupon, "currency_options": options[coupon["id"]]}
        return {**discount, "source": {**discount["source"], "coupon": whole}}

    return {**source, "discounts": [completed(discount) for discount in array(source, "discounts")]}


def spent_discounts(source: Json) -> frozenset[str]:
    """Return the ids of an invoice's discounts that apply once, and of their coupons and promotion codes.

    Needs `discounts.source.coupon` expanded.
    """
    found: set[str] = set()
    for discount in array(source, "discounts"):
        if type(discount) is not dict:
            continue
        coupon = mapping(mapping(discount, "source") or {}, "coupon") or {}
        if coupon.get("duration") == "once":
            ids = (string(discount, "id"), string(coupon, "id"), reference(discount, "promotion_code"))
            found.update(one for one in ids if one is not None)
    return frozenset(found)


def promotion_code(source: Json) -> PromotionCode:
    """Return a promotion code. Needs `promotion.coupon.currency_options` expanded."""
    coupon = mapping(mapping(source, "promotion") or {}, "coupon") or {}
    restrictions = mapping(source, "restrictions") or {}
    customer_id = reference(source, "customer")
    ends = [instant(source, "expires_at"), instant(coupon, "redeem_by")]
    amount_in = (string(coupon, "currency"), *(mapping(coupon, "currency_options") or {}))
    return PromotionCode(
        id=object_id(source),
        code=required_string(source, "code"),
        active=source.get("active") is True and coupon.get("valid") is True,
        percent_off=_percent(coupon),
        amount_off=integer(coupon, "amount_off"),
        currency=string(coupon, "currency"),
        duration=string(coupon, "duration") or "once",
        duration_in_months=integer(coupon, "duration_in_months"),
        expires_at=min((end for end in ends if end is not None), default=None),
        customer_id=None if customer_id is None else CustomerId(customer_id),
        used_up=_is_used_up(source) or _is_used_up(coupon),
        first_time_transaction=restrictions.get("first_time_transaction") is True,
        minimum_amount=integer(restrictions, "minimum_amount"),
        minimum_amount_currency=string(restrictions, "minimum_amount_currency"),
        currencies=frozenset()
        if coupon.get("amount_off") is None
        else frozenset(currency for currency in amount_in if currency is not None),
    )


def _is_used_up(source: Json) -> bool:
    most = integer(source, "max_redemptions")
    return most is not None and amount(source, "times_redeemed") >= most
