from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stripe_simulator.billing import (
    BillingInputError,
    Discount,
    Line,
    apply_discounts,
    discount_end,
    share_discounts,
)
from stripe_simulator.billing.discounts import spread
from tests.stripe_simulator.billing.builders import PROPERTY, amount_off, at, item, line, percent


def taken(lines: tuple[Line, ...]) -> list[list[int]]:
    return [[entry.amount for entry in each.discount_amounts] for each in lines]


def test_percent_off_is_rounded_per_line() -> None:
    # 25.5 % of 999 is 254.745, of 1 is 0.255.
    assert taken(apply_discounts([line(999), line(1)], subscription_discounts=[percent(25.5)])) == [
        [255],
        [0],
    ]


def test_amount_off_is_spread_with_the_rest_on_the_last_line() -> None:
    # A third of 1000 each: 333, 333, and 334 for the last.
    lines = [line(5000), line(5000), line(5000)]
    assert taken(apply_discounts(lines, subscription_discounts=[amount_off(1000)])) == [[333], [333], [334]]
    # 1000 over 3000 + 500 + 500: 750, 125, 125.
    lines = [line(3000), line(500), line(500)]
    assert taken(apply_discounts(lines, subscription_discounts=[amount_off(1000)])) == [[750], [125], [125]]


def test_amount_off_never_goes_below_zero() -> None:
    assert taken(apply_discounts([line(300), line(200)], subscription_discounts=[amount_off(9999)])) == [
        [300],
        [200],
    ]


def test_the_rest_runs_over_where_the_last_share_is_full() -> None:
    # 2 over three lines of 1: every floor is 0; the last takes 1, the one before it the other.
    assert spread(2, [1, 1, 1]) == [0, 1, 1]
    assert spread(0, []) == []
    with pytest.raises(BillingInputError):
        spread(3, [1, 1])


def test_a_coupon_on_one_item_leaves_the_others() -> None:
    lines = [line(1000, "si_1"), line(1000, "si_2")]
    assert taken(apply_discounts(lines, item_discounts={"si_2": [percent(20)]})) == [[], [200]]


def test_applies_to_products() -> None:
    lines = [line(1000, product="prod_team"), line(1000, product="prod_extra")]
    coupon = percent(10, applies_to={"products": ["prod_extra"]})
    assert taken(apply_discounts(lines, subscription_discounts=[coupon])) == [[], [100]]


def test_stacked_coupons_work_in_order_on_what_is_left() -> None:
    # 10 % of 10000 is 1000, then 500 off, then 50 % of 8500.
    stack = [percent(10, "di_a"), amount_off(500, "di_b"), percent(50, "di_c")]
    assert taken(apply_discounts([line(10000)], subscription_discounts=stack)) == [[1000, 500, 4250]]
    # The other way round: 500 off, then 10 % of 9500.
    stack = [amount_off(500, "di_b"), percent(10, "di_a")]
    assert taken(apply_discounts([line(10000)], subscription_discounts=stack)) == [[500, 950]]


def test_item_discounts_come_first() -> None:
    # si_1: 50 % of 2000 leaves 1000; then 300 off spread over 1000 and 2000.
    result = apply_discounts(
        [line(2000, "si_1"), line(2000, "si_2")],
        subscription_discounts=[amount_off(300, "di_sub")],
        item_discounts={"si_1": [percent(50, "di_item")]},
    )
    assert taken(result) == [[1000, 100], [200]]
    assert [entry.on_item for entry in result[0].discount_amounts] == [True, False]


def test_credits_and_prorations_are_left_alone() -> None:
    lines = [line(-500), line(800, proration=True, discountable=False), line(1000)]
    assert taken(apply_discounts(lines, subscription_discounts=[percent(10)])) == [[], [], [100]]


def test_amount_off_in_other_currencies() -> None:
    euro = [line(1000, currency="eur")]
    coupon = amount_off(500, currency_options={"eur": {"amount_off": 450}})
    assert taken(apply_discounts(euro, subscription_discounts=[coupon])) == [[450]]
    with pytest.raises(BillingInputError, match="nothing off in eur"):
        apply_discounts(euro, subscription_discounts=[amount_off(500)])


def test_how_long_a_discount_lasts() -> None:
    start = at(2026, 11, 30)
    assert discount_end({"duration": "forever"}, start) is None
    assert discount_end({"duration": "once"}, start) is None
    assert discount_end({"duration": "repeating", "duration_in_months": 3}, start) == at(2027, 2, 28)


coupons = st.lists(
    st.one_of(
        st.decimals("0.01", "100", places=2).map(lambda value: percent(float(value))),
        st.integers(1, 100_000).map(amount_off),
    ),
    max_size=5,
)


@PROPERTY
@given(amounts=st.lists(st.integers(-50_000, 50_000), max_size=20), stack=coupons)
def test_a_discount_never_exceeds_its_line(amounts: list[int], stack: list[Discount]) -> None:
    for discounted in apply_discounts([line(amount) for amount in amounts], subscription_discounts=stack):
        total = sum(entry.amount for entry in discounted.discount_amounts)
        assert 0 <= total <= max(discounted.amount, 0)


@PROPERTY
@given(amounts=st.lists(st.integers(0, 50_000), max_size=20), off=st.integers(1, 500_000))
def test_amount_off_is_taken_to_the_cent(amounts: list[int], off: int) -> None:
    result = apply_discounts([line(amount) for amount in amounts], subscription_discounts=[amount_off(off)])
    assert sum(amounts) - sum(each.discounted for each in result) == min(off, sum(amounts))


@PROPERTY
@given(
    quantities=st.lists(st.integers(0, 50), min_size=1, max_size=6),
    off=st.integers(1, 100_000),
    evenly=st.booleans(),
)
def test_shares_of_an_amount_off_add_up_to_it_when_items_share_it(
    quantities: list[int], off: int, evenly: bool
) -> None:
    """T7: no item takes more than it costs, and together they take the amount, or all that they cost."""
    items = [item(quantity=quantity, subscription_item=f"si_{n}") for n, quantity in enumerate(quantities)]
    shared = share_discounts(items, [amount_off(off)], evenly=evenly)
    shares = [shared[f"si_{n}"][0].share or 0 for n in range(len(items))]
    assert all(0 <= part <= 1000 * quantity for part, quantity in zip(shares, quantities, strict=True))
    assert sum(shares) == min(off, 1000 * sum(quantities))


def test_an_amount_off_is_shared_by_the_mode_when_items_differ() -> None:
    """T7: in proportion to the amounts, or evenly as far as an item's amount allows."""
    items = [item(quantity=quantity, subscription_item=f"si_{quantity}") for quantity in (1, 3)]

    def shares(evenly: bool) -> list[int | None]:
        shared = share_discounts(items, [percent(50), amount_off(1200)], evenly=evenly)
        return [shared[key][1].share for key in ("si_1", "si_3")]

    assert shares(evenly=False) == [300, 900]
    assert shares(evenly=True) == [500, 700]
