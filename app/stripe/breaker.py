"""Stop calling Stripe while it does not answer, so that callers are answered at once instead of waiting for nothing.

Each process has one breaker for each kind of work. A breaker opens after 5 failures within 5 s. While it is open, no
call of its kind is made, and waiting callers stop waiting. One probe each 5 s asks Stripe for the account. The first
probe that Stripe answers closes every breaker of the process. See
docs/decisions/0045-stop-calling-stripe-while-it-does-not-answer.md.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeVar

import structlog

from app.errors import ServiceUnavailable
from app.stripe import metrics
from app.stripe.budget import KINDS, Kind

log = structlog.get_logger(__name__)

FAILURES = 5
WINDOW_SECONDS = 5.0
PROBE_SECONDS = 5.0
"""Time from one probe to the next."""
OVERDUE_SECONDS = 4.0
"""A request without an answer for so long counts as a failure, although its caller may wait longer for it."""
AWAY_SECONDS = 0.5
"""Longest time that a caller waits for work that has begun, once the breaker is open."""

Result = TypeVar("Result")


class StripeAway(ServiceUnavailable):
    """Raised instead of a call while the breaker is open. Nothing was sent."""

    def __init__(self) -> None:
        super().__init__(
            "Stripe does not answer, so it is not asked for some seconds. Send the request again after Retry-After.",
            retry_after=int(PROBE_SECONDS),
        )


class Health(IntEnum):
    """The state of a breaker, as the gauge shows it. HALF_OPEN: a probe is on its way."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that Stripe did not serve.

    `subject`: the object that it was about. `is_certain`: it shows by itself that Stripe does not answer. Otherwise
    Stripe answered an error that may be about this object only.
    """

    subject: str
    is_certain: bool


@dataclass(slots=True, eq=False)
class Breaker:
    """The breaker of one kind of work. It decides by the failures that it is told, and does no I/O.

    `on_open` is called each time it opens. `clock` returns seconds.
    """

    kind: Kind
    on_open: Callable[[], None]
    clock: Callable[[], float] = time.monotonic
    health: Health = Health.CLOSED
    away: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while the breaker is not closed."""
    _failures: deque[tuple[float, Failure]] = field(default_factory=deque)
    _limits: set[asyncio.Timeout] = field(default_factory=set)
    running: set[asyncio.Future[Any]] = field(default_factory=set)
    """Work that goes on by itself and has not ended."""

    @property
    def is_open(self) -> bool:
        """Return True unless the breaker is closed."""
        return self.health is not Health.CLOSED

    def admit(self) -> None:
        """Check that a call may be made. Raises StripeAway."""
        if self.is_open:
            raise StripeAway()

    def failed(self, failure: Failure) -> None:
        """Count a failure, and open the breaker if it is one too many."""
        if self.is_open:
            return
        now = self.clock()
        self._failures.append((now, failure))
        while self._failures[0][0] <= now - WINDOW_SECONDS:
            self._failures.popleft()
        if _weight([one for _, one in self._failures]) >= FAILURES:
            self._open()

    def _open(self) -> None:
        log.warning("stripe_breaker_opened", kind=self.kind)
        self._failures.clear()
        self.show(Health.OPEN)
        self.away.set()
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            # One that has expired ends its read already, and cannot be moved.
            if not limit.expired():
                limit.reschedule(now)
        self.on_open()

    def close(self) -> None:
        """Close the breaker, because Stripe answered a probe."""
        if not self.is_open:
            return
        log.warning("stripe_breaker_closed", kind=self.kind)
        self.show(Health.CLOSED)
        self.away.clear()

    def show(self, health: Health) -> None:
        """Change the state, and the gauge with it."""
        self.health = health
        metrics.BREAKER.labels(self.kind).set(health)

    @contextmanager
    def ending(self, limit: asyncio.Timeout) -> Iterator[None]:
        """Let the time limit of a read end when the breaker opens."""
        self._limits.add(limit)
        try:
            yield
        finally:
            self._limits.discard(limit)

    async def patiently(self, seconds: float, work: asyncio.Future[Result]) -> Result:
        """Return the result of work that goes on even if its caller stops waiting for it.

        Raises:
            TimeoutError: it took longer than `seconds`, or than AWAY_SECONDS since the breaker has been open.
            Exception: what the work raises.
        """
        if not work.done():
            self.keep(work)
            opening = asyncio.ensure_future(self.away.wait())
            either: set[asyncio.Future[Any]] = {work, opening}
            try:
                await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            finally:
                opening.cancel()
            if not work.done() and self.is_open:
                await asyncio.wait({work}, timeout=AWAY_SECONDS)
        if not work.done():
            raise TimeoutError
        return work.result()

    def keep(self, work: asyncio.Future[Any]) -> None:
        """Let work that goes on by itself end with the process at the latest."""
        self.running.add(work)
        work.add_done_callback(self._ended)

    def _ended(self, work: asyncio.Future[Any]) -> None:
        self.running.discard(work)
        if not work.cancelled():
            # A caller that is gone reads no exception, and asyncio would report it at exit.
            work.exception()


def _weight(failures: list[Failure]) -> int:
    """Return how many of the failures count: those that may be about one object only count from two objects on."""
    doubtful = [one for one in failures if not one.is_certain]
    counted = len(doubtful) if len({one.subject for one in doubtful}) > 1 else 0
    return len(failures) - len(doubtful) + counted


class Breakers:
    """The breakers of a process, with the probe that closes them. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_kind: Mapping[Kind, Breaker] = {
            kind: Breaker(kind, self._begin_probes, clock) for kind in KINDS
        }
        self._probe: Callable[[], Awaitable[bool]] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._answered_at = -math.inf
        for breaker in self._by_kind.values():
            breaker.show(Health.CLOSED)

    def __getitem__(self, kind: Kind) -> Breaker:
        """Return the breaker of a kind of work."""
        return self._by_kind[kind]

    @property
    def worst(self) -> Breaker:
        """Return the breaker that is furthest from closed."""
        return max(self._by_kind.values(), key=lambda breaker: breaker.health)

    @property
    def quiet_seconds(self) -> float:
        """Return the seconds since Stripe last answered this process; infinite if it never did."""
        return self._clock() - self._answered_at

    def answered(self) -> None:
        """Note that Stripe answered."""
        self._answered_at = self._clock()

    def probe_by(self, probe: Callable[[], Awaitable[bool]]) -> None:
        """Set the call that asks Stripe anything, and returns True if Stripe answers. It must not raise."""
        self._probe = probe

    def _begin_probes(self) -> None:
        if self._probing is None and self._probe is not None:
            self._probing = asyncio.create_task(self._probe_until_closed(self._probe))

    async def _probe_until_closed(self, probe: Callable[[], Awaitable[bool]]) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + PROBE_SECONDS
        try:
            while any(breaker.is_open for breaker in self._by_kind.values()):
                await asyncio.sleep(due - loop.time())
                due = loop.time() + PROBE_SECONDS
                asked = [breaker for breaker in self._by_kind.values() if breaker.is_open]
                for breaker in asked:
                    breaker.show(Health.HALF_OPEN)
                answered = await probe()
                for breaker in asked:
                    if answered:
                        breaker.close()
                    elif breaker.is_open:
                        breaker.show(Health.OPEN)
        finally:
            self._probing = None

    async def stop(self) -> None:
        """End the probes, and reads that nobody waits for any more; at shutdown."""
        left = [work for breaker in self._by_kind.values() for work in breaker.running]
        if self._probing is not None:
            left.append(self._probing)
        for work in left:
            work.cancel()
        await asyncio.gather(*left, return_exceptions=True)
