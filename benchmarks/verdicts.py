"""Measured figures beside their bars, and how both are printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import comb
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Interval:
    """Two of the measured values; `coverage` is the probability that the true median lies between them."""

    low: float
    high: float
    coverage: float

    def figures(self) -> dict[str, float]:
        return {"low": round(self.low, 3), "high": round(self.high, 3), "coverage": round(self.coverage, 3)}


def median_interval(values: Sequence[float], *, coverage: float = 0.95) -> Interval:
    """Return the narrowest interval of order statistics that covers the median with at least `coverage`.

    It assumes nothing of the values but independence: each lies below the median with probability 1/2. Fewer than
    six values cannot reach 0.95; the interval is then their whole range, and its own coverage is stated.
    """
    ordered = sorted(values)
    number = len(ordered)
    below, found = 0.0, Interval(ordered[0], ordered[-1], 1 - 2 / 2**number)
    for rank in range((number + 1) // 2):
        below += comb(number, rank) / 2**number
        if 1 - 2 * below < coverage:
            break
        found = Interval(ordered[rank], ordered[-1 - rank], 1 - 2 * below)
    return found


@dataclass(frozen=True, slots=True)
class Bar:
    """`values`: one of each round; their median counts."""

    what: str
    values: list[float]
    limit: float
    at_most: bool = False

    @property
    def value(self) -> float:
        return median(self.values)

    @property
    def met(self) -> bool:
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    @property
    def interval(self) -> Interval:
        return median_interval(self.values)

    def line(self) -> str:
        within = self.interval
        spread = f"({within.low:.2f}..{within.high:.2f})" if len(self.values) > 1 else ""
        sign = "<=" if self.at_most else ">="
        verdict = "met" if self.met else "MISSED"
        return f"{self.what:<62} {self.value:>7.2f} {spread:<14} {sign} {self.limit:<5g} {verdict}"

    def figures(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "value": round(self.value, 3),
            "values": [round(value, 3) for value in self.values],
            "interval": self.interval.figures(),
            "bar": self.limit,
            "at_most": self.at_most,
            "met": self.met,
        }


@dataclass(slots=True)
class Part:
    """What one benchmark found: its own figures, and its lines of the table. `failed` counts refused requests."""

    name: str
    bars: list[Bar] = field(default_factory=list)
    failed: int = 0
    notes: list[str] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def met(self) -> bool:
        return self.failed == 0 and all(bar.met for bar in self.bars)

    def dumped(self) -> dict[str, Any]:
        return {
            "met": self.met,
            "failed": self.failed,
            "bars": [bar.figures() for bar in self.bars],
            "notes": self.notes,
            "figures": self.figures,
        }


def print_verdicts(parts: list[Part]) -> None:
    """One line a bar, and the notes; the median of the rounds, and the interval around it (`median_interval`)."""
    print(f"\n{'':<62} {'median':>7} {'(interval)':<14} bar")
    for part in parts:
        for bar in part.bars:
            print(bar.line())
        if part.failed:
            print(f"{part.name}: {part.failed} requests FAILED")
    for part in parts:
        for note in part.notes:
            print(f"{part.name}: {note}")
