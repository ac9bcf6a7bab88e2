"""Draw grants from the account's rate budget for the calls of this process.

Calls that wait together share one draw, and an interactive draw brings spare grants for the next calls. Processes do
not have fixed shares of the rate: they start and stop on several machines, and the share of an idle process must be
available to the others within a second. A single call pays one statement of about half a millisecond. See
docs/decisions/0031-grant-stripes-rate-call-by-call.md.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from app.errors import BillingError, ServiceUnavailable
from app.postgres import rate_budget
from app.postgres.database import Database
from app.postgres.rate_budget import Limits
from app.stripe.budget import Work

ENDPOINT_PER_SECOND = 25
"""Stripe's limit for each endpoint, in calls a second. Source: https://docs.stripe.com/rate-limits"""
ENDPOINT_SHARE = 0.25
"""Fraction of the account's limit that an endpoint gets if Stripe has raised that limit: we assume the same factor."""
BACKGROUND_SHARE = 0.8
"""Fraction of the limit of an endpoint for single objects that background work may use. The rest is for callers."""
SHARES = {"interactive": 0.2, "refresh": 0.2, "bulk": 0.1}
SPEND_SECONDS = {"interactive": 0.15, "refresh": 0.05, "bulk": 0.035}
"""Longest time from a grant to its call. A process that was busy for longer draws again.

Otherwise its calls could coincide with later ones. Steady grants are further apart than the limit by this factor, so
bulk work loses 3.5 % of the rate.
"""
LATE_SECONDS = {"interactive": 0.0, "refresh": 0.0, "bulk": 0.02}
"""Further time that a process allows its own bulk calls. Its record of when calls began keeps the limit for them."""
APART_SECONDS = 1.035
"""Time between a call and the one that is the endpoint's limit later. Calls arrive unevenly by some milliseconds."""
KEEP_SECONDS = 0.5
DELAY_SECONDS = 0.1
AHEAD_SECONDS = 0.2
SPARE = 2
RECOVERY_SECONDS = 30.0
SLOWDOWN, SLOWEST = 0.75, 0.1
_PATIENCE: dict[Work, float] = {"interactive": 5.0, "refresh": 10.0, "bulk": 300.0}
"""Longest wait for a grant, in seconds. A refresh holds its lease during the wait."""
_LONGEST_NAP = 0.25


class BudgetSpent(ServiceUnavailable):
    """Raised when a call got no grant in time, because other work uses the account's rate. Nothing was sent."""


@dataclass(slots=True)
class _Lane:
    """The calls of one kind of work to one endpoint.

    `waiting` are calls without a grant, `spare` the end times of unused grants, by the loop's clock.
    """

    waiting: deque[asyncio.Future[float]] = field(default_factory=deque)
    spare: deque[float] = field(default_factory=deque)
    drawer: asyncio.Task[None] | None = None


