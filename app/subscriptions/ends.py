"""When a subscription ends, and what is billed until then.

Pure. Items of different intervals have periods of different lengths. So "the period's end" has one meaning only while
all periods end together; otherwise the caller names the earliest or the latest end
(docs/decisions/0005-let-only-the-caller-choose-between-ends-that-differ.md).
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from app.domain.snapshots import JsonObject

_DAY_SECONDS = 86_400
_DAYS = {"day": 1, "week": 7}
_MONTHS = {"month": 1, "year": 12}


class When(StrEnum):
    """The end that a caller asks for."""

    PERIOD_END = "period_end"
    EARLIEST = "earliest_period_end"
    LATEST = "latest_period_end"
    NOW = "now"


@dataclass(frozen=True, slots=True)
class PeriodEnds:
    """The ends of the running periods of a subscription's items, in Unix seconds."""

    earliest: int
    latest: int

    @property
    def differ(self) -> bool:
        """Return True if the periods do not end together."""
        return self.earliest != self.latest

    def of(self, when: When) -> int:
        """Return the end that `when` means, in Unix seconds."""
        return self.latest if when is When.LATEST else self.earliest


def period_ends(items: Sequence[JsonObject]) -> PeriodEnds | None:
    """Return the ends of the running periods; None if no item has a period."""
    ends = [item["current_period_end"] for item in items if item["current_period_end"] is not None]
    return PeriodEnds(min(ends), max(ends)) if ends else None


def end_in_force(ends: PeriodEnds | None, *, cancel_at: int | None, cancel_at_period_end: bool) -> int | None:
    """Return when the subscription will end, in Unix seconds; None if it goes on.

    Stripe resolves `cancel_at_period_end` to the earliest end of a period (changelog 2025-07-30.basil) and shows it as
    `cancel_at` too.
    """
    if cancel_at is None and cancel_at_period_end and ends is not None:
        return ends.earliest
    return cancel_at


def ending_params(when: When, ends: PeriodEnds | None) -> JsonObject:
    """Return Stripe's parameters for an end.

    Only one common end may follow later changes of the items; a named end is fixed. A named end may lie within the
    period of another item. Stripe would credit the rest of that period, paid or not, unless prorations are off (SDK,
    `cancel_at`).
    """
    if ends is None or not ends.differ:
        return {"cancel_at_period_end": True}
    named = "max_period_end" if when is When.LATEST else "min_period_end"
    return {"cancel_at": named, "proration_behavior": "none"}


def resuming_params(*, cancel_at: int | None, cancel_at_period_end: bool) -> JsonObject:
    """Return Stripe's parameters that take back whichever end is set.

    The two parameters cannot be sent together.
    """
    if cancel_at is not None and not cancel_at_period_end:
        return {"cancel_at": ""}
    return {"cancel_at_period_end": False}


@dataclass(frozen=True, slots=True)
class FurtherCharge:
    """An item that renews before the end.

    `renewals`: how many times, at least 1. `next_at`: the first time, Unix seconds.
    """

    subscription_item_id: str
    price_id: str
    renewals: int
    next_at: int

    def as_members(self) -> JsonObject:
        """Return the members of an answer."""
        return {
            "subscription_item_id": self.subscription_item_id,
            "price_id": self.price_id,
            "renewals": self.renewals,
            "next_at": datetime.fromtimestamp(self.next_at, UTC),
        }


def further_charges(items: Sequence[JsonObject], until: int | None) -> list[FurtherCharge]:
    """Return the items that are billed again before `until`.

    An item whose period ends at `until` is not.
    """
    found = []
    for item in items:
        end, recurring = item["current_period_end"], item["price"]["recurring"]
        if until is None or end is None or not recurring or end >= until:
            continue
        renewals = sum(1 for _ in _renewals(item, until))
        found.append(FurtherCharge(item["id"], item["price"]["id"], renewals, end))
    return found


def _renewals(item: JsonObject, until: int) -> Iterator[int]:
    """Yield the ends of the item's periods before `until`, in Unix seconds.

    A period of months ends on the anchor's day, or on the last day of a shorter month. The anchor's day is the later
    one of the running period's two ends: at most one of them was shortened.
    """
    start, end = item["current_period_start"], item["current_period_end"]
    recurring = item["price"]["recurring"]
    count = recurring["interval_count"] or 1
    if recurring["interval"] in _DAYS:
        yield from range(end, until, _DAYS[recurring["interval"]] * count * _DAY_SECONDS)
        return
    first = datetime.fromtimestamp(end, UTC)
    day = max(first.day, first.day if start is None else datetime.fromtimestamp(start, UTC).day)
    step = _MONTHS.get(recurring["interval"], 1) * count
    month = first.year * 12 + first.month - 1
    moment = end
    while moment < until:
        yield moment
        month += step
        year, number = divmod(month, 12)
        last = calendar.monthrange(year, number + 1)[1]
        moment = int(first.replace(year=year, month=number + 1, day=min(day, last)).timestamp())
