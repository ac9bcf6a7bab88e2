from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stripe_simulator.billing import (
    BillingInputError,
    BillingMode,
    Debit,
    ItemChange,
    ItemState,
    Period,
    Proration,
    first_period,
    prorate,
    prorate_all,
)
from tests.stripe_simulator.billing.builders import PROPERTY, amount_off, at, item, percent, price, tiered

CLASSIC, FLEXIBLE = BillingMode.CLASSIC, BillingMode.FLEXIBLE
NOVEMBER = Period(at(2026, 11, 1), at(2026, 12, 1))  # 30 days, 2,592,000 seconds
DECEMBER = Period(at(2026, 12, 1), at(2027, 1, 1))  # 31 days, 2,678,400 seconds
MID_NOVEMBER = at(2026, 11, 16)


def changed(
    old: ItemState | None, new: ItemState | None, period: Period = NOVEMBER, **fields: Any
) -> ItemChange:
    return ItemChange(old, new, period, **fields)


def amounts(result: Proration) -> list[int]:
    return [line.amount for line in result.lines]


def test_more_seats_halfway_through_a_30_day_month() -> None:
    result = prorate(changed(item(quantity=3), item(quantity=5)), MID_NOVEMBER, mode=CLASSIC)
    # 3 × 1000 / 2 back, 5 × 1000 / 2 due.
    assert amounts(result) == [-1500, 2500]
    credit, charge = result.lines
    assert credit.description == "Unused time on 3 × Team after 16 Nov 2026"
    assert charge.description == "Remaining time on 5 × Team after 16 Nov 2026"
    assert (credit.quantity, charge.quantity) == (3, 5)
    assert credit.period == charge.period == Period(MID_NOVEMBER, at(2026, 12, 1))
    assert credit.proration and charge.proration and not credit.discountable and not charge.discountable
    assert result.period == NOVEMBER


def test_a_single_seat_is_not_counted_in_the_wording() -> None:
    result = prorate(changed(item(quantity=1), item(quantity=0)), at(2026, 11, 5), mode=CLASSIC)
    assert [line.description for line in result.lines] == [
        "Unused time on Team after 05 Nov 2026",
        "Remaining time on 0 × Team after 05 Nov 2026",
    ]


def test_a_31_day_month() -> None:
    result = prorate(changed(item(quantity=1), item(quantity=2), DECEMBER), at(2026, 12, 11), mode=CLASSIC)
    # 21 of 31 days: 1000 × 21 / 31 = 677.42; 2000 × 21 / 31 = 1354.84.
    assert amounts(result) == [-677, 1355]


def test_prorations_are_exact_to_the_second() -> None:
    big = price(2_592_000)  # one minor unit a second in November
    result = prorate(changed(item(big, 1), item(big, 2)), NOVEMBER.start + 1, mode=CLASSIC)
    assert amounts(result) == [-2_591_999, 5_183_998]


def test_the_edges_of_the_period() -> None:
    change = changed(item(quantity=1), item(quantity=2))
    assert amounts(prorate(change, NOVEMBER.start, mode=CLASSIC)) == [-1000, 2000]
    assert amounts(prorate(change, NOVEMBER.end, mode=CLASSIC)) == [0, 0]
    with pytest.raises(BillingInputError, match="outside"):
        prorate(change, NOVEMBER.end + 1, mode=CLASSIC)


def test_a_downgrade_is_a_credit() -> None:
    pro = price(3000, id="price_pro", product="prod_pro")
    result = prorate(
        changed(item(pro, 2, product_name="Pro"), item(quantity=2)), at(2026, 11, 22), mode=CLASSIC
    )
    # 9 of 30 days: 6000 × 0.3 back, 2000 × 0.3 due.
    assert amounts(result) == [-1800, 600]
    assert result.amount == -1200
    assert [line.product for line in result.lines] == ["prod_pro", "prod_team"]


def test_items_added_removed_and_brought_to_zero() -> None:
    assert amounts(prorate(changed(None, item(quantity=4)), MID_NOVEMBER, mode=CLASSIC)) == [2000]
    assert amounts(prorate(changed(item(quantity=4), None), MID_NOVEMBER, mode=CLASSIC)) == [-2000]
    assert amounts(prorate(changed(item(quantity=4), item(quantity=0)), MID_NOVEMBER, mode=CLASSIC)) == [
        -2000,
        0,
    ]


