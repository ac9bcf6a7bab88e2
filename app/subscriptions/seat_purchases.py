"""Changing the number of seats, as a change of one item's quantity.

It needs the permission to buy seats.
"""

from __future__ import annotations

from app.context import Context
from app.domain.ids import SubscriptionId, SubscriptionItemId
from app.domain.roles import Permission
from app.domain.seats import SeatItem, purchase_item, total_seats
from app.errors import FieldError, InvalidRequest
from app.identity.actors import Actor
from app.mirror.visibility import get
from app.subscriptions.item_changes import ItemChange
from app.subscriptions.updates import MoneyTerms, SubscriptionUpdate


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
    return SubscriptionUpdate(
        items=[ItemChange("/total", id=item.id, quantity=quantity)],
        payment_method_id=None,
        promotion_code=None,
        cancel_at_period_end=None,
        quote_id=quote_id,
        terms=MoneyTerms(proration_behavior=proration_behavior),
        permission=Permission.BUY_SEATS,
        forgo_credit=forgo_credit,
    )


async def total_update(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    total: int,
    *,
    item_id: SubscriptionItemId | None,
    quote_id: str | None,
    proration_behavior: str | None,
    forgo_credit: bool = False,
) -> SubscriptionUpdate:
    """Return the change that brings the seats of a subscription to `total`.

    `item_id`: the item whose quantity changes, if several items give seats.

    Raises:
        NotFound: the actor may not see the subscription.
        Conflict: `not_shareable`.
        InvalidRequest: `seat_item_ambiguous`, or the other items give more seats than `total`.
    """
    items = (await get(context, actor, subscription_id)).view.seat_items()
    item = purchase_item(items, item_id)
    quantity = (item.quantity or 0) + total - total_seats(items)
    if quantity < 1:
        detail = "The other items alone give more seats than that."
        raise InvalidRequest(detail, errors=[FieldError("/total", "too_small", detail)])
    return seats_update(item, quantity, quote_id, proration_behavior, forgo_credit=forgo_credit)
