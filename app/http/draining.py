"""Whether this process is about to end, and how long what it accepted may still run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

ACCEPTED_SECONDS: Final = 20.0
"""Seconds for which accepted requests and operations may run after the process has stopped accepting."""


class Draining:
    """The end of one process.

    `/readyz` answers 503 from `begin` on, so that the balancer sends no more requests. The process goes on accepting
    for `accepting` seconds. `clock` returns monotonic seconds.
    """

    def __init__(self, *, accepting: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._accepting = accepting
        self._clock = clock
        self._stops_at: float | None = None

    @property
    def began(self) -> bool:
        """Return True once the process is to end."""
        return self._stops_at is not None

    @property
    def accepts(self) -> bool:
        """Return False once no more connections may be accepted."""
        return self._stops_at is None or self._clock() < self._stops_at

    def begin(self, *, at_once: bool = False) -> None:
        """Begin to end; `at_once` stops accepting without a delay. A later call can only shorten the delay."""
        stops_at = self._clock() + (0 if at_once else self._accepting)
        self._stops_at = stops_at if self._stops_at is None else min(stops_at, self._stops_at)

    def seconds_left(self) -> float:
        """Return the seconds that accepted work still has, at most ACCEPTED_SECONDS."""
        if self._stops_at is None:
            return ACCEPTED_SECONDS
        return max(0.0, min(ACCEPTED_SECONDS, self._stops_at + ACCEPTED_SECONDS - self._clock()))