class RateBudget:
    """The rate budget as one process uses it. Each try of a call to Stripe acquires one grant."""

    def __init__(self, database: Database, *, per_second: int) -> None:
        self._database = database
        self._per_endpoint = max(ENDPOINT_PER_SECOND, int(per_second * ENDPOINT_SHARE))
        self._limits = Limits(
            per_second, SHARES, KEEP_SECONDS, DELAY_SECONDS, AHEAD_SECONDS, RECOVERY_SECONDS
        )
        self._lanes: dict[tuple[Work, str], _Lane] = {}
        self._begun: dict[str, deque[float]] = {}

    async def acquire(self, work: Work, endpoint: str) -> None:
        """Wait until a call may begin.

        Raises:
            BudgetSpent: no grant within 5 s for interactive work, 10 s for refreshes, 300 s for bulk work.
            ServiceUnavailable: the database does not answer.
        """
        if work == "fresh":
            # Both are for callers who wait, and have one share of the rate.
            work = "interactive"
        lane = self._lanes.setdefault((work, endpoint), _Lane())
        begun = self._begun.setdefault(endpoint, deque(maxlen=self._per_endpoint))
        loop = asyncio.get_running_loop()
        while lane.spare:
            if lane.spare.popleft() > loop.time():
                begun.append(loop.time())
                return
        try:
            async with asyncio.timeout(_PATIENCE[work]):
                while not await _begin(begun, until=await self._granted(lane, work, endpoint)):
                    pass
        except TimeoutError as error:
            raise BudgetSpent("All of Stripe's rate budget is in use.", retry_after=1) from error

    def _granted(self, lane: _Lane, work: Work, endpoint: str) -> asyncio.Future[float]:
        """Return a future of the time until which the grant may be spent, by the loop's clock."""
        loop = asyncio.get_running_loop()
        granted: asyncio.Future[float] = loop.create_future()
        lane.waiting.append(granted)
        if lane.drawer is None:
            lane.drawer = loop.create_task(self._draw(lane, work, endpoint))
        return granted

    async def slow_down(self) -> None:
        """Lower the rate of all processes for a while after Stripe answered 429. Raises ServiceUnavailable."""
        async with self._database.connection() as connection:
            await rate_budget.slow_down(
                connection, factor=SLOWDOWN, lowest=SLOWEST, recovery_seconds=RECOVERY_SECONDS
            )

    async def close(self) -> None:
        """Cancel the draws that are running. Waiting calls get ServiceUnavailable."""
        drawers = [lane.drawer for lane in self._lanes.values() if lane.drawer is not None]
        for drawer in drawers:
            drawer.cancel()
        await asyncio.gather(*drawers, return_exceptions=True)

    async def _draw(self, lane: _Lane, work: Work, endpoint: str) -> None:
        """Draw until no call waits. If a draw fails, all waiting calls get its error."""
        pause: float | None = 0.0
        failure: BillingError = ServiceUnavailable("The rate budget cannot be asked.", retry_after=2)
        try:
            while pause is not None:
                await asyncio.sleep(pause)
                pause = await self._draw_once(lane, work, endpoint)
        except BillingError as error:
            failure = error
        finally:
            lane.drawer = None
            while lane.waiting:
                _fail(lane.waiting.popleft(), failure)

    async def _draw_once(self, lane: _Lane, work: Work, endpoint: str) -> float | None:
        """Draw once; return the seconds until the next draw may succeed, or None if no call waits."""
        wanted = _who_wait(lane)
        if not wanted:
            return None
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        in_background = work != "interactive"
        share = BACKGROUND_SHARE if in_background and "{id}" in endpoint else 1.0
        async with self._database.connection() as connection:
            found = await rate_budget.draw(
                connection,
                self._limits,
                spend_seconds=SPEND_SECONDS[work],
                work=work,
                endpoint=endpoint,
                wanted=wanted,
                wanted_spare=0 if in_background else SPARE,
                endpoint_limit=int(self._per_endpoint * share),
                steady=in_background,
            )
        answered_at = loop.time()
        usable = SPEND_SECONDS[work] + LATE_SECONDS[work]
        for number in range(min(found.granted, _who_wait(lane))):
            waiter = lane.waiting.popleft()
            moment = answered_at + found.first_seconds + number * found.gap_seconds
            if moment > answered_at:
                loop.call_at(moment, _grant, waiter, moment + usable)
            else:
                _grant(waiter, moment + usable)
        # The database made them after they were asked for, so they end at this time or later.
        lane.spare.extend([asked_at + KEEP_SECONDS] * found.spare)
        return 0.0 if found.granted >= wanted else min(found.wait_seconds, _LONGEST_NAP)


async def _begin(begun: deque[float], *, until: float) -> bool:
    """Wait until this process's earlier calls are far enough in the past; False if the grant ends before.

    `begun` are the start times of the last calls, as many as the endpoint's limit.
    """
    loop = asyncio.get_running_loop()
    while (now := loop.time()) <= until:
        first = begun[0] + APART_SECONDS if len(begun) == begun.maxlen else now
        if first <= now:
            begun.append(now)
            return True
        if first > until:
            return False
        await asyncio.sleep(first - now)
    return False


def _who_wait(lane: _Lane) -> int:
    """Remove calls that timed out or were cancelled, and return the number of the others."""
    lane.waiting = deque(waiter for waiter in lane.waiting if not waiter.done())
    return len(lane.waiting)


def _grant(waiter: asyncio.Future[float], ends_at: float) -> None:
    if not waiter.done():
        waiter.set_result(ends_at)


def _fail(waiter: asyncio.Future[float], error: BillingError) -> None:
    if not waiter.done():
        # One exception that is raised in several tasks would collect all their tracebacks.
        waiter.set_exception(type(error)(error.detail, code=error.code, retry_after=error.retry_after))
