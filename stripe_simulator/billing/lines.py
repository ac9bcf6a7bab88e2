"""Invoice lines as values: what an item bills for a period, and the form that Stripe gives a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

from stripe_simulator.billing.amounts import (
    Price,
    billed_units,
    exact_quantity_amount,
    is_metered,
    unit_amount,
    usage_amount,
    volume_tier,
)
from stripe_simulator.billing.money import BillingInputError, decimal_text, display_amount, round_half_up
from stripe_simulator.billing.periods import Cadence, Period


@dataclass(frozen=True, slots=True)
class Discount:
    """A redeemed coupon: the discount's id (`di_…`) and the coupon as plain data, `applies_to` expanded.

    `share` is one item's part, in minor units, of an amount off that several items share; None takes it whole.
    """

    id: str
    coupon: Mapping[str, Any]
    share: int | None = None


@dataclass(frozen=True, slots=True)
class DiscountAmount:
    """What one discount took off a line, in minor units, 0 or more; `on_item` when it sits on the item."""

    discount: str
    amount: int
    on_item: bool = False


@dataclass(frozen=True, slots=True)
class TaxAmount:
    """One tax rate's share of a line in minor units; negative on a credit. `percentage` is 19 for 19 %."""

    tax_rate: str
    amount: int
    inclusive: bool
    taxable_amount: int
    percentage: Decimal
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
class ItemState:
    """A subscription item as it stands before or after a change.

    `quantity` is None for a metered price. `discounts` are those that prorations of this item must reflect, the
    item's own first and then the subscription's.
    """

    subscription_item: str
    price: Price
    product_name: str
    quantity: int | None
    currency: str
    discounts: tuple[Discount, ...] = ()

    @property
    def cadence(self) -> Cadence:
        return Cadence.of(self.price)

    @property
    def product_id(self) -> str:
        product = self.price["product"]
        return str(product if isinstance(product, str) else product["id"])

    @property
    def full_amount(self) -> int:
        """Amount of a whole period before discounts, minor units. Raises BillingInputError without a quantity."""
        return round_half_up(self.exact_amount)

    @property
    def exact_amount(self) -> Fraction:
        """`full_amount` before it is rounded to minor units."""
        if self.quantity is None:
            raise BillingInputError(f"item {self.subscription_item} has no quantity")
        return exact_quantity_amount(self.price, self.quantity, self.currency)


