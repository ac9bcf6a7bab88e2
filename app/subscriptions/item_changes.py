"""The items of a subscription after a change, checked before Stripe is asked.

Pure. Sources: https://docs.stripe.com/billing/subscriptions/multiple-products and
https://docs.stripe.com/billing/subscriptions/quantities. A subscription has at most 20 items and one currency, only
licensed prices take a quantity, and intervals differ only in the flexible billing mode.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.catalogue.offers import OfferedPrice
from app.domain.ids import PriceId, SubscriptionItemId
from app.domain.seats import SeatItem, total_seats
from app.errors import FieldError, InvalidRequest

MAXIMUM_ITEMS = 20

_OWN_CODES = frozenset({"price_not_available", "currency_mismatch", "mixed_intervals"})
"""Codes of a field that are also the code of the whole refusal; the others are `invalid_request`."""
_UNITS = {"day": ("day", 1), "week": ("day", 7), "month": ("month", 1), "year": ("month", 12)}
"""Stripe's interval words in units that convert into each other: 7 days are a week, 12 months a year."""


@dataclass(frozen=True, slots=True)
class ItemChange:
    """One entry as the caller wrote it. Without `id` it adds an item.

    `pointer` names the entry in errors.
    """

    pointer: str
    id: SubscriptionItemId | None = None
    price_id: PriceId | None = None
    quantity: int | None = None
    deleted: bool = False
    extras: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class PricedItem:
    """An item with its price.

    `id` is None for a new one; `quantity` is None if metered.
    """

    id: SubscriptionItemId | None
    price: OfferedPrice
    quantity: int | None

    def as_seat_item(self) -> SeatItem:
        """Return the item as the arithmetic of seats sees it."""
        return SeatItem(
            id=self.id or SubscriptionItemId(""),
            quantity=self.quantity,
            metered=self.price.metered,
            shareable=self.price.shareable,
            owner_uses_seat=self.price.owner_uses_seat,
        )


