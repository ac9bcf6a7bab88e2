"""An invoice's totals, and what the customer balance and the minimum charge make of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stripe_simulator.billing.lines import Line
from stripe_simulator.billing.money import BillingInputError, minimum_charge
from stripe_simulator.billing.taxes import without_inclusive


@dataclass(frozen=True, slots=True)
class TotalDiscount:
    discount: str
    amount: int


@dataclass(frozen=True, slots=True)
class TotalTax:
    tax_rate: str
    amount: int
    inclusive: bool
    taxable_amount: int
    reason: str = "not_available"

    def as_stripe(self) -> dict[str, Any]:
        return {
            "amount": self.amount,
            "tax_behavior": "inclusive" if self.inclusive else "exclusive",
            "tax_rate_details": {"tax_rate": self.tax_rate},
            "taxability_reason": self.reason,
            "taxable_amount": self.taxable_amount,
            "type": "tax_rate_details",
        }


@dataclass(frozen=True, slots=True)
class InvoiceTotals:
    """All amounts in minor units. A balance below 0 is credit of the customer, above 0 a debt.

    `subtotal` already holds the items' discounts, not those of the subscription (so Stripe's reference words it).
    `carried_to_balance` is set when the amount is too small to charge: the invoice counts as paid.
    """

    lines: tuple[Line, ...]
    currency: str
    subtotal: int
    subtotal_excluding_tax: int
    total_discount_amounts: tuple[TotalDiscount, ...]
    total_excluding_tax: int
    total_taxes: tuple[TotalTax, ...]
    total: int
    starting_balance: int
    amount_due: int
    ending_balance: int
    carried_to_balance: bool

    def as_stripe(self) -> dict[str, Any]:
        """The totals as Stripe names them; `lines` and everything that is no amount are the caller's."""
        return {
            "amount_due": self.amount_due,
            "currency": self.currency,
            "ending_balance": self.ending_balance,
            "starting_balance": self.starting_balance,
            "subtotal": self.subtotal,
            "subtotal_excluding_tax": self.subtotal_excluding_tax,
            "total": self.total,
            "total_discount_amounts": [
                {"amount": entry.amount, "discount": entry.discount} for entry in self.total_discount_amounts
            ],
            "total_excluding_tax": self.total_excluding_tax,
            "total_pretax_credit_amounts": [
                {"amount": entry.amount, "discount": entry.discount, "type": "discount"}
                for entry in self.total_discount_amounts
            ],
            "total_taxes": [tax.as_stripe() for tax in self.total_taxes],
        }


def compose_invoice(lines: Iterable[Line], *, currency: str, starting_balance: int = 0) -> InvoiceTotals:
    """Totals of lines that carry their discounts and taxes already.

    A negative total becomes credit and nothing is due, even where the customer still owes. Otherwise the balance is
    settled with the invoice: credit lowers what is due, debt raises it, and a sum below the currency's minimum
    charge is left on the balance (Stripe's documentation, "Customer invoice balance").
    Raises BillingInputError when a line has another currency.
    """
    own = tuple(lines)
    if any(line.currency != currency for line in own):
        raise BillingInputError(f"an invoice in {currency} takes no line in another currency")
    item_net = [line.amount - sum(d.amount for d in line.discount_amounts if d.on_item) for line in own]
    total = sum(line.discounted + line.exclusive_tax for line in own)
    amount_due, ending_balance, carried = settle(total, starting_balance, currency)
    return InvoiceTotals(
        lines=own,
        currency=currency,
        subtotal=sum(item_net),
        subtotal_excluding_tax=sum(
            without_inclusive(amount, line.taxes) for amount, line in zip(item_net, own, strict=True)
        ),
        total_discount_amounts=_discount_totals(own),
        total_excluding_tax=sum(line.discounted - line.inclusive_tax for line in own),
        total_taxes=_tax_totals(own),
        total=total,
        starting_balance=starting_balance,
        amount_due=amount_due,
        ending_balance=ending_balance,
        carried_to_balance=carried,
    )


def settle(total: int, balance: int, currency: str) -> tuple[int, int, bool]:
    """Amount due, balance afterwards, and whether the sum was too small to charge."""
    due = total + balance
    if total < 0 or due <= 0:
        return 0, due, False
    if due < minimum_charge(currency):
        return 0, due, True
    return due, 0, False


def _discount_totals(lines: Sequence[Line]) -> tuple[TotalDiscount, ...]:
    sums: dict[str, int] = {}
    for entry in (entry for line in lines for entry in line.discount_amounts):
        sums[entry.discount] = sums.get(entry.discount, 0) + entry.amount
    return tuple(TotalDiscount(discount, amount) for discount, amount in sums.items())


def _tax_totals(lines: Sequence[Line]) -> tuple[TotalTax, ...]:
    sums: dict[tuple[str, bool, str], tuple[int, int]] = {}
    for tax in (tax for line in lines for tax in line.taxes):
        key = (tax.tax_rate, tax.inclusive, tax.reason)
        amount, base = sums.get(key, (0, 0))
        sums[key] = (amount + tax.amount, base + tax.taxable_amount)
    return tuple(
        TotalTax(rate, amount, inclusive, base, reason)
        for (rate, inclusive, reason), (amount, base) in sums.items()
    )
