"""Money as callers see it before and after a change: the payment step that is left to them, and what a change costs."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Costs:
    """What an invoice preview says. Amounts in minor units of `currency`, credits positive in `credit`."""

    currency: str
    total: int
    amount_due: int
    credit: int
    lines: list[JsonObject]
    proration_date: int | None


@dataclass(frozen=True, slots=True)
class PromotionCode:
    """`percent_off` is a percentage, `amount_off` minor units of `currency`; one of them is set."""

    id: str
    code: str
    active: bool
    percent_off: float | None
    amount_off: int | None
    currency: str | None
    duration: str
    duration_in_months: int | None
    expires_at: int | None
