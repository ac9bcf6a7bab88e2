"""Money as callers see it before and after a change: the payment step that is left to them, and what a change costs."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.snapshots import JsonObject


@dataclass(frozen=True, slots=True)
class PaymentStep:
    """What the caller's browser still has to do. `kind`: payment, or setup where nothing is due yet.

    `status` is that of Stripe's intent: requires_payment_method, requires_confirmation or requires_action.
    """

    status: str
    client_secret: str
    kind: str


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
