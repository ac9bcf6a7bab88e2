"""Coupons on invoice lines: item discounts first, then the subscription's, each on what the one before left.

Whether a discount still runs (once, repeating, forever) is the caller's to judge; `discount_end` gives the moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from stripe_simulator.billing.lines import Discount, DiscountAmount, ItemState, Line
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
    evenly: bool = False,
) -> tuple[Line, ...]:
    """The lines with their `discount_amounts`; lines that are credits, zero or prorations stay as they are.

    Stacked discounts work in the order given, each on what is left, and no line goes below zero. `item_discounts`
    is keyed by subscription item. An amount off is shared out in proportion to the lines, or `evenly`.
    Raises BillingInputError for an amount_off without the lines' currency.
    """
    result = list(lines)
    for item, discounts in (item_discounts or {}).items():
        own = [position for position, line in enumerate(lines) if line.subscription_item == item]
        for discount in discounts:
            _apply(result, own, discount, on_item=True, evenly=evenly)
    for discount in subscription_discounts:
        _apply(result, range(len(result)), discount, on_item=False, evenly=evenly)
    return tuple(result)


def net_amount(amount: int, product: str, currency: str, discounts: Sequence[Discount]) -> int:
    """A single amount after the discounts, in minor units, each discount rounded as on an invoice line."""
    for discount in discounts:
        if covers(discount.coupon, product):
            amount -= _taken(discount, amount, currency)
    return amount


def exact_net(amount: Fraction, product: str, currency: str, discounts: Sequence[Discount]) -> Fraction:
    """A single amount after the discounts, unrounded, as prorations take it."""
    for discount in discounts:
        if covers(discount.coupon, product):
            amount -= _off(discount, amount, currency)
    return amount


def share_discounts(
    items: Sequence[ItemState], discounts: Sequence[Discount], *, evenly: bool
) -> dict[str, tuple[Discount, ...]]:
    """Each item's part in a subscription's discounts, keyed by subscription item.

    An amount off is one sum for the whole subscription, so each licensed item that the coupon covers takes a share.
    """
    own: dict[str, tuple[Discount, ...]] = {item.subscription_item: () for item in items}
    licensed = [item for item in items if item.quantity is not None]
    left = {
        item.subscription_item: exact_net(item.exact_amount, item.product_id, item.currency, item.discounts)
        for item in licensed
    }
    for discount in discounts:
        parts: dict[str, Discount] = {}
        if discount.coupon.get("percent_off") is None:
            covered = [item for item in licensed if covers(discount.coupon, item.product_id)]
            weights = [round_half_up(left[item.subscription_item]) for item in covered]
            currency = covered[0].currency if covered else ""
            taken = min(_amount_off(discount.coupon, currency), sum(weights)) if covered else 0
            shares = _spread_evenly(taken, weights) if evenly else spread(taken, weights)
            parts = {
                item.subscription_item: replace(discount, share=share)
                for item, share in zip(covered, shares, strict=True)
            }
        for item in items:
            part = parts.get(item.subscription_item, discount)
            own[item.subscription_item] = (*own[item.subscription_item], part)
        for item in licensed:
            key = item.subscription_item
            left[key] = exact_net(left[key], item.product_id, item.currency, own[key][-1:])
    return own


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


def _spread_evenly(total: int, weights: Sequence[int]) -> list[int]:
    """`total` split into equal shares, each at most its weight; what a small weight cannot take goes to the others."""
    shares = [0] * len(weights)
    rest = total
    while rest:
        open_ = [position for position, weight in enumerate(weights) if shares[position] < weight]
        each, extra = divmod(rest, len(open_))
        for number, position in enumerate(open_):
            part = min(each + (number < extra), weights[position] - shares[position])
            shares[position] += part
            rest -= part
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


def _apply(
    lines: list[Line], positions: Sequence[int], discount: Discount, *, on_item: bool, evenly: bool
) -> None:
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
        taken = [_taken(discount, amount, lines[covered[0]].currency) for amount in left]
    else:
        whole = _taken(discount, sum(left), lines[covered[0]].currency)
        taken = _spread_evenly(whole, left) if evenly else spread(whole, left)
    for position, amount in zip(covered, taken, strict=True):
        entry = DiscountAmount(discount.id, amount, on_item)
        lines[position] = replace(
            lines[position], discount_amounts=(*lines[position].discount_amounts, entry)
        )


def _taken(discount: Discount, amount: int, currency: str) -> int:
    return round_half_up(_off(discount, Fraction(amount), currency))


def _off(discount: Discount, amount: Fraction, currency: str) -> Fraction:
    percent = discount.coupon.get("percent_off")
    if percent is not None:
        return amount * exact(percent) / 100
    whole = _amount_off(discount.coupon, currency) if discount.share is None else discount.share
    return min(Fraction(whole), amount)


def _amount_off(coupon: Coupon, currency: str) -> int:
    if coupon.get("currency") == currency and coupon.get("amount_off") is not None:
        return int(coupon["amount_off"])
    options: Mapping[str, Mapping[str, Any]] = coupon.get("currency_options") or {}
    if currency not in options:
        raise BillingInputError(f"coupon {coupon.get('id')} takes nothing off in {currency}")
    return int(options[currency]["amount_off"])
