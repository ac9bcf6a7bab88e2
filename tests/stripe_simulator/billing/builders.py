"""Stripe-shaped prices, coupons and tax rates for the billing tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import settings

from stripe_simulator.billing import Discount, ItemState, Line, Period

# A shared machine may stall for longer than the default deadline of an example.
PROPERTY = settings(deadline=None, database=None)


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    """A UTC moment in Unix seconds."""
    return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())


def price(
    unit_amount: int | None = 1000,
    *,
    interval: str = "month",
    count: int = 1,
    metered: bool = False,
    **fields: Any,
) -> dict[str, Any]:
    base: dict[str, Any] = {
        "id": "price_team",
        "object": "price",
        "product": "prod_team",
        "currency": "usd",
        "billing_scheme": "per_unit",
        "tiers_mode": None,
        "transform_quantity": None,
        "unit_amount": unit_amount,
        "unit_amount_decimal": None if unit_amount is None else str(unit_amount),
        "recurring": {
            "interval": interval,
            "interval_count": count,
            "usage_type": "metered" if metered else "licensed",
        },
    }
    return base | fields


def tiered(mode: str, *tiers: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return price(None, billing_scheme="tiered", tiers_mode=mode, tiers=list(tiers), **fields)


def item(of: dict[str, Any] | None = None, quantity: int | None = 1, **fields: Any) -> ItemState:
    values: dict[str, Any] = {"subscription_item": "si_1", "product_name": "Team", "currency": "usd"} | fields
    return ItemState(price=of or price(), quantity=quantity, **values)


def percent(value: float, discount: str = "di_percent", **coupon: Any) -> Discount:
    return Discount(discount, {"id": "co_percent", "percent_off": value, "duration": "forever"} | coupon)


def amount_off(value: int, discount: str = "di_amount", **coupon: Any) -> Discount:
    fields = {
        "id": "co_amount",
        "amount_off": value,
        "currency": "usd",
        "percent_off": None,
        "duration": "forever",
    }
    return Discount(discount, fields | coupon)


def tax_rate(percentage: float, *, inclusive: bool = False, id: str = "txr_1") -> dict[str, Any]:
    return {
        "id": id,
        "object": "tax_rate",
        "percentage": percentage,
        "inclusive": inclusive,
        "rate_type": "percentage",
    }


def line(amount: int, item: str = "si_1", *, product: str = "prod_team", **fields: Any) -> Line:
    values: dict[str, Any] = {
        "currency": "usd",
        "description": "1 × Team (at $10.00 / month)",
        "period": Period(at(2026, 11, 1), at(2026, 12, 1)),
        "quantity": 1,
        "price": "price_team",
    } | fields
    return Line(amount=amount, product=product, subscription_item=item, **values)