def test_packs_are_prorated_on_what_they_cost() -> None:
    packs = price(5000, transform_quantity={"divide_by": 5, "round": "up"})
    # 3 and 5 users are one pack, 6 are two.
    assert prorate(changed(item(packs, 3), item(packs, 5)), MID_NOVEMBER, mode=CLASSIC).amount == 0
    assert amounts(prorate(changed(item(packs, 5), item(packs, 6)), MID_NOVEMBER, mode=CLASSIC)) == [
        -2500,
        5000,
    ]


def test_tiers_are_prorated_on_what_they_cost() -> None:
    graduated = tiered("graduated", {"up_to": 5, "unit_amount": 700}, {"up_to": None, "unit_amount": 600})
    # 5 × 700 = 3500 and 3500 + 600 = 4100, half of each.
    change = changed(item(graduated, 5), item(graduated, 6))
    assert amounts(prorate(change, MID_NOVEMBER, mode=CLASSIC)) == [-1750, 2050]


def test_a_new_interval_starts_a_period_now() -> None:
    yearly = price(10_000, id="price_year", interval="year")
    result = prorate(changed(item(quantity=2), item(yearly, 2)), MID_NOVEMBER, mode=CLASSIC)
    assert amounts(result) == [-1000, 20_000]
    assert result.period == Period(MID_NOVEMBER, at(2027, 11, 16))
    assert not result.lines[1].proration and result.lines[1].discountable
    assert result.lines[1].description == "2 × Team (at $100.00 / year)"


def test_in_classic_mode_one_new_interval_restarts_every_item() -> None:
    yearly = item(price(10_000, interval="year"), 1)
    other = item(price(500), 4, subscription_item="si_2")
    changes = [changed(item(), yearly), changed(other, other)]
    assert [amounts(each) for each in prorate_all(changes, MID_NOVEMBER, mode=CLASSIC)] == [
        [-500, 10_000],
        [-1000, 2000],
    ]
    flexible = prorate_all(changes, MID_NOVEMBER, mode=FLEXIBLE)
    assert [amounts(each) for each in flexible] == [[10_000], []]
    assert flexible[1].period == NOVEMBER


def test_resetting_the_cycle_bills_a_whole_period() -> None:
    same = item(quantity=3)
    result = prorate(changed(same, same), MID_NOVEMBER, mode=CLASSIC, reset_cycle=True)
    assert amounts(result) == [-1500, 3000]
    assert result.period == Period(MID_NOVEMBER, at(2026, 12, 16))


def test_trials_prorate_to_nothing() -> None:
    within = changed(item(quantity=1), item(quantity=9), trial_before=True, trial_after=True)
    assert prorate(within, MID_NOVEMBER, mode=CLASSIC).lines == ()
    yearly = item(price(10_000, interval="year"), 1)
    moved = prorate(changed(item(), yearly, trial_before=True, trial_after=True), MID_NOVEMBER, mode=CLASSIC)
    assert (moved.lines, moved.period) == ((), NOVEMBER)
    begun = changed(item(quantity=2), item(quantity=2), trial_after=True)
    assert amounts(prorate(begun, MID_NOVEMBER, mode=CLASSIC)) == [-1000]
    ended = changed(item(quantity=2), item(quantity=2), trial_before=True)
    result = prorate(ended, MID_NOVEMBER, mode=CLASSIC, reset_cycle=True)
    assert amounts(result) == [2000] and result.period.end == at(2026, 12, 16)


def test_metered_items_do_not_prorate() -> None:
    metered = item(price(metered=True), None)
    assert prorate(changed(metered, None), MID_NOVEMBER, mode=CLASSIC).lines == ()
    assert prorate(changed(None, metered), MID_NOVEMBER, mode=CLASSIC).lines == ()
    first = first_period(metered, at(2026, 11, 21), at(2026, 12, 1))
    assert first == Proration((), Period(at(2026, 11, 21), at(2026, 12, 1)))