@dataclass(frozen=True, slots=True)
class ChangedItems:
    """The items of a subscription after a change."""

    items: list[PricedItem]
    params: list[dict[str, Any]]
    """The `items` parameter of Stripe's call: only what changes."""
    altered: bool = True
    """False where the caller asked for what is there already: Stripe then bills nothing."""
    restarted: frozenset[SubscriptionItemId] = frozenset()
    """Items whose interval changes: a new period of theirs begins, and is billed, at once."""
    reduces: bool = False
    """True if items are only removed or get smaller quantities."""

    @property
    def seats(self) -> int:
        """Return the seats that the items give."""
        return total_seats([item.as_seat_item() for item in self.items])

    @property
    def shareable(self) -> bool:
        """Return True if an item gives seats."""
        return any(item.as_seat_item().gives_seats for item in self.items)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the caller and the subscription allow.

    `may_buy_unlisted`: an admin's key. `currency`: fixed by the customer or the subscription.
    """

    may_buy_unlisted: bool
    currency: str | None
    flexible: bool


def items_of_purchase(
    asked: Sequence[ItemChange], prices: Mapping[PriceId, OfferedPrice], terms: Terms
) -> ChangedItems:
    """Return the items of a new subscription.

    Raises:
        InvalidRequest: names each entry and the rule that it breaks.
    """
    return change_items([], asked, prices, terms)


def change_items(
    current: Sequence[PricedItem],
    asked: Sequence[ItemChange],
    prices: Mapping[PriceId, OfferedPrice],
    terms: Terms,
) -> ChangedItems:
    """Return the items after a change.

    An item of which only the price changes keeps its quantity; Stripe would set it to 1.

    Raises:
        InvalidRequest: names each entry and the rule that it breaks.
    """
    errors: list[FieldError] = []
    items = {item.id: item for item in current}
    known, named = frozenset(items), set[SubscriptionItemId | None]()
    added: list[PricedItem] = []
    params: list[dict[str, Any]] = []
    for change in asked:
        if (problem := _naming_problem(change, known, named)) is not None:
            errors.append(problem)
            continue
        named.add(change.id)
        before = items.get(change.id) if change.id is not None else None
        if change.deleted and before is not None:
            del items[change.id]
            params.append({"id": before.id, "deleted": True})
            continue
        after, problem = _item_after(change, before, prices, terms)
        if after is None:
            errors.append(problem or FieldError(change.pointer, "invalid", "This item cannot be bought."))
            continue
        if before is None:
            added.append(after)
        else:
            items[change.id] = after
        params.append(_param(change, before, after))
    result = [*items.values(), *added]
    # The items as a whole are judged only once each entry holds: a refused price would also count as a missing item.
    errors = errors or _whole_list_errors(result, asked, terms)
    if errors:
        raise _refusal(errors)
    return ChangedItems(
        result,
        params,
        altered=result != list(current),
        restarted=_restarted(current, result),
        reduces=_reduces(current, result),
    )


def _refusal(errors: list[FieldError]) -> InvalidRequest:
    """Return the refusal of a change by its first error; the others are listed."""
    first = errors[0]
    code = first.code if first.code in _OWN_CODES else None
    return InvalidRequest(f"{first.pointer}: {first.detail}", code=code, errors=errors)


def _naming_problem(
    change: ItemChange,
    known: Collection[SubscriptionItemId | None],
    named: Collection[SubscriptionItemId | None],
) -> FieldError | None:
    """Return what is wrong with the item that a change names, or None.

    `named`: the items named by the changes before it.
    """
    if change.id is None:
        detail = "Name the item to remove by its id."
        return FieldError(f"{change.pointer}/deleted", "invalid", detail) if change.deleted else None
    if change.id not in known:
        detail = "No item of this subscription has this id."
        return FieldError(f"{change.pointer}/id", "unknown_item", detail)
    if change.id in named:
        return FieldError(f"{change.pointer}/id", "duplicate", "This item is named twice.")
    return None


def _reduces(before: Sequence[PricedItem], after: Sequence[PricedItem]) -> bool:
    known = {item.id: item for item in before if item.id is not None}
    return all(
        item.id in known
        and item.price.id == known[item.id].price.id
        and (item.quantity or 0) <= (known[item.id].quantity or 0)
        for item in after
    )


def only_lowers(asked: Sequence[ItemChange], quantities: Mapping[str, int | None]) -> bool:
    """Return True if each entry only lowers or keeps the quantity of an item.

    `quantities`: the present ones by item id.
    """
    return bool(asked) and all(
        change.id is not None
        and change.price_id is None
        and not change.deleted
        and change.quantity is not None
        and change.quantity <= (quantities.get(change.id) or 0)
        for change in asked
    )


def _restarted(before: Sequence[PricedItem], after: Sequence[PricedItem]) -> frozenset[SubscriptionItemId]:
    intervals = {item.id: item.price.interval for item in before}
    changed = (i.id for i in after if i.id is not None and i.price.interval != intervals.get(i.id))
    return frozenset(changed)


def _item_after(
    change: ItemChange, before: PricedItem | None, prices: Mapping[PriceId, OfferedPrice], terms: Terms
) -> tuple[PricedItem | None, FieldError | None]:
    where = f"{change.pointer}/price_id"
    if change.price_id is None and before is None:
        return None, FieldError(where, "missing", "A new item needs a price_id.")
    price = (
        before.price
        if before is not None and change.price_id is None
        else prices.get(change.price_id or PriceId(""))
    )
    is_new_price = before is None or price is None or price.id != before.price.id
    if price is None or (is_new_price and not _on_offer(price, terms)):
        return None, FieldError(where, "price_not_available", "This price is not on offer.")
    if not price.recurring:
        return None, FieldError(where, "price_not_available", "A one-time price makes no subscription item.")
    if terms.currency is not None and terms.currency not in price.currencies:
        detail = f"This price cannot be bought in {terms.currency}."
        return None, FieldError(where, "currency_mismatch", detail)
    at_quantity = f"{change.pointer}/quantity"
    if price.metered:
        if change.quantity is not None:
            return None, FieldError(at_quantity, "metered", "A metered price takes no quantity.")
        return PricedItem(change.id, price, None), None
    kept = before.quantity if before is not None and not before.price.metered else 1
    quantity = kept if change.quantity is None else change.quantity
    return PricedItem(change.id, price, quantity), None


def _on_offer(price: OfferedPrice, terms: Terms) -> bool:
    return price.active and price.product_active and (price.on_sale or terms.may_buy_unlisted)


def _param(change: ItemChange, before: PricedItem | None, after: PricedItem) -> dict[str, Any]:
    param: dict[str, Any] = dict(change.extras or {})
    if change.id is not None:
        param["id"] = change.id
    if before is None or before.price.id != after.price.id:
        param["price"] = after.price.id
    if after.quantity is not None:
        param["quantity"] = after.quantity
    return param


def _whole_list_errors(
    items: list[PricedItem], asked: Sequence[ItemChange], terms: Terms
) -> list[FieldError]:
    errors = []
    if not items:
        errors.append(
            FieldError("/items", "too_short", "A subscription needs at least one item: cancel it instead.")
        )
    if len(items) > MAXIMUM_ITEMS:
        errors.append(FieldError("/items", "too_long", f"A subscription has at most {MAXIMUM_ITEMS} items."))
    prices = [item.price.id for item in items]
    for change in asked:
        if change.price_id is not None and prices.count(change.price_id) > 1:
            detail = "Another item has this price: raise its quantity instead."
            errors.append(FieldError(f"{change.pointer}/price_id", "duplicate", detail))
    common = frozenset.intersection(*(item.price.currencies for item in items)) if items else frozenset({""})
    if terms.currency is None and not common:
        errors.append(FieldError("/items", "currency_mismatch", "The prices share no currency."))
    errors += _interval_errors([item.price.interval for item in items if item.price.interval], terms)
    return errors


def _interval_errors(intervals: Sequence[tuple[str, int]], terms: Terms) -> list[FieldError]:
    """Return the errors of intervals that cannot be mixed.

    Every interval must be a multiple of the shortest, and the billing mode must be flexible
    (https://docs.stripe.com/billing/subscriptions/mixed-interval). No number of days or weeks is a multiple of a
    month, or the reverse, so the two kinds are never on one subscription.
    """
    if len(set(intervals)) <= 1:
        return []
    if not terms.flexible:
        detail = "Prices of different intervals need the flexible billing mode."
        return [FieldError("/items", "mixed_intervals", detail)]
    lengths = [
        (unit, size * count)
        for (unit, size), count in ((_UNITS.get(word, (word, 1)), n) for word, n in intervals)
    ]
    shortest = min(length for _, length in lengths)
    if len({unit for unit, _ in lengths}) == 1 and all(length % shortest == 0 for _, length in lengths):
        return []
    detail = (
        "Every interval must be a multiple of the shortest, as a year is of a month; weeks and months cannot be "
        "mixed. Buy the other price as a subscription of its own."
    )
    return [FieldError("/items", "mixed_intervals", detail)]


def common_currency(items: Sequence[PricedItem], *, preferred: str | None = None) -> str:
    """Return the currency of a new subscription if nothing fixes it.

    That is `preferred`, the customer's last one, if all prices can be bought in it; otherwise the first price's own,
    if all share it.
    """
    shared = frozenset.intersection(*(item.price.currencies for item in items))
    first = items[0].price.currency
    return next((name for name in (preferred, first) if name in shared), None) or min(shared)
