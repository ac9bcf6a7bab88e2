"""A problem that the doctor reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["fix", "notice"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem.

    The severity `fix` is for metadata without effect and for faults that delay the sync. A `notice` is information.
    """

    check: str
    object: str
    problem: str
    fix: str
    severity: Severity = "fix"