@dataclass(frozen=True, slots=True)
class Line:
    """One invoice line; `amount` is before discounts and exclusive taxes, in minor units, negative for a credit.

    `key` is the id that the line will have once it stands on an invoice (`il_…`), also while it waits as an invoice
    item. `credits` are the keys of the lines that a credit gives money back for. A line of an invoice item made by hand
    has no subscription item, and no price unless one was named.
    """

    amount: int
    currency: str
    description: str
    period: Period
    quantity: int
    price: str | None
    product: str | None
    subscription_item: str | None
    proration: bool = False
    discountable: bool = True
    unit_amount_decimal: str | None = None
    discount_amounts: tuple[DiscountAmount, ...] = ()
    taxes: tuple[TaxAmount, ...] = ()
    key: str | None = None
    credits: tuple[str, ...] = ()

    @property
    def discounted(self) -> int:
        """Amount left after discounts."""
        return self.amount - sum(entry.amount for entry in self.discount_amounts)

    @property
    def exclusive_tax(self) -> int:
        return sum(tax.amount for tax in self.taxes if not tax.inclusive)

    @property
    def inclusive_tax(self) -> int:
        return sum(tax.amount for tax in self.taxes if tax.inclusive)

    def as_stripe(
        self,
        subscription: str | None,
        invoice_item: str | None = None,
        credited_items: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The line's fields as Stripe names them; `discounts`, `livemode`, `metadata` and ids are the caller's.

        A line that was collected from an invoice item names that item as its parent, any other its subscription item.
        """
        return {
            "amount": self.amount,
            "currency": self.currency,
            "description": self.description,
            "discount_amounts": [{"amount": d.amount, "discount": d.discount} for d in self.discount_amounts],
            "discountable": self.discountable,
            "object": "line_item",
            "parent": self._parent(subscription, invoice_item, credited_items),
            "period": {"end": self.period.end, "start": self.period.start},
            "pretax_credit_amounts": [
                {"amount": d.amount, "discount": d.discount, "type": "discount"}
                for d in self.discount_amounts
            ],
            "pricing": {
                "price_details": None
                if self.price is None
                else {"price": self.price, "product": self.product},
                "type": "price_details",
                "unit_amount_decimal": self.unit_amount_decimal,
            },
            "quantity": self.quantity,
            "quantity_decimal": str(self.quantity),
            "subscription": subscription,
            "subtotal": self.amount,
            "taxes": [tax.as_stripe() for tax in self.taxes],
        }

    def _parent(
        self, subscription: str | None, invoice_item: str | None, credited_items: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        details = {
            "invoice_item": invoice_item,
            "proration": self.proration,
            "proration_details": {"credited_items": credited_items},
            "subscription": subscription,
        }
        if invoice_item is not None:
            return {
                "invoice_item_details": details,
                "subscription_item_details": None,
                "type": "invoice_item_details",
            }
        return {
            "invoice_item_details": None,
            "subscription_item_details": {**details, "subscription_item": self.subscription_item},
            "type": "subscription_item_details",
        }


def item_line(
    item: ItemState, amount: int, description: str, period: Period, *, proration: bool = False
) -> Line:
    """A line of the item's price. Prorations are never discountable: their amounts already hold the discounts."""
    unit = unit_amount(item.price, item.currency)
    return Line(
        amount=amount,
        currency=item.currency,
        description=description,
        period=period,
        quantity=item.quantity or 0,
        price=item.price["id"],
        product=item.product_id,
        subscription_item=item.subscription_item,
        proration=proration,
        discountable=not proration,
        unit_amount_decimal=None if unit is None else decimal_text(unit),
    )


def period_line(item: ItemState, period: Period) -> Line:
    """The ordinary line of a licensed item for a full period, billed ahead."""
    description = f"{item.quantity} × {item.product_name} ({_rate(item, item.quantity or 0)})"
    return item_line(item, item.full_amount, description, period)


def usage_line(item: ItemState, usage: int, period: Period) -> Line:
    """The line of a metered item for the period that has ended; `usage` is that period's total."""
    if not is_metered(item.price):
        raise BillingInputError(f"item {item.subscription_item} is not metered")
    amount = usage_amount(item.price, usage, item.currency)
    line = item_line(item, amount, f"{usage} × {item.product_name} ({_rate(item, usage)})", period)
    return replace(line, quantity=usage)


def trial_line(item: ItemState, period: Period) -> Line:
    """The zero line that a trial puts on the first invoice in classic mode."""
    return item_line(item, 0, f"Trial period for {item.product_name}", period)


def free_line(item: ItemState, period: Period) -> Line:
    """The zero line of an item in a trial in flexible mode."""
    return item_line(item, 0, f"Free trial for {item.quantity} × {item.product_name}", period)


def _rate(item: ItemState, quantity: int) -> str:
    price, currency = item.price, item.currency
    every = _every(item.cadence)
    unit = unit_amount(price, currency)
    if unit is not None:
        transform = price.get("transform_quantity")
        per = f" per {transform['divide_by']}" if transform else ""
        return f"at {display_amount(unit, currency)}{per} / {every}"
    if price.get("tiers_mode") == "graduated":
        return f"tiered pricing / {every}"
    number, tier_unit = volume_tier(price, billed_units(price, quantity), currency)
    return f"Tier {number} at {display_amount(tier_unit, currency)} / {every}"


def _every(cadence: Cadence) -> str:
    if cadence.interval_count == 1:
        return cadence.interval
    return f"every {cadence.interval_count} {cadence.interval}s"
