"""Tax rates on invoice lines; the base is what discounts left, and every rate is rounded on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

from stripe_simulator.billing.lines import Line, TaxAmount
from stripe_simulator.billing.money import BillingInputError, exact, round_half_up

TaxRate = Mapping[str, Any]


def apply_taxes(
    lines: Sequence[Line],
    *,
    default_rates: Sequence[TaxRate] = (),
    item_rates: Mapping[str, Sequence[TaxRate]] | None = None,
    exempt: str | None = None,
) -> tuple[Line, ...]:
    """The lines with their `taxes`. An item's own rates replace the subscription's default rates; none keeps them.

    `exempt` is Stripe's word for why the customer pays no tax (None: they do): then every tax is 0 for that reason.
    Raises BillingInputError for a rate that is not a percentage.
    """
    own = item_rates or {}
    return tuple(
        replace(
            line,
            taxes=line_taxes(line.discounted, own.get(line.subscription_item or "") or default_rates, exempt),
        )
        for line in lines
    )


def line_taxes(amount: int, rates: Sequence[TaxRate], exempt: str | None = None) -> tuple[TaxAmount, ...]:
    """Taxes of one amount after discounts, in the order of the rates.

    Inclusive rates share the part of the amount that is tax; exclusive ones come on top of the rest.
    """
    if exempt is not None:
        return tuple(
            TaxAmount(rate["id"], 0, bool(rate["inclusive"]), amount, Decimal(0), exempt) for rate in rates
        )
    inclusive = sum((_percentage(rate) for rate in rates if rate["inclusive"]), Fraction(0))
    amounts = [
        round_half_up(amount * _percentage(rate) / (100 + inclusive)) if rate["inclusive"] else 0
        for rate in rates
    ]
    base = amount - sum(amounts)
    return tuple(
        TaxAmount(
            tax_rate=rate["id"],
            amount=included if rate["inclusive"] else round_half_up(base * _percentage(rate) / 100),
            inclusive=bool(rate["inclusive"]),
            taxable_amount=base,
            percentage=Decimal(str(rate["percentage"])),
        )
        for rate, included in zip(rates, amounts, strict=True)
    )


def without_inclusive(amount: int, taxes: Sequence[TaxAmount]) -> int:
    """Another amount of the same line without its inclusive taxes, each rounded on its own."""
    included = [Fraction(tax.percentage) for tax in taxes if tax.inclusive]
    whole = 100 + sum(included, Fraction(0))
    return amount - sum(round_half_up(amount * percentage / whole) for percentage in included)


def _percentage(rate: TaxRate) -> Fraction:
    if rate.get("rate_type") == "flat_amount" or rate.get("percentage") is None:
        raise BillingInputError(f"tax rate {rate.get('id')} is not a percentage")
    return exact(rate["percentage"])
