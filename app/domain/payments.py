"""Describe the costs of a change, the payment step that remains after it, and promotion codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from app.domain.credits import BilledLine
from app.domain.ids import CustomerId, PaymentMethodId
from app.domain.snapshots import JsonObject


@dataclass(frozen=True, slots=True)
class PaymentStep:
    """The step that the payer still has to take.

    `kind` is `payment` for an open invoice, or `setup` for a payment method if nothing is due yet. `status` is that of
    Stripe's intent: requires_payment_method, requires_action, processing, and so on. An invoice without an intent, such
    as one that was sent by e-mail, has neither `status` nor `client_secret`. `payment_method_id` is the payment method
    that the intent or its last failure names. `decline_code` is the code of that failure. `hosted_invoice_url` is
    Stripe's page for the open invoice.
    """

    status: str | None
    client_secret: str | None
    kind: str
    payment_method_id: str | None = None
    decline_code: str | None = None
    hosted_invoice_url: str | None = None

    @property
    def is_declined(self) -> bool:
        """Return True if the last payment failed.

        Some decline codes are not shown; the payment method of the failure still is.
        """
        failed = self.status == "requires_payment_method" and self.payment_method_id is not None
        return failed or self.decline_code is not None

    def without_the_payers_own(self) -> PaymentStep:
        """Return the step without payment method and invoice link, for a manager who buys seats for a payer."""
        return replace(self, payment_method_id=None, hosted_invoice_url=None)


@dataclass(frozen=True, slots=True)
class PurchaseInvoice:
    """The invoice that a purchase waits for, as Stripe has it at Unix second `at`.

    `payment` is what is left to pay; None once the invoice is not open. `paid_at`: Unix seconds. `is_processing`: one
    of its payments is being processed, also if the invoice was marked uncollectible.
    """

    id: str
    status: str
    payment: PaymentStep | None
    paid_at: int | None
    at: int
    is_processing: bool = False

    @property
    def can_be_voided(self) -> bool:
        """Return True if the invoice may be voided: no money for it is on its way."""
        return self.status in ("open", "uncollectible") and not self.is_processing


@dataclass(frozen=True, slots=True)
class Costs:
    """The amounts of an invoice preview, in minor units of `currency`.

    `credit` is positive. `starting_balance` is the customer's balance before the invoice. `tax` includes inclusive
    taxes. `billed` are the lines before tax. `line_totals` is what each line adds to the total, by line id. `spent` are
    the ids of the discounts that only this invoice uses, and of their coupons and promotion codes.
    """

    currency: str
    total: int
    amount_due: int
    credit: int
    lines: list[JsonObject]
    tax: int = 0
    starting_balance: int = 0
    billed: Sequence[BilledLine] = ()
    spent: frozenset[str] = frozenset()
    line_totals: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Named:
    """What a change names and only Stripe knows.

    `may_add_codes`: the code may be added beside another one that applies.
    """

    payment_method_id: PaymentMethodId | None = None
    promotion_code: str | None = None
    may_add_codes: bool = False

    @property
    def is_empty(self) -> bool:
        """Return True if it names neither a payment method nor a code."""
        return self.payment_method_id is None and self.promotion_code is None


@dataclass(frozen=True, slots=True)
class PromotionCode:
    """A promotion code with the terms of its coupon.

    Either `percent_off` (0 to 100) or `amount_off` (minor units of `currency`) is set. `active` is False also if the
    coupon is no longer valid. If `customer_id` is set, only that customer may use the code. `used_up` is True if the
    code or its coupon has reached its maximum of redemptions. `currencies` are those in which `amount_off` is defined.
    `minimum_amount` is in minor units of `minimum_amount_currency`. `expires_at` is the earlier end of code and coupon,
    in Unix seconds.
    """

    id: str
    code: str
    active: bool
    customer_id: CustomerId | None
    used_up: bool
    first_time_transaction: bool
    minimum_amount: int | None
    minimum_amount_currency: str | None
    currencies: frozenset[str]
    percent_off: float | None
    amount_off: int | None
    currency: str | None
    duration: str
    duration_in_months: int | None
    expires_at: int | None
