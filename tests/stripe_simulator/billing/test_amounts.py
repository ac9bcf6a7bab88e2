from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stripe_simulator.billing import (
    BillingInputError,
    Period,
    billed_units,
    period_line,
    quantity_amount,
    trial_line,
    usage_amount,
    usage_line,
)
from tests.stripe_simulator.billing.builders import PROPERTY, at, item, price, tiered

NOVEMBER = Period(at(2026, 11, 1), at(2026, 12, 1))
PACKS = price(5000, transform_quantity={"divide_by": 5, "round": "up"})
THOUSANDS = price(40, metered=True, transform_quantity={"divide_by": 1000, "round": "down"})
GRADUATED = tiered(
    "graduated",
    {"up_to": 5, "unit_amount": 700, "flat_amount": 1000},
    {"up_to": 10, "unit_amount": 650, "flat_amount": None},
    {"up_to": None, "unit_amount": 600, "flat_amount": 250},
)
VOLUME = tiered(
    "volume",
    {"up_to": 5, "unit_amount": 700, "flat_amount": None},
    {"up_to": 10, "unit_amount": 650, "flat_amount": 200},
    {"up_to": "inf", "unit_amount": 600, "flat_amount": None},
)


@pytest.mark.parametrize(("quantity", "amount"), [(0, 0), (1, 1000), (3, 3000), (250, 250000)])
def test_per_unit(quantity: int, amount: int) -> None:
    assert quantity_amount(price(1000), quantity) == amount


@pytest.mark.parametrize(
    ("unit", "quantity", "amount"),
    [
        ("0.05", 10, 1),  # 0.5 cents, half goes up
        ("0.05", 9, 0),  # 0.45
        ("0.05", 30, 2),  # 1.5
        ("33.333333333333", 3, 100),  # 99.999999999999
        ("12.5", 1, 13),
        ("12.5", 2, 25),  # rounded per unit this would be 26
    ],
)
def test_decimal_unit_amounts_are_multiplied_before_rounding(unit: str, quantity: int, amount: int) -> None:
    of = price(None, unit_amount_decimal=unit)
    assert quantity_amount(of, quantity) == amount


def test_a_decimal_unit_amount_may_be_a_decimal() -> None:
    assert quantity_amount(price(None, unit_amount_decimal=Decimal("12.5")), 1) == 13


@pytest.mark.parametrize(
    ("users", "packs"), [(0, 0), (1, 1), (3, 1), (5, 1), (6, 2), (7, 2), (10, 2), (11, 3)]
)
def test_packs_of_five_rounded_up(users: int, packs: int) -> None:
    assert billed_units(PACKS, users) == packs
    assert quantity_amount(PACKS, users) == packs * 5000


@pytest.mark.parametrize(("users", "packs"), [(4, 0), (5, 1), (9, 1), (10, 2)])
def test_packs_of_five_rounded_down(users: int, packs: int) -> None:
    assert billed_units(price(transform_quantity={"divide_by": 5, "round": "down"}), users) == packs


@pytest.mark.parametrize(("calls", "amount"), [(0, 0), (999, 0), (1000, 40), (1999, 40), (12_345, 480)])
def test_usage_per_thousand_rounded_down(calls: int, amount: int) -> None:
    assert usage_amount(THOUSANDS, calls) == amount


def test_decimal_usage() -> None:
    # 2.5 hours at 3 cents are 7.5 cents.
    assert usage_amount(price(3, metered=True), Decimal("2.5")) == 8


@pytest.mark.parametrize(
    ("quantity", "amount"),
    [
        (0, 1000),  # the first flat amount alone
        (1, 1700),  # 1000 + 700
        (5, 4500),  # 1000 + 5 × 700
        (6, 5150),  # 4500 + 650
        (10, 7750),  # 4500 + 5 × 650
        (11, 8600),  # 7750 + 250 + 600
        (20, 14000),  # 7750 + 250 + 10 × 600
    ],
)
def test_graduated_tiers(quantity: int, amount: int) -> None:
    assert quantity_amount(GRADUATED, quantity) == amount


@pytest.mark.parametrize(
    ("quantity", "amount"),
    [
        (0, 0),
        (5, 3500),  # 5 × 700
        (6, 4100),  # 200 + 6 × 650
        (10, 6700),  # 200 + 10 × 650
        (11, 6600),  # 11 × 600: the whole quantity is cheaper
    ],
)
def test_volume_tiers(quantity: int, amount: int) -> None:
    assert quantity_amount(VOLUME, quantity) == amount


