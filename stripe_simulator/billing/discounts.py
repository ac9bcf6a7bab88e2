"""Coupons on invoice lines: item discounts first, then the subscription's, each on what the one before left.

Whether a discount still runs (once, repeating, forever) is the caller's to judge; `discount_end` gives the moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from stripe_simulator.billing.lines import Discount, DiscountAmount, Line
from stripe_simulator.billing.money import (
    BillingInputError,
    decimal_text,
    display_amount,
    exact,
    round_half_up,
)
from stripe_simulator.billing.periods import add_months

Coupon = Mapping[str, Any]


def discount_end(coupon: Coupon, start: int) -> int | None:
    """When a discount redeemed at `start` ends, Unix seconds; None for once (ends by use) and forever."""
    if coupon.get("duration") != "repeating":
        return None
    return add_months(start, int(coupon["duration_in_months"]))


def apply_discounts(
    lines: Sequence[Line],
    *,
    subscription_discounts: Sequence[Discount] = (),
    item_discounts: Mapping[str, Sequence[Discount]] | None = None,
) -> tuple[Line, ...]:
    """The lines with their `discount_amounts`; lines that are credits, zero or prorations stay as they are.

    Stacked discounts work in the order given, each on what is left, and no line goes below zero. `item_discounts`
    is keyed by subscription item. Raises BillingInputError for an amount_off without the lines' currency.
    """
    result = list(lines)
    for item, discounts in (item_discounts or {}).items():
        own = [position for position, line in enumerate(lines) if line.subscription_item == item]
        for discount in discounts:
            _apply(result, own, discount, on_item=True)
    for discount in subscription_discounts:
        _apply(result, range(len(result)), discount, on_item=False)
    return tuple(result)


def net_amount(amount: int, product: str, currency: str, discounts: Sequence[Discount]) -> int:
    """A single amount after the discounts, in minor units, as prorations take it."""
    for discount in discounts:
        if covers(discount.coupon, product):
            amount -= _taken(discount.coupon, amount, currency)
    return amount


def spread(total: int, weights: Sequence[int]) -> list[int]:
    """`total` split in proportion to the weights, each share at most its weight; the last share takes the rest.

    Needs 0 ≤ total ≤ sum of the weights. Where the rest would not fit the last share, it runs over to those before.
    """
    whole = sum(weights)
    shares = [total * weight // whole if whole else 0 for weight in weights]
    rest = total - sum(shares)
    for position in range(len(weights) - 1, -1, -1):
        fitting = min(rest, weights[position] - shares[position])
        shares[position] += fitting
        rest -= fitting
    if rest:
        raise BillingInputError(f"cannot spread {total} over {whole}")
    return shares


def covers(coupon: Coupon, product: str | None) -> bool:
    """Whether the coupon applies to the product: to all of them without `applies_to`."""
    products = (coupon.get("applies_to") or {}).get("products")
    return not products or product in products


def wording(coupon: Coupon, currency: str) -> str:
    """The coupon as line descriptions word it: `35.0% off`, `$5.00 off`."""
    percent = coupon.get("percent_off")
    if percent is None:
        return f"{display_amount(Fraction(_amount_off(coupon, currency)), currency)} off"
    text = decimal_text(exact(percent))
    return f"{text}{'' if '.' in text else '.0'}% off"


def _apply(lines: list[Line], positions: Sequence[int], discount: Discount, *, on_item: bool) -> None:
    coupon = discount.coupon
    covered = [
        position
        for position in positions
        if lines[position].discountable
        and lines[position].discounted > 0
        and covers(coupon, lines[position].product)
    ]
    if not covered:
        return
    left = [lines[position].discounted for position in covered]
    if coupon.get("percent_off") is not None:
        taken = [_taken(coupon, amount, lines[covered[0]].currency) for amount in left]
    else:
        taken = spread(_taken(coupon, sum(left), lines[covered[0]].currency), left)
    for position, amount in zip(covered, taken, strict=True):
        entry = DiscountAmount(discount.id, amount, on_item)
        lines[position] = replace(
            lines[position], discount_amounts=(*lines[position].discount_amounts, entry)
        )


def _taken(coupon: Coupon, amount: int, currency: str) -> int:
    percent = coupon.get("percent_off")
    if percent is not None:
        return round_half_up(Fraction(amount) * exact(percent) / 100)
    return min(_amount_off(coupon, currency), amount)


def _amount_off(coupon: Coupon, currency: str) -> int:
    if coupon.get("currency") == currency and coupon.get("amount_off") is not None:
        return int(coupon["amount_off"])
    options: Mapping[str, Mapping[str, Any]] = coupon.get("currency_options") or {}
    if currency not in options:
        raise BillingInputError(f"coupon {coupon.get('id')} takes nothing off in {currency}")
    return int(options[currency]["amount_off"])
