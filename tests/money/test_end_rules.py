"""The ends that a caller can name, the one in force, and what is billed until then."""

from datetime import UTC, datetime
from typing import Any

import pytest

from app.subscriptions.ends import (
    PeriodEnds,
    When,
    end_in_force,
    ending_params,
    further_charges,
    period_ends,
    resuming_params,
)


def at(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp())  # type: ignore[misc, arg-type]


def item(start: int, end: int | None, interval: str = "month", count: int = 1) -> dict[str, Any]:
    return {
        "id": f"si_{interval}",
        "current_period_start": start,
        "current_period_end": end,
        "price": {"id": f"price_{interval}", "recurring": {"interval": interval, "interval_count": count}},
    }


MONTHLY = item(at(2026, 1, 5), at(2026, 2, 5))
YEARLY = item(at(2026, 1, 5), at(2027, 1, 5), "year")


def test_period_ends_differ_when_intervals_do() -> None:
    assert period_ends([MONTHLY]) == PeriodEnds(at(2026, 2, 5), at(2026, 2, 5))
    both = period_ends([MONTHLY, YEARLY])
    assert both is not None and both.differ
    assert (both.of(When.EARLIEST), both.of(When.LATEST)) == (at(2026, 2, 5), at(2027, 1, 5))
    assert period_ends([item(0, None)]) is None


def test_end_in_force_is_the_earliest_when_stripe_ends_at_the_period() -> None:
    """T10: a person's `cancel_at_period_end` on items of different ends means the earliest."""
    ends = PeriodEnds(10, 20)
    assert end_in_force(ends, cancel_at=None, cancel_at_period_end=False) is None
    assert end_in_force(ends, cancel_at=15, cancel_at_period_end=False) == 15
    assert end_in_force(ends, cancel_at=None, cancel_at_period_end=True) == 10
    assert end_in_force(ends, cancel_at=10, cancel_at_period_end=True) == 10


@pytest.mark.parametrize(
    ("when", "common", "different"),
    [
        (When.PERIOD_END, {"cancel_at_period_end": True}, "min_period_end"),
        (When.EARLIEST, {"cancel_at_period_end": True}, "min_period_end"),
        (When.LATEST, {"cancel_at_period_end": True}, "max_period_end"),
    ],
)
def test_ending_names_the_end_only_when_ends_differ(
    when: When, common: dict[str, Any], different: str
) -> None:
    """M18: nothing is credited for the periods that a named end cuts short."""
    assert ending_params(when, PeriodEnds(10, 10)) == common
    named = {"cancel_at": different, "proration_behavior": "none"}
    assert ending_params(when, PeriodEnds(10, 20)) == named


def test_resuming_takes_back_whichever_end_is_set() -> None:
    assert resuming_params(cancel_at=10, cancel_at_period_end=False) == {"cancel_at": ""}
    assert resuming_params(cancel_at=10, cancel_at_period_end=True) == {"cancel_at_period_end": False}
    assert resuming_params(cancel_at=None, cancel_at_period_end=True) == {"cancel_at_period_end": False}


def test_further_charges_are_the_renewals_before_the_end() -> None:
    assert further_charges([MONTHLY, YEARLY], at(2026, 2, 5)) == []
    assert further_charges([MONTHLY, YEARLY], None) == []
    [charge] = further_charges([MONTHLY, YEARLY], at(2027, 1, 5))
    assert (charge.subscription_item_id, charge.renewals, charge.next_at) == ("si_month", 11, at(2026, 2, 5))
    assert charge.as_members()["next_at"] == datetime(2026, 2, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "until", "renewals"),
    [
        (item(at(2026, 1, 31), at(2026, 2, 28)), at(2026, 3, 31), 1),
        (item(at(2026, 2, 28), at(2026, 3, 31)), at(2026, 4, 30), 1),
        (item(at(2026, 1, 31), at(2026, 2, 28)), at(2027, 1, 31), 11),
        (item(at(2026, 1, 31), at(2026, 4, 30), "month", 3), at(2027, 1, 31), 3),
        (item(at(2026, 1, 5), at(2026, 1, 6), "day"), at(2026, 1, 13), 7),
        (item(at(2026, 1, 5), at(2026, 1, 12), "week"), at(2026, 1, 26), 2),
        (item(at(2024, 2, 29), at(2025, 2, 28), "year"), at(2028, 2, 29), 3),
    ],
)
def test_renewals_keep_the_anchors_day_when_months_are_short(
    given: dict[str, Any], until: int, renewals: int
) -> None:
    [charge] = further_charges([given], until)
    assert charge.renewals == renewals