def test_decimal_tiers_are_rounded_once_per_line() -> None:
    of = tiered(
        "graduated",
        {"up_to": 3, "unit_amount_decimal": "0.5", "flat_amount": None},
        {"up_to": None, "unit_amount_decimal": "0.3", "flat_amount_decimal": "0.2"},
    )
    # 3 × 0.5 + 0.2 + 2 × 0.3 = 2.3; rounded tier by tier it would be 2 + 1 = 3.
    assert quantity_amount(of, 5) == 2


def test_currency_options_bring_their_own_amounts_and_tiers() -> None:
    per_unit = price(1000, currency_options={"eur": {"unit_amount": 900, "unit_amount_decimal": "900"}})
    assert quantity_amount(per_unit, 3, "eur") == 2700
    assert quantity_amount(per_unit, 3, "usd") == 3000
    options = {"eur": {"tiers": [{"up_to": None, "unit_amount": 500, "flat_amount": 100}]}}
    assert quantity_amount({**VOLUME, "currency_options": options}, 2, "eur") == 1100


def test_packages_apply_in_every_currency() -> None:
    of = {**PACKS, "currency_options": {"eur": {"unit_amount": 4500}}}
    assert quantity_amount(of, 6, "eur") == 9000


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (tiered("volume", {"up_to": 5, "unit_amount": 1}), "no tier covers"),
        (tiered("graduated", {"up_to": 5, "unit_amount": 1}), "no tier covers"),
        (tiered("volume"), "without its tiers"),
        ({**VOLUME, "transform_quantity": {"divide_by": 5, "round": "up"}}, "does not go with tiers"),
        (price(None, unit_amount_decimal="ten"), "not a number"),
        (price(None, unit_amount_decimal="NaN"), "not a number"),
        (price(metered=True), "metered"),
    ],
)
def test_prices_that_cannot_be_billed(of: dict[str, Any], message: str) -> None:
    with pytest.raises(BillingInputError, match=message):
        quantity_amount(of, 6)


def test_other_inputs_that_cannot_be_billed() -> None:
    with pytest.raises(BillingInputError, match="no amount in gbp"):
        quantity_amount(price(), 1, "gbp")
    with pytest.raises(BillingInputError, match="negative"):
        quantity_amount(price(), -1)
    with pytest.raises(BillingInputError, match="licensed"):
        usage_amount(price(), 1)


def test_period_lines_are_worded_like_stripe_words_them() -> None:
    def wording(of: dict[str, Any], quantity: int, **fields: Any) -> str:
        return period_line(item(of, quantity, **fields), NOVEMBER).description

    assert wording(price(1000), 3) == "3 × Team (at $10.00 / month)"
    assert wording(price(90000, count=3), 1) == "1 × Team (at $900.00 / every 3 months)"
    assert wording(price(120000, interval="year"), 2) == "2 × Team (at $1,200.00 / year)"
    assert wording(PACKS, 7) == "7 × Team (at $50.00 per 5 / month)"
    assert wording(VOLUME, 6) == "6 × Team (Tier 2 at $6.50 / month)"
    assert wording(price(None, unit_amount_decimal="0.5"), 3) == "3 × Team (at $0.005 / month)"
    assert wording(price(500, currency="jpy"), 3, currency="jpy") == "3 × Team (at ¥500 / month)"
    assert wording(price(1250, currency="chf"), 3, currency="chf") == "3 × Team (at 12.50 CHF / month)"


def test_usage_and_trial_lines() -> None:
    used = usage_line(item(THOUSANDS, None), 12_345, NOVEMBER)
    assert (used.amount, used.quantity) == (480, 12_345)
    assert used.description == "12345 × Team (at $0.40 per 1000 / month)"
    trial = trial_line(item(price(), 4), NOVEMBER)
    assert (trial.amount, trial.quantity, trial.description) == (0, 4, "Trial period for Team")


def test_a_line_in_stripes_form() -> None:
    fields = period_line(item(price(1000), 3), NOVEMBER).as_stripe("sub_1")
    assert fields["pricing"] == {
        "price_details": {"price": "price_team", "product": "prod_team"},
        "type": "price_details",
        "unit_amount_decimal": "1000",
    }
    assert fields["parent"]["subscription_item_details"]["subscription_item"] == "si_1"
    assert fields["period"] == {"start": 1793491200, "end": 1796083200}
    assert (fields["amount"], fields["subtotal"], fields["quantity"]) == (3000, 3000, 3)


@PROPERTY
@given(quantity=st.integers(0, 10_000), mode=st.sampled_from([VOLUME, GRADUATED, PACKS]))
def test_amounts_are_never_negative(quantity: int, mode: dict[str, Any]) -> None:
    assert quantity_amount(mode, quantity) >= 0


@PROPERTY
@given(quantity=st.integers(0, 10_000))
def test_more_seats_never_cost_less_when_graduated(quantity: int) -> None:
    assert quantity_amount(GRADUATED, quantity + 1) > quantity_amount(GRADUATED, quantity)
