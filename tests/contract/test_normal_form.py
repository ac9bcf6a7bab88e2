"""An example says the same of time on whatever day it is recorded."""

from calendar import monthrange
from datetime import UTC, datetime, timedelta

import pytest

from tests.contract.normal_form import NormalForm

STARTS = [datetime(2026, 1, 1, 9, tzinfo=UTC) + timedelta(days=day) for day in range(3 * 365)]


def later(start: datetime, months: int) -> datetime:
    """Return the same day so many months later, or the last one of a shorter month."""
    year, month = divmod(start.month - 1 + months, 12)
    days = monthrange(start.year + year, month + 1)[1]
    return start.replace(year=start.year + year, month=month + 1, day=min(start.day, days))


@pytest.mark.parametrize(
    ("months", "expected"),
    [(1, "2026-02-15T12:00:00Z"), (2, "2026-03-15T12:00:00Z"), (12, "2027-01-15T12:00:00Z")],
)
def test_instant_is_the_same_whatever_the_day_of_the_recording(months: int, expected: str) -> None:
    found = {NormalForm(start).of(later(start, months).strftime("%Y-%m-%dT%H:%M:%SZ")) for start in STARTS}
    assert found == {expected}
