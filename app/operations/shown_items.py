"""Whether a subscription shows the items of an update."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from app.domain.snapshots import SubscriptionItem


def item_shows(
    asked: Mapping[str, Any], items: Mapping[str, SubscriptionItem], prices: Collection[str]
) -> bool:
    """Return True if a subscription's items show one entry of an update's `items`.

    `items`: by their ids. `prices`: of all items.
    """
    if "id" not in asked:
        return asked["price"] in prices
    item = items.get(asked["id"])
    if item is None or asked.get("deleted"):
        return item is None and bool(asked.get("deleted"))
    now = (item.price_id, item.quantity)
    return now == (asked.get("price", item.price_id), asked.get("quantity", item.quantity))
