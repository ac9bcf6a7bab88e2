"""Billing periods that follow a billing cycle anchor; all moments are Unix seconds, all calendars UTC."""

from __future__ import annotations

import calendar
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stripe_simulator.billing.money import BillingInputError

_DAY = 86_400
_SECONDS = {"day": _DAY, "week": 7 * _DAY}
_MONTHS = {"month": 1, "year": 12}


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` up to, not including, `end`."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if self.end < self.start:
            raise BillingInputError(f"period ends before it starts: {self.start} to {self.end}")

    @property
    def seconds(self) -> int:
        return self.end - self.start

    def remaining(self, moment: int) -> int:
        """Seconds from `moment` to the end. Raises BillingInputError when it lies outside the period."""
        if not self.start <= moment <= self.end:
            raise BillingInputError(f"moment {moment} is outside the period {self.start} to {self.end}")
        return self.end - moment


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often a price bills: `interval` day, week, month or year, times `interval_count` (1 or more)."""

    interval: str
    interval_count: int = 1

    def __post_init__(self) -> None:
        if self.interval not in _SECONDS and self.interval not in _MONTHS:
            raise BillingInputError(f"unknown interval: {self.interval!r}")
        if self.interval_count < 1:
            raise BillingInputError(f"interval_count must be 1 or more, not {self.interval_count}")

    @classmethod
    def of(cls, price: Mapping[str, Any]) -> Cadence:
        """The cadence of a recurring price. Raises BillingInputError for a one-time price."""
        recurring = price.get("recurring")
        if not recurring:
            raise BillingInputError(f"price {price.get('id')} is not recurring")
        return cls(recurring["interval"], int(recurring.get("interval_count") or 1))

    def is_multiple_of(self, other: Cadence) -> bool:
        """Whether this interval is a whole number of the other; days and weeks never make up months."""
        if not self.months and not other.months:
            return self.fixed_seconds % other.fixed_seconds == 0
        return bool(self.months and other.months) and self.months % other.months == 0

    @property
    def months(self) -> int:
        """Calendar months in one period, 0 for days and weeks."""
        return _MONTHS.get(self.interval, 0) * self.interval_count

    @property
    def fixed_seconds(self) -> int:
        """Seconds in one period, 0 for months and years, whose length varies."""
        return _SECONDS.get(self.interval, 0) * self.interval_count


def add_months(moment: int, months: int) -> int:
    """The same day and time `months` later (or earlier), on the month's last day where that day is missing."""
    start = datetime.fromtimestamp(moment, UTC)
    years, month_index = divmod(start.year * 12 + start.month - 1 + months, 12)
    day = min(start.day, calendar.monthrange(years, month_index + 1)[1])
    return int(start.replace(year=years, month=month_index + 1, day=day).timestamp())


def boundary(anchor: int, cadence: Cadence, number: int) -> int:
    """The `number`-th renewal counted from the anchor; 0 is the anchor itself, negative ones lie before it.

    Counting from the anchor, never from the last renewal, is what brings 31 January over 28 February back to
    31 March (Stripe's documentation, "Set the subscription billing renewal date").
    """
    if cadence.fixed_seconds:
        return anchor + number * cadence.fixed_seconds
    return add_months(anchor, number * cadence.months)


def period_at(anchor: int, cadence: Cadence, moment: int) -> Period:
    """The full period that contains `moment`; the anchor may lie before or after it."""
    number = _calendar_number(anchor, cadence, moment)
    if boundary(anchor, cadence, number) > moment:
        number -= 1
    return Period(boundary(anchor, cadence, number), boundary(anchor, cadence, number + 1))


def next_period_end(anchor: int, cadence: Cadence, after: int) -> int:
    """The first renewal strictly later than `after`."""
    return period_at(anchor, cadence, after).end


def item_periods(anchor: int, prices: Mapping[str, Mapping[str, Any]], moment: int) -> dict[str, Period]:
    """Current period of each subscription item, by item id; `prices` maps item ids to prices.

    Items of a mixed-interval subscription share the anchor and differ in their own cadence.
    """
    return {item: period_at(anchor, Cadence.of(price), moment) for item, price in prices.items()}


def _calendar_number(anchor: int, cadence: Cadence, moment: int) -> int:
    """Number of the last renewal that falls into the moment's month or an earlier one."""
    if cadence.fixed_seconds:
        return (moment - anchor) // cadence.fixed_seconds
    first, now = datetime.fromtimestamp(anchor, UTC), datetime.fromtimestamp(moment, UTC)
    return ((now.year - first.year) * 12 + now.month - first.month) // cadence.months
