"""Changes of a subscription as a caller asked for them, not judged yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.domain.ids import PaymentMethodId, SubscriptionItemId
from app.domain.roles import Permission
from app.domain.snapshots import JsonObject
from app.domain.views import SubscriptionView
from app.subscriptions.item_changes import ItemChange


@dataclass(frozen=True, slots=True)
class MoneyTerms:
    """What only an admin's key may set.

    Instants are Unix seconds; `trial_end` may be "now".
    """

    discounts: Sequence[JsonObject] | None = None
    default_tax_rates: Sequence[str] | None = None
    trial_end: int | str | None = None
    trial_period_days: int | None = None
    billing_mode: str | None = None
    proration_behavior: str | None = None
    proration_date: int | None = None


@dataclass(frozen=True, slots=True)
class SeatTotal:
    """So many seats are wanted. `item_id`: the item whose quantity changes, if several items give seats."""

    total: int
    item_id: SubscriptionItemId | None = None


@dataclass(frozen=True, slots=True)
class SubscriptionUpdate:
    """A change as it was asked for.

    `items`: empty if none change. `seats`: the quantity of an item is computed by them, when the change is admitted.
    `quote_id`: carry out what was quoted, at the quote's date. `forgo_credit`: make a
    reduction without the credit of what was not paid.
    """

    items: Sequence[ItemChange]
    payment_method_id: PaymentMethodId | None
    promotion_code: str | None
    cancel_at_period_end: bool | None
    quote_id: str | None
    terms: MoneyTerms
    permission: Permission = Permission.CHANGE_SUBSCRIPTION
    forgo_credit: bool = False
    seats: SeatTotal | None = None


def price_ids(items: Sequence[ItemChange], view: SubscriptionView | None = None) -> list[str]:
    """Return the prices that the entries name, and those of the present items."""
    named = [str(item.price_id) for item in items if item.price_id is not None]
    return named + ([] if view is None else [str(item["price"]["id"]) for item in view.items])
