from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stripe_simulator.billing import (
    BillingInputError,
    Cadence,
    Period,
    add_months,
    boundary,
    item_periods,
    next_period_end,
    period_at,
)
from tests.stripe_simulator.billing.builders import PROPERTY, at, price

MONTHLY = Cadence("month")


def test_the_31st_falls_back_to_the_last_day_and_returns() -> None:
    anchor = at(2026, 1, 31, 9, 30, 5)
    renewals = [boundary(anchor, MONTHLY, number) for number in range(5)]
    assert renewals == [
        at(2026, 1, 31, 9, 30, 5),
        at(2026, 2, 28, 9, 30, 5),
        at(2026, 3, 31, 9, 30, 5),
        at(2026, 4, 30, 9, 30, 5),
        at(2026, 5, 31, 9, 30, 5),
    ]


def test_the_31st_in_a_leap_year() -> None:
    assert boundary(at(2028, 1, 31), MONTHLY, 1) == at(2028, 2, 29)


def test_a_yearly_anchor_on_29_february() -> None:
    anchor, yearly = at(2028, 2, 29, 12), Cadence("year")
    assert [boundary(anchor, yearly, number) for number in range(5)] == [
        at(2028, 2, 29, 12),
        at(2029, 2, 28, 12),
        at(2030, 2, 28, 12),
        at(2031, 2, 28, 12),
        at(2032, 2, 29, 12),
    ]


def test_a_monthly_anchor_on_29_february_keeps_the_29th() -> None:
    assert period_at(at(2028, 2, 29), MONTHLY, at(2028, 4, 1)) == Period(at(2028, 3, 29), at(2028, 4, 29))


def test_quarters_cross_the_year() -> None:
    assert period_at(at(2026, 11, 30), Cadence("month", 3), at(2026, 12, 24)) == Period(
        at(2026, 11, 30), at(2027, 2, 28)
    )


def test_days_and_weeks_have_fixed_length() -> None:
    assert next_period_end(at(2026, 6, 3), Cadence("week", 2), at(2026, 6, 20)) == at(2026, 7, 1)
    assert next_period_end(at(2026, 2, 27), Cadence("day", 3), at(2026, 2, 28)) == at(2026, 3, 2)


def test_a_renewal_belongs_to_the_period_that_it_starts() -> None:
    anchor = at(2026, 11, 15)
    assert next_period_end(anchor, MONTHLY, at(2026, 12, 15) - 1) == at(2026, 12, 15)
    assert next_period_end(anchor, MONTHLY, at(2026, 12, 15)) == at(2027, 1, 15)


def test_an_anchor_ahead_of_the_moment() -> None:
    assert period_at(at(2026, 12, 1), MONTHLY, at(2026, 11, 10)) == Period(at(2026, 11, 1), at(2026, 12, 1))
    assert period_at(at(2027, 3, 31), MONTHLY, at(2027, 2, 1)) == Period(at(2027, 1, 31), at(2027, 2, 28))


def test_items_of_mixed_intervals_share_the_anchor() -> None:
    prices = {"si_month": price(), "si_year": price(interval="year")}
    assert item_periods(at(2026, 3, 31), prices, at(2026, 7, 4)) == {
        "si_month": Period(at(2026, 6, 30), at(2026, 7, 31)),
        "si_year": Period(at(2026, 3, 31), at(2027, 3, 31)),
    }


def test_months_backwards() -> None:
    assert add_months(at(2027, 3, 31), -1) == at(2027, 2, 28)
    assert add_months(at(2027, 1, 15), -1) == at(2026, 12, 15)


@pytest.mark.parametrize(("interval", "count"), [("fortnight", 1), ("month", 0)])
def test_an_impossible_cadence_is_refused(interval: str, count: int) -> None:
    with pytest.raises(BillingInputError):
        Cadence(interval, count)


def test_a_one_time_price_has_no_cadence() -> None:
    with pytest.raises(BillingInputError, match="not recurring"):
        Cadence.of(price(recurring=None))


def test_a_period_runs_forward_and_knows_its_moments() -> None:
    with pytest.raises(BillingInputError):
        Period(10, 9)
    with pytest.raises(BillingInputError, match="outside"):
        Period(10, 20).remaining(21)


@PROPERTY
@given(
    anchor=st.integers(at(2000, 1, 1), at(2060, 1, 1)),
    moment=st.integers(at(2000, 1, 1), at(2060, 1, 1)),
    cadence=st.builds(Cadence, st.sampled_from(["day", "week", "month", "year"]), st.integers(1, 12)),
)
def test_periods_contain_their_moment_and_follow_on(anchor: int, moment: int, cadence: Cadence) -> None:
    period = period_at(anchor, cadence, moment)
    assert period.start <= moment < period.end
    assert period_at(anchor, cadence, period.end).start == period.end
    assert period_at(anchor, cadence, period.start) == period
