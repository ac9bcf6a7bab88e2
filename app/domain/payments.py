"""Money as callers see it before and after a change: the payment step that is left to them, and what a change costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from app.domain.credits import BilledLine
from app.domain.ids import CustomerId
from app.domain.snapshots import JsonObject


@dataclass(frozen=True, slots=True)
class PaymentStep:
    """What is left to pay or to set up. `kind`: payment of an open invoice, or setup if nothing is due yet.

    `status` is the status of Stripe's intent, as Stripe has it (requires_payment_method, requires_action, processing,
    ...). `status` and `client_secret` are None for an invoice without an intent, such as one that was sent by e-mail.
    `payment_method_id` is the payment method that the intent names, or the one that its last failure names;
    `decline_code` is the code of that failure. `hosted_invoice_url` is Stripe's own page for the open invoice.
    """

    status: str | None
    client_secret: str | None
    kind: str
    payment_method_id: str | None = None
    decline_code: str | None = None
    hosted_invoice_url: str | None = None

    @property
    def is_declined(self) -> bool:
        """True if the last attempt failed. Some reasons are not shown; then the failed payment method still is."""
        failed = self.status == "requires_payment_method" and self.payment_method_id is not None
        return failed or self.decline_code is not None

    def without_the_payers_own(self) -> PaymentStep:
        """Return what a manager may see, who buys seats for a payer: neither payment method nor invoice link."""
        return replace(self, payment_method_id=None, hosted_invoice_url=None)


@dataclass(frozen=True, slots=True)
class PurchaseInvoice:
    """The invoice that a purchase waits for, as Stripe has it at Unix second `at`.

    `payment` is what is left to pay; None once the invoice is not open. `paid_at`: Unix seconds.
    """

    id: str
    status: str
    payment: PaymentStep | None
    paid_at: int | None
    at: int

    @property
    def is_processing(self) -> bool:
        """True if a payment is on its way: nobody may void the invoice then."""
        return self.payment is not None and self.payment.status == "processing"

    @property
    def can_be_voided(self) -> bool:
        return self.status in ("open", "uncollectible") and not self.is_processing


@dataclass(frozen=True, slots=True)
class Costs:
    """What an invoice preview says. Amounts in minor units of `currency`, credits positive in `credit`.

    `starting_balance` is the customer's balance that it is set off against. `tax` includes inclusive taxes.
    `billed` are the lines before tax; `line_totals` what each adds to the total.
    `spent`: the ids of discounts that count for one invoice and are used up by this one, of their coupons and codes.
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
class PromotionCode:
    """`percent_off` is a percentage, `amount_off` minor units of `currency`; one of them is set.

    `active` is false too if the coupon behind it is not valid any more. `customer_id`: the only one who may use it.
    `used_up`: code or coupon were redeemed as often as they may be. `currencies`: those in which an `amount_off` is
    defined, empty for a percentage. `minimum_amount` is in minor units of `minimum_amount_currency`.
    `expires_at` (Unix seconds) is the code's or the coupon's end, whichever is first.
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