def test_flexible_credits_what_was_debited() -> None:
    # The price list says 3000, the customer paid 2400 after a coupon that has since ended.
    change = changed(item(quantity=3), item(quantity=1), debits=(Debit(2400, NOVEMBER),))
    assert amounts(prorate(change, MID_NOVEMBER, mode=FLEXIBLE)) == [-1200, 500]
    assert amounts(prorate(change, MID_NOVEMBER, mode=CLASSIC)) == [-1500, 500]


def test_flexible_credits_a_proration_over_the_time_that_it_paid_for() -> None:
    first = prorate(
        changed(item(quantity=1), item(quantity=3), debits=(Debit(1000, NOVEMBER),)),
        MID_NOVEMBER,
        mode=FLEXIBLE,
    )
    assert amounts(first) == [-500, 1500]
    assert first.debit == Debit(1500, Period(MID_NOVEMBER, NOVEMBER.end))
    # 5 of the 15 days paid for are left: 1500 / 3 back, 1000 × 5 / 30 due.
    second = prorate(
        changed(item(quantity=3), item(quantity=1), debits=first.debits), at(2026, 11, 26), mode=FLEXIBLE
    )
    assert amounts(second) == [-500, 167]


def test_flexible_gives_no_credit_without_a_debit() -> None:
    for debit in (
        (),
        (Debit(0, NOVEMBER),),
        (Debit(900, Period(at(2026, 10, 1), MID_NOVEMBER)),),
        (Debit(1, Period(NOVEMBER.end, NOVEMBER.end)),),
    ):
        change = changed(item(quantity=3), item(quantity=1), debits=debit)
        assert amounts(prorate(change, MID_NOVEMBER, mode=FLEXIBLE)) == [500]


def test_flexible_never_credits_more_than_was_debited() -> None:
    late = Debit(900, Period(at(2026, 11, 20), NOVEMBER.end))
    result = prorate(changed(item(quantity=3), None, debits=(late,)), MID_NOVEMBER, mode=FLEXIBLE)
    assert amounts(result) == [-900]
    with pytest.raises(BillingInputError):
        prorate(changed(item(), None, debits=(Debit(-1, NOVEMBER),)), MID_NOVEMBER, mode=FLEXIBLE)


def test_discounts_are_in_the_amounts_and_the_wording() -> None:
    change = changed(item(quantity=2, discounts=(percent(35),)), item(quantity=4, discounts=(percent(35),)))
    result = prorate(change, MID_NOVEMBER, mode=CLASSIC)
    # 65 % of 2000 and of 4000, halved.
    assert amounts(result) == [-650, 1300]
    assert result.lines[1].description == "Remaining time on 4 × Team (with 35.0% off) after 16 Nov 2026"
    elsewhere = percent(35, applies_to={"products": ["prod_other"]})
    added = prorate(changed(None, item(discounts=(elsewhere, amount_off(400)))), MID_NOVEMBER, mode=CLASSIC)
    assert amounts(added) == [300]  # (1000 − 400) / 2
    assert added.lines[0].description == "Remaining time on Team (with $4.00 off) after 16 Nov 2026"


def test_a_new_discount_or_name_alone_does_not_prorate() -> None:
    renamed = item(quantity=2, product_name="Crew", discounts=(percent(10),))
    assert prorate(changed(item(quantity=2), renamed), MID_NOVEMBER, mode=CLASSIC).lines == ()


def test_the_first_period_up_to_an_anchor_ahead() -> None:
    result = first_period(item(quantity=3), at(2026, 11, 21), at(2026, 12, 1))
    # 10 of the 30 days that end at the anchor.
    assert amounts(result) == [1000]
    assert result.period == Period(at(2026, 11, 21), at(2026, 12, 1))
    assert amounts(first_period(item(quantity=3), at(2026, 11, 21), at(2026, 11, 21))) == [3000]


def test_a_change_within_a_cut_period_counts_against_the_whole_interval() -> None:
    cut = Period(at(2026, 11, 21), at(2026, 12, 1))
    change = changed(item(quantity=3), item(quantity=6), cut, full_period=NOVEMBER)
    # 5 of 30 days.
    assert amounts(prorate(change, at(2026, 11, 26), mode=CLASSIC)) == [-500, 1000]


