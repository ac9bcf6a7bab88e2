"""What a price costs for a quantity or a reported usage, in minor units, before discounts and taxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from stripe_simulator.billing.money import BillingInputError, exact, round_half_up

Price = Mapping[str, Any]
"""A Stripe price as plain data, with `tiers` and `currency_options` expanded where it has them."""


def is_metered(price: Price) -> bool:
    """Whether the price bills reported usage at the end of the period instead of a quantity ahead."""
    return (price.get("recurring") or {}).get("usage_type") == "metered"


def unit_amount(price: Price, currency: str | None = None) -> Fraction | None:
    """Exact amount of one unit in minor units, or of one package; None for a tiered price."""
    if price.get("billing_scheme") == "tiered":
        return None
    return _either(_in_currency(price, currency), "unit_amount")


def billed_units(price: Price, quantity: int | Decimal) -> Fraction:
    """Units that are charged for a quantity of 0 or more: packages where the price has `transform_quantity`."""
    units = exact(quantity)
    if units < 0:
        raise BillingInputError(f"quantity must not be negative: {quantity}")
    transform = price.get("transform_quantity")
    if not transform:
        return units
    if price.get("billing_scheme") == "tiered":
        raise BillingInputError("transform_quantity does not go with tiers")
    packages = units / int(transform["divide_by"])
    whole = packages.numerator // packages.denominator
    if transform["round"] == "up" and packages.denominator != 1:
        whole += 1
    return Fraction(whole)


def quantity_amount(price: Price, quantity: int, currency: str | None = None) -> int:
    """Amount of a full period for a licensed quantity; `currency` defaults to the price's own.

    Raises BillingInputError for a metered price or a currency that the price does not have.
    """
    return round_half_up(exact_quantity_amount(price, quantity, currency))


def exact_quantity_amount(price: Price, quantity: int, currency: str | None = None) -> Fraction:
    """`quantity_amount` before it is rounded: a proration is rounded once, after its share was taken."""
    if is_metered(price):
        raise BillingInputError(f"price {price.get('id')} is metered: it takes usage, not a quantity")
    return _amount(price, quantity, currency)


def usage_amount(price: Price, usage: int | Decimal, currency: str | None = None) -> int:
    """Amount of the usage reported over one whole period; packages are formed from the period's total."""
    if not is_metered(price):
        raise BillingInputError(f"price {price.get('id')} is licensed: it takes a quantity, not usage")
    return round_half_up(_amount(price, usage, currency))


def volume_tier(price: Price, units: Fraction, currency: str | None = None) -> tuple[int, Fraction]:
    """Number (from 1) and exact unit amount of the tier that a volume-priced quantity falls into."""
    tiers = _tiers(price, currency)
    number = _volume_index(tiers, units)
    return number + 1, _either(tiers[number], "unit_amount")


def _amount(price: Price, quantity: int | Decimal, currency: str | None) -> Fraction:
    units = billed_units(price, quantity)
    if price.get("billing_scheme") == "tiered":
        tiered = _graduated if price.get("tiers_mode") == "graduated" else _volume
        return tiered(_tiers(price, currency), units)
    # Decimal unit amounts are multiplied first; only the line is rounded (Stripe's documentation, "Decimal amounts").
    return units * _either(_in_currency(price, currency), "unit_amount")


def _graduated(tiers: Sequence[Mapping[str, Any]], units: Fraction) -> Fraction:
    # The first tier's flat amount is due for no units at all, later ones once the tier is entered.
    total, lower = Fraction(0), Fraction(0)
    for position, tier in enumerate(tiers):
        if position > 0 and units <= lower:
            return total
        upper = _upper(tier)
        within = units - lower if upper is None else min(units, upper) - lower
        total += _either(tier, "flat_amount") + within * _either(tier, "unit_amount")
        if upper is None:
            return total
        lower = upper
    if units > lower:
        raise BillingInputError(f"no tier covers {units} units")
    return total


def _volume(tiers: Sequence[Mapping[str, Any]], units: Fraction) -> Fraction:
    tier = tiers[_volume_index(tiers, units)]
    return _either(tier, "flat_amount") + units * _either(tier, "unit_amount")


def _volume_index(tiers: Sequence[Mapping[str, Any]], units: Fraction) -> int:
    for position, tier in enumerate(tiers):
        upper = _upper(tier)
        if upper is None or units <= upper:
            return position
    raise BillingInputError(f"no tier covers {units} units")


def _tiers(price: Price, currency: str | None) -> Sequence[Mapping[str, Any]]:
    tiers: Sequence[Mapping[str, Any]] | None = _in_currency(price, currency).get("tiers")
    if not tiers:
        raise BillingInputError(f"price {price.get('id')} comes without its tiers: expand them")
    return tiers


def _upper(tier: Mapping[str, Any]) -> Fraction | None:
    # Requests spell the last tier "inf", responses null.
    up_to = tier.get("up_to")
    return None if up_to is None or up_to == "inf" else exact(up_to)


def _either(terms: Mapping[str, Any], name: str) -> Fraction:
    value = terms.get(f"{name}_decimal")
    if value is None:
        value = terms.get(name)
    return Fraction(0) if value is None else exact(value)


def _in_currency(price: Price, currency: str | None) -> Mapping[str, Any]:
    if currency is None or currency == price.get("currency"):
        return price
    options: Mapping[str, Mapping[str, Any]] = price.get("currency_options") or {}
    if currency not in options:
        raise BillingInputError(f"price {price.get('id')} has no amount in {currency}")
    return options[currency]
