"""Measured figures beside their bars, and how both are printed."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any


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

    def line(self) -> str:
        spread = f"({min(self.values):.2f}..{max(self.values):.2f})" if len(self.values) > 1 else ""
        sign = "<=" if self.at_most else ">="
        verdict = "met" if self.met else "MISSED"
        return f"{self.what:<62} {self.value:>7.2f} {spread:<14} {sign} {self.limit:<5g} {verdict}"

    def figures(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "value": round(self.value, 3),
            "values": [round(value, 3) for value in self.values],
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
    """One line a bar, and the notes; the median of the rounds, and their range."""
    print(f"\n{'':<62} {'median':>7} {'(range)':<14} bar")
    for part in parts:
        for bar in part.bars:
            print(bar.line())
        if part.failed:
            print(f"{part.name}: {part.failed} requests FAILED")
    for part in parts:
        for note in part.notes:
            print(f"{part.name}: {note}")
