"""Tell a 429 that is about one object from one that is about the account's rate.

Stripe limits some objects by themselves, for example the invoices of one subscription, and does not always say so. If
only one object is refused, only its calls wait. If two different objects are refused within some seconds, the rate of
all processes is too high.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

WINDOW_SECONDS: Final = 5.0
_FIRST_PAUSE_SECONDS: Final = 0.25
_LONGEST_PAUSE_SECONDS: Final = 4.0


@dataclass(frozen=True, slots=True)
class _Refused:
    """The last refusal of an object, and the pause after it. Both are in seconds."""

    at: float
    pause: float


class RateRefusals:
    """The refusals that this process got. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refused: dict[str, _Refused] = {}

    def note(self, subject: str) -> bool:
        """Note that a call about this object was refused; True if another one was within WINDOW_SECONDS.

        The next call about it waits for a pause that doubles with each refusal, from 0.25 s to 4 s.
        """
        now = self._clock()
        self._refused = {name: one for name, one in self._refused.items() if one.at > now - WINDOW_SECONDS}
        before = self._refused.get(subject)
        pause = _FIRST_PAUSE_SECONDS
        if before is not None and before.pause:
            pause = min(2 * before.pause, _LONGEST_PAUSE_SECONDS)
        self._refused[subject] = _Refused(now, pause)
        return len(self._refused) > 1

    def pause(self, subject: str) -> float:
        """Return the seconds that a call about this object has to wait. They are 0 unless it was just refused."""
        found = self._refused.get(subject)
        return 0.0 if found is None else max(0.0, found.at + found.pause - self._clock())

    def served(self, subject: str) -> None:
        """Let the next call about an object begin at once, because Stripe has served one about it."""
        found = self._refused.get(subject)
        if found is not None:
            self._refused[subject] = replace(found, pause=0.0)
