"""Changing the number of seats, as a change of one item's quantity.

It needs the permission to buy seats.
"""

from __future__ import annotations

from dataclasses import replace

from app.domain.ids import SubscriptionItemId
from app.domain.roles import Permission
from app.domain.seats import SeatItem, purchase_item, total_seats
from app.domain.views import SubscriptionView
from app.errors import FieldError, InvalidRequest
from app.subscriptions.item_changes import ItemChange
from app.subscriptions.updates import MoneyTerms, SeatTotal, SubscriptionUpdate


def seats_update(
    item: SeatItem,
    quantity: int,
    quote_id: str | None,
    proration_behavior: str | None,
    *,
    forgo_credit: bool = False,
) -> SubscriptionUpdate:
    """Return the change that sets an item's quantity.

    Seats are quoted and bought in this one form, so that a quote fits each route that uses it.
    """
    change = _purchase(quote_id, proration_behavior, forgo_credit=forgo_credit)
    return replace(change, items=[ItemChange("/total", id=item.id, quantity=quantity)])


def total_update(
    total: int,
    *,
    item_id: SubscriptionItemId | None,
    quote_id: str | None,
    proration_behavior: str | None,
    forgo_credit: bool = False,
) -> SubscriptionUpdate:
    """Return the change that brings the seats of a subscription to `total`.

    `item_id`: the item whose quantity changes, if several items give seats.
    """
    change = _purchase(quote_id, proration_behavior, forgo_credit=forgo_credit)
    return replace(change, seats=SeatTotal(total, item_id))


def _purchase(
    quote_id: str | None, proration_behavior: str | None, *, forgo_credit: bool
) -> SubscriptionUpdate:
    return SubscriptionUpdate(
        items=(),
        payment_method_id=None,
        promotion_code=None,
        cancel_at_period_end=None,
        quote_id=quote_id,
        terms=MoneyTerms(proration_behavior=proration_behavior),
        permission=Permission.BUY_SEATS,
        forgo_credit=forgo_credit,
    )


def computed(change: SubscriptionUpdate, view: SubscriptionView) -> SubscriptionUpdate:
    """Return a change with the quantity that gives the seats it asks for, by what the subscription has now.

    Raises:
        Conflict: `not_shareable`.
        InvalidRequest: `seat_item_ambiguous`, or the other items give more seats than that.
    """
    if change.seats is None:
        return change
    items = view.seat_items()
    item = purchase_item(items, change.seats.item_id)
    quantity = (item.quantity or 0) + change.seats.total - total_seats(items)
    if quantity < 1:
        detail = "The other items alone give more seats than that."
        raise InvalidRequest(detail, errors=[FieldError("/total", "too_small", detail)])
    return seats_update(
        item, quantity, change.quote_id, change.terms.proration_behavior, forgo_credit=change.forgo_credit
    )
