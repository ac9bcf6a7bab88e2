"""Which intervals may stand on one subscription, and which errors a change of items reports."""

import pytest

from app.catalogue.offers import OfferedPrice
from app.domain.ids import PriceId
from app.errors import InvalidRequest
from app.subscriptions.item_changes import ItemChange, Terms, items_of_purchase

Interval = tuple[str, int]


def offered(price_id: str, interval: Interval = ("month", 1), **fields: object) -> OfferedPrice:
    given: dict[str, object] = {
        "id": PriceId(price_id),
        "active": True,
        "product_active": True,
        "on_sale": True,
        "recurring": True,
        "metered": False,
        "interval": interval,
        "currency": "usd",
        "currencies": frozenset({"usd"}),
        "shareable": False,
        "owner_uses_seat": None,
    }
    return OfferedPrice(**{**given, **fields})  # type: ignore[arg-type]


def refusal(
    prices: list[OfferedPrice], *, flexible: bool = True, currency: str | None = None
) -> InvalidRequest | None:
    """What a purchase of one of each is refused with; None if it may go to Stripe."""
    asked = [ItemChange(f"/items/{position}", price_id=price.id) for position, price in enumerate(prices)]
    terms = Terms(may_buy_unlisted=False, currency=currency, flexible=flexible)
    try:
        items_of_purchase(asked, {price.id: price for price in prices}, terms)
    except InvalidRequest as error:
        return error
    return None


@pytest.mark.parametrize(
    "intervals",
    [
        [("month", 1), ("year", 1)],
        [("month", 3), ("year", 1)],
        [("month", 12), ("year", 1)],
        [("month", 6), ("month", 12), ("year", 2)],
        [("day", 1), ("week", 1)],
        [("week", 1), ("week", 2)],
        [("week", 1), ("day", 14)],
        [("month", 2), ("month", 4)],
    ],
)
def test_intervals_are_accepted_when_each_is_a_multiple_of_the_shortest(intervals: list[Interval]) -> None:
    """T1: twelve months are a year."""
    assert refusal([offered(f"price_{n}", interval) for n, interval in enumerate(intervals)]) is None


@pytest.mark.parametrize(
    "intervals",
    [
        [("week", 1), ("month", 1)],
        [("day", 1), ("month", 1)],
        [("week", 1), ("year", 1)],
        [("day", 365), ("year", 1)],
        [("month", 2), ("month", 3)],
        [("month", 5), ("year", 1)],
        [("week", 2), ("week", 3)],
        [("month", 2), ("month", 4), ("month", 3)],
    ],
)
def test_intervals_are_refused_when_one_is_no_multiple_of_the_shortest(intervals: list[Interval]) -> None:
    """T1: Stripe refuses them on every subscription, so they never reach it."""
    error = refusal([offered(f"price_{n}", interval) for n, interval in enumerate(intervals)])
    assert error is not None
    assert (error.code, [entry.code for entry in error.errors]) == ("mixed_intervals", ["mixed_intervals"])
    assert "multiple" in error.detail


def test_classic_billing_mode_is_refused_when_intervals_differ() -> None:
    error = refusal([offered("price_a"), offered("price_b", ("year", 1))], flexible=False)
    assert error is not None and error.code == "mixed_intervals"


def test_one_fault_gives_one_error_when_an_item_cannot_be_bought() -> None:
    """M10: a price in another currency was also reported as a subscription without items."""
    error = refusal([offered("price_eur", currency="eur", currencies=frozenset({"eur"}))], currency="usd")
    assert error is not None
    assert [(entry.pointer, entry.code) for entry in error.errors] == [
        ("/items/0/price_id", "currency_mismatch")
    ]
    error = refusal([offered("price_old", active=False)])
    assert error is not None
    assert [(entry.pointer, entry.code) for entry in error.errors] == [
        ("/items/0/price_id", "price_not_available")
    ]
