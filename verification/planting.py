"""Defects planted on purpose, in this process alone: a check that never fails proves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

Change = tuple[Any, str, object]
"""Whose attribute, its name, and what stands there while the defect is planted."""


def edited(owner: Any, name: str, *edits: tuple[str, str]) -> Change:
    """A statement with parts replaced. Raises LookupError where it does not contain one."""
    text = getattr(owner, name)
    for old, new in edits:
        if old not in text:
            raise LookupError(f"{name} does not contain {old!r}")
        text = text.replace(old, new)
    return owner, name, text


@contextmanager
def in_place(changes: list[Change]) -> Iterator[None]:
    kept: list[Change] = []
    try:
        for owner, attribute, broken in changes:
            kept.append((owner, attribute, getattr(owner, attribute)))
            setattr(owner, attribute, broken)
        yield
    finally:
        for owner, attribute, original in reversed(kept):
            setattr(owner, attribute, original)
