"""Leave out log lines that repeat, so that a storm of errors does not fill the disk.

If Stripe or PostgreSQL is away, thousands of requests fail alike within seconds. The first lines of each kind say all
that there is to say.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Hashable

import structlog
from structlog.typing import EventDict, WrappedLogger

MOST = 20
"""Lines of one kind that are written within SECONDS."""
SECONDS = 5.0
_KIND = ("event", "level", "operation", "status", "code", "reason", "error")
_REFUSED = 400


class Sampling:
    """Counts the lines of each kind in spans of SECONDS. `clock` returns monotonic seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._seen: Counter[Hashable] = Counter()
        self._left_out = 0

    def admits(self, kind: Hashable) -> bool:
        """Count a line, and return True if it is to be written."""
        now = self._clock()
        if now - self._since >= SECONDS:
            self._since = now
            self._seen.clear()
        self._seen[kind] += 1
        if self._seen[kind] <= MOST:
            return True
        self._left_out += 1
        return False

    def take_left_out(self) -> int:
        """Return the number of lines that were left out since the last call."""
        number, self._left_out = self._left_out, 0
        return number

    def process(self, _: WrappedLogger, level: str, event: EventDict) -> EventDict:
        """Drop a line that repeats too often, as a processor of structlog.

        The record of a request that succeeded is always written. The next line that is written says how many were left
        out.
        """
        status = event.get("status")
        if level in ("debug", "info") and not (isinstance(status, int) and status >= _REFUSED):
            return event
        if not self.admits((level, *(str(event.get(name)) for name in _KIND))):
            raise structlog.DropEvent
        if number := self.take_left_out():
            event["lines_left_out"] = number
        return event

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for a record of a library that repeats too often."""
        return self.admits((record.name, record.levelno, str(record.msg)))
