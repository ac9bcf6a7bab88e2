"""How a purchase that waits for its payment ends, judged by its own invoice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from app.domain.payments import PurchaseInvoice
from app.operations.lifecycle import Event

PAYMENT_ABANDONED: Final = "payment_abandoned"
PAYMENT_ACTION_REQUIRED: Final = "payment_action_required"
UPDATE_EXPIRED: Final = "update_expired"
PAID_WITHOUT_EFFECT: Final = "paid_without_effect"

PAID_WITHOUT_EFFECT_SECONDS: Final = 60
"""The time for which a paid invoice may precede its effect and the events of it."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a purchase that waited has ended: the event of its step, and the code that is reported."""

    event: Event
    code: str | None = None


def ending_of(
    invoice: PurchaseInvoice,
    *,
    is_held: bool,
    has_shown: bool,
    ended_as: str | None,
    expires_at: int | None,
) -> Ending | None:
    """Return how the purchase has ended, or None while it waits.

    Only the invoice proves success: anybody can edit a quantity.

    Args:
        invoice: the one whose id was kept when Stripe accepted the change.
        is_held: Stripe still holds the change back until that invoice is paid.
        has_shown: the subscription shows the change, or an event of it did.
        ended_as: the code of an end that was asked for, or of the payment window; None if nobody asked for one.
        expires_at: the second in which Stripe drops the change by itself.
    """
    if invoice.status == "paid":
        if has_shown:
            return Ending(Event.INVOICE_PAID)
        paid_at = invoice.at if invoice.paid_at is None else invoice.paid_at
        if is_held or invoice.at - paid_at < PAID_WITHOUT_EFFECT_SECONDS:
            return None
        return Ending(Event.PAID_WITHOUT_EFFECT, PAID_WITHOUT_EFFECT)
    is_gone = invoice.status == "void" or (invoice.status == "uncollectible" and not is_held)
    if not is_gone:
        return None
    has_expired = expires_at is not None and invoice.at >= expires_at
    return Ending(Event.PAYMENT_ENDED, ended_as or (UPDATE_EXPIRED if has_expired else PAYMENT_ABANDONED))
