"""Faults planted on purpose: each is one slip of the service, and each has to be noticed by an invariant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.planting import Change


@dataclass(frozen=True, slots=True)
class Defect:
    """`breaks`: the letters of the invariants that must notice it."""

    breaks: str
    changes: Callable[[], list[Change]]


DEFECTS: dict[str, Defect] = {}