moments = st.integers(NOVEMBER.start, NOVEMBER.end)
quantities = st.integers(0, 500)
prices = st.one_of(
    st.integers(0, 100_000).map(price),
    st.integers(1, 20).map(lambda size: price(777, transform_quantity={"divide_by": size, "round": "up"})),
    st.sampled_from(["graduated", "volume"]).map(
        lambda mode: tiered(
            mode, {"up_to": 7, "unit_amount": 433}, {"up_to": None, "unit_amount": 391, "flat_amount": 9}
        )
    ),
)


@PROPERTY
@given(of=prices, quantity=quantities, moment=moments, mode=st.sampled_from(BillingMode))
def test_prorating_nothing_gives_nothing(
    of: dict[str, Any], quantity: int, moment: int, mode: BillingMode
) -> None:
    same = item(of, quantity)
    debit = Debit(same.full_amount, NOVEMBER)
    assert prorate(changed(same, item(of, quantity), debits=(debit,)), moment, mode=mode).lines == ()


@PROPERTY
@given(of=prices, quantity=quantities, moment=moments, mode=st.sampled_from(BillingMode))
def test_crediting_and_charging_the_same_state_nets_to_zero(
    of: dict[str, Any], quantity: int, moment: int, mode: BillingMode
) -> None:
    state = item(of, quantity)
    renamed = item({**of, "id": "price_copy"}, quantity)
    change = changed(state, renamed, debits=(Debit(state.full_amount, NOVEMBER),))
    assert prorate(change, moment, mode=mode).amount == 0


@PROPERTY
@given(of=prices, few=quantities, many=quantities, moment=moments, mode=st.sampled_from(BillingMode))
def test_a_change_taken_back_at_once_nets_to_zero(
    of: dict[str, Any], few: int, many: int, moment: int, mode: BillingMode
) -> None:
    small, large = item(of, few), item(of, many)
    there = prorate(changed(small, large, debits=(Debit(small.full_amount, NOVEMBER),)), moment, mode=mode)
    back = prorate(changed(large, small, debits=there.debits), moment, mode=mode)
    assert there.amount + back.amount == 0


@PROPERTY
@given(amount=st.integers(0, 1_000_000), dates=st.lists(moments, max_size=6))
def test_credits_add_up_to_the_whole_debit_when_it_is_given_back_piece_by_piece(
    amount: int, dates: list[int]
) -> None:
    """S12: whatever the order of the dates, nothing is given back twice and no cent is lost."""
    debit, given_back = Debit(amount, NOVEMBER), 0
    for date in [*dates, NOVEMBER.start]:
        given_back += debit.credit(date)
        debit = debit.credited(date)
        assert 0 <= given_back <= amount
    assert given_back == amount and debit.outstanding(NOVEMBER.start) is None


def test_each_outstanding_debit_gets_a_credit_when_several_cover_the_time() -> None:
    """S12: the earlier debit billed the time before the later one, and both are named."""
    early = Debit(3000, NOVEMBER, "il_early", credited_from=MID_NOVEMBER)
    late = Debit(4500, Period(MID_NOVEMBER, NOVEMBER.end), "il_late")
    change = changed(item(quantity=9), item(quantity=1), debits=(early, late), key="il_new")
    result = prorate(change, at(2026, 11, 11), mode=FLEXIBLE)
    # 5 of 30 days of the early one, all of the late one, and 20 of 30 days due.
    assert amounts(result) == [-500, -4500, 667]
    assert [line.credits for line in result.lines] == [("il_early",), ("il_late",), ()]
    assert (result.lines[2].key, result.debits[-1].key) == ("il_new", "il_new")
    kept = [(debit.key, debit.outstanding_until) for debit in result.debits]
    assert kept == [("il_early", at(2026, 11, 11)), ("il_new", NOVEMBER.end)]


@PROPERTY
@given(of=prices, quantity=quantities, moment=moments)
def test_a_proration_lies_between_nothing_and_the_full_amount(
    of: dict[str, Any], quantity: int, moment: int
) -> None:
    state = item(of, quantity)
    (charge,) = prorate(changed(None, state), moment, mode=CLASSIC).lines
    assert 0 <= charge.amount <= state.full_amount
