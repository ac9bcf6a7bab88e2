"""The discounts of a subscription. Pure.

Which promotion codes still apply, and which code a customer may use. A discount's detail has the members `id`,
`promotion_code_id`, `promotion_code` (the code's text), `name`, `percent_off`, `amount_off` (minor units of
`currency`), `currency`, `duration`, `start` and `ends_at` (Unix seconds).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.domain.ids import CustomerId
from app.domain.payments import PromotionCode
from app.domain.snapshots import JsonObject


@dataclass(frozen=True, slots=True)
class AppliedCode:
    """A promotion code that applies to a subscription.

    `ends_at` is in Unix seconds, None if it has no end.
    """

    discount_id: str
    promotion_code_id: str
    text: str
    ends_at: int | None

    def is_called(self, text: str) -> bool:
        """Compare as Stripe does, without regard to case."""
        return self.text.casefold() == text.casefold()


def applied_codes(
    details: Sequence[JsonObject] | None, *, at: int, invoiced_at: int | None
) -> list[AppliedCode]:
    """Return the promotion codes that still apply at `at` (Unix seconds).

    A coupon that an operator applied has no code and is left out. `invoiced_at`: when the subscription's last invoice
    was made, which used up the discounts of duration `once` that were older.
    """
    return [
        AppliedCode(
            detail["id"], detail["promotion_code_id"], detail["promotion_code"] or "", detail["ends_at"]
        )
        for detail in details or ()
        if detail["promotion_code_id"] is not None and not _is_over(detail, at, invoiced_at)
    ]


def _is_over(detail: JsonObject, at: int, invoiced_at: int | None) -> bool:
    if detail["ends_at"] is not None and detail["ends_at"] <= at:
        return True
    started = detail["start"]
    return detail["duration"] == "once" and None not in (invoiced_at, started) and invoiced_at > started


def is_redeemable(code: PromotionCode, customer_id: CustomerId | None, *, at: int, has_paid: bool) -> bool:
    """Return True if this customer may use the code at `at` (Unix seconds).

    `has_paid`: an invoice of the customer was paid before. Stripe alone judges a minimum amount, at the purchase.
    """
    if not code.active or code.customer_id not in (None, customer_id):
        return False
    if code.expires_at is not None and code.expires_at <= at:
        return False
    return not code.used_up and not (code.first_time_transaction and has_paid)
