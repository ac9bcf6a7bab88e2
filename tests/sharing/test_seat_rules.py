"""Seat arithmetic over every combination of items."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.ids import SubscriptionItemId
from app.domain.seats import (
    SeatItem,
    Seats,
    capacity,
    count_seats,
    is_shareable,
    lacking,
    owner_takes_seat,
    purchase_item,
    total_seats,
)
from app.errors import Conflict, InvalidRequest


def item(
    quantity: int | None,
    *,
    id: str = "si_1",
    metered: bool = False,
    shareable: bool = True,
    owner: bool | None = None,
) -> SeatItem:
    return SeatItem(SubscriptionItemId(id), quantity, metered, shareable, owner)


ITEMS = st.lists(
    st.builds(
        SeatItem,
        id=st.integers(0, 10**6).map(lambda n: SubscriptionItemId(f"si_{n}")),
        quantity=st.none() | st.integers(0, 10**6),
        metered=st.booleans(),
        shareable=st.booleans(),
        owner_uses_seat=st.none() | st.booleans(),
    ),
    max_size=20,
    unique_by=lambda one: one.id,
)


@pytest.mark.parametrize(
    ("items", "total"),
    [
        ([], 0),
        ([item(5)], 5),
        ([item(0)], 0),
        ([item(5, shareable=False)], 0),
        ([item(5), item(7, shareable=False)], 5),
        ([item(5), item(7), item(1)], 13),
        ([item(None, metered=True)], 0),
        ([item(9, metered=True), item(2)], 2),
        ([item(None)], 0),
    ],
)
def test_the_total_is_what_was_bought_of_flagged_licensed_items(items: list[SeatItem], total: int) -> None:
    assert total_seats(items) == total
    assert is_shareable(items) is any(i.shareable and not i.metered for i in items)


@pytest.mark.parametrize(
    ("said", "default", "counts"),
    [
        ([None], False, False),
        ([None], True, True),
        ([True], False, True),
        ([False], True, False),
        ([False, True], False, True),
        ([False, None], True, False),
        ([None, True], False, True),
        ([], True, True),
    ],
)
def test_whether_the_owner_takes_a_seat(said: list[bool | None], default: bool, counts: bool) -> None:
    items = [item(3, owner=one) for one in said]
    assert owner_takes_seat(items, default=default) is counts


def test_a_product_that_gives_no_seats_has_no_say_about_the_owner() -> None:
    items = [item(3), item(3, shareable=False, owner=True), item(None, metered=True, owner=True)]
    assert owner_takes_seat(items, default=False) is False


@pytest.mark.parametrize(
    ("lowest_target", "freed", "added", "figures"),
    [
        (None, 0, 1, None),
        (None, 0, 2, {"total": 4, "used": 3, "required": 5}),
        (None, 1, 2, None),
        (3, 0, 0, None),
        (3, 0, 1, {"total": 4, "used": 3, "required": 4}),
        (9, 0, 2, {"total": 4, "used": 3, "required": 5}),
    ],
)
def test_seats_are_lacking_when_more_are_required_than_may_be_promised(
    lowest_target: int | None, freed: int, added: int, figures: dict[str, int] | None
) -> None:
    """A change that is not settled may lower what can be promised, and never raises it for others."""
    seats = Seats(total=4, used=2, reserved=1)
    assert lacking(seats, capacity(seats, lowest_target), freed=freed, added=added) == figures


@given(ITEMS, st.integers(0, 100), st.integers(0, 100), st.booleans(), st.booleans())
def test_the_figures_always_add_up(
    items: list[SeatItem], members: int, reserved: int, has_owner: bool, setting: bool
) -> None:
    seats = count_seats(
        items, members=members, reserved=reserved, has_owner=has_owner, owner_uses_seat=setting
    )
    assert seats.total == sum(i.quantity or 0 for i in items if i.shareable and not i.metered)
    assert seats.used - members in ((0, 1) if has_owner else (0,))
    assert seats.total - seats.used - seats.reserved == seats.available - seats.over_allocated
    assert min(seats.available, seats.over_allocated) == 0
    assert seats.as_members() == {
        "total": seats.total,
        "used": seats.used,
        "reserved": reserved,
        "available": max(0, seats.total - seats.used - reserved),
        "over_allocated": max(0, seats.used + reserved - seats.total),
    }


def test_the_owner_is_counted_only_where_there_is_one_and_he_counts() -> None:
    for has_owner in (False, True):
        for setting in (False, True):
            seats = count_seats(
                [item(5)], members=2, reserved=1, has_owner=has_owner, owner_uses_seat=setting
            )
            assert seats == Seats(5, 3 if has_owner and setting else 2, 1)


def test_a_purchase_changes_the_only_item_that_gives_seats() -> None:
    only = item(2, id="si_b")
    items = [item(9, id="si_a", shareable=False), only, item(None, id="si_c", metered=True)]
    assert purchase_item(items, None) is only
    assert purchase_item(items, SubscriptionItemId("si_b")) is only


@pytest.mark.parametrize("asked", ["si_a", "si_c", "si_none"])
def test_a_purchase_names_no_item_without_seats(asked: str) -> None:
    items = [item(9, id="si_a", shareable=False), item(2, id="si_b"), item(None, id="si_c", metered=True)]
    with pytest.raises(InvalidRequest) as refused:
        purchase_item(items, SubscriptionItemId(asked))
    assert refused.value.code == "invalid_request"


def test_several_items_that_give_seats_are_ambiguous_unless_one_is_named() -> None:
    items = [item(1, id="si_a"), item(2, id="si_b")]
    with pytest.raises(InvalidRequest) as refused:
        purchase_item(items, None)
    assert refused.value.code == "seat_item_ambiguous"
    assert purchase_item(items, SubscriptionItemId("si_b")) is items[1]


def test_nothing_to_share_is_nothing_to_buy() -> None:
    with pytest.raises(Conflict) as refused:
        purchase_item([item(9, shareable=False), item(None, metered=True)], None)
    assert refused.value.code == "not_shareable"
