"""Places in the log of events: one form for the feed, the snapshot, endpoints and streams.

A place is good for every key and filter, unlike the cursor of a list. It is opaque to callers.
"""

from __future__ import annotations

import re

_FORM = re.compile(r"pl_(0|[1-9][0-9]{0,17})")


def place_of(position: int) -> str:
    """Return the place after the event with this position; 0 is before the first event."""
    return f"pl_{position}"


def position_of(place: str) -> int | None:
    """Return the position that a place names, or None if it is no place."""
    found = _FORM.fullmatch(place)
    return None if found is None else int(found[1])
