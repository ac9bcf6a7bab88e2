"""This process's part in the account's request budget: waiting calls share a draw, spare grants wait for the next.

Why grants and not a local share of the rate: processes come and go, on several machines, and a share that one of
them does not use must serve the others within a second. A lone call pays one statement of about half a millisecond
before a call that takes hundreds; calls that come together pay one for all, and someone who waits finds spare grants.
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
"""Stripe's limit for each endpoint (its page on rate limits), beside 100 for the account."""
ENDPOINT_SHARE = 0.25
"""Of the account's limit, where Stripe has raised it: its endpoints are taken to be raised in proportion."""
BACKGROUND_SHARE = 0.8
"""Of an endpoint that reads single objects, for work that nobody waits for; the rest is kept for those who do."""
SHARES = {"interactive": 0.2, "refresh": 0.2, "bulk": 0.1}
SPEND_SECONDS = {"interactive": 0.15, "refresh": 0.05, "bulk": 0.035}
"""From a grant to its call. A process that was busy for longer asks anew: else its calls would meet later ones.

Steady grants are that much further apart than the limit asks for, so bulk work loses 3.5 % of the rate by it.
"""
LATE_SECONDS = {"interactive": 0.0, "refresh": 0.0, "bulk": 0.02}
"""Beyond that, for what one process does at a time: its own record of what began when keeps the limit there."""
APART_SECONDS = 1.035
"""Between a call and the one that follows it by the endpoint's limit: calls arrive by some milliseconds unevenly."""
KEEP_SECONDS = 0.5
DELAY_SECONDS = 0.1
AHEAD_SECONDS = 0.2
SPARE = 2
RECOVERY_SECONDS = 30.0
SLOWDOWN, SLOWEST = 0.75, 0.1
_PATIENCE: dict[Work, float] = {"interactive": 5.0, "refresh": 10.0, "bulk": 300.0}
"""Seconds that a call waits for its grant; a refresh holds a lease meanwhile."""
_LONGEST_NAP = 0.25


class BudgetSpent(ServiceUnavailable):
    """Nothing was sent: the account's rate is in use by work that goes first, or by too many who wait."""


@dataclass(slots=True)
class _Lane:
    """Calls of one kind of work to one endpoint: who waits, and grants left over with the time they end."""

    waiting: deque[asyncio.Future[float]] = field(default_factory=deque)
    spare: deque[float] = field(default_factory=deque)
    drawer: asyncio.Task[None] | None = None


class RateBudget:
    """One a process. Every call to Stripe acquires one grant, the second and later attempts of a call as well."""

    def __init__(self, database: Database, *, per_second: int) -> None:
        self._database = database
        self._per_endpoint = max(ENDPOINT_PER_SECOND, int(per_second * ENDPOINT_SHARE))
        self._limits = Limits(
            per_second, SHARES, KEEP_SECONDS, DELAY_SECONDS, AHEAD_SECONDS, RECOVERY_SECONDS
        )
        self._lanes: dict[tuple[Work, str], _Lane] = {}
        self._begun: dict[str, deque[float]] = {}

    async def acquire(self, work: Work, endpoint: str) -> None:
        """Raises BudgetSpent after the work's patience, and ServiceUnavailable while the database is away."""
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
        """Will hold the time until which the grant may be spent."""
        loop = asyncio.get_running_loop()
        granted: asyncio.Future[float] = loop.create_future()
        lane.waiting.append(granted)
        if lane.drawer is None:
            lane.drawer = loop.create_task(self._draw(lane, work, endpoint))
        return granted

    async def slow_down(self) -> None:
        async with self._database.connection() as connection:
            await rate_budget.slow_down(
                connection, factor=SLOWDOWN, lowest=SLOWEST, recovery_seconds=RECOVERY_SECONDS
            )

    async def close(self) -> None:
        drawers = [lane.drawer for lane in self._lanes.values() if lane.drawer is not None]
        for drawer in drawers:
            drawer.cancel()
        await asyncio.gather(*drawers, return_exceptions=True)

    async def _draw(self, lane: _Lane, work: Work, endpoint: str) -> None:
        """Draws until nobody waits; what goes wrong is told to all who do."""
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
        """Seconds until the next draw is worth its statement, None when nobody waits any more."""
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
        # These were made no earlier than they were asked for, so they end no earlier than this.
        lane.spare.extend([asked_at + KEEP_SECONDS] * found.spare)
        return 0.0 if found.granted >= wanted else min(found.wait_seconds, _LONGEST_NAP)


async def _begin(begun: deque[float], *, until: float) -> bool:
    """Waits while this process's own calls, of which some began late, are too close; False when the grant is over.

    `begun` holds the beginnings of the last calls, as many as the endpoint's limit.
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
    """Whoever lost patience, or was cancelled, waits no more."""
    lane.waiting = deque(waiter for waiter in lane.waiting if not waiter.done())
    return len(lane.waiting)


def _grant(waiter: asyncio.Future[float], ends_at: float) -> None:
    if not waiter.done():
        waiter.set_result(ends_at)


def _fail(waiter: asyncio.Future[float], error: BillingError) -> None:
    if not waiter.done():
        # One exception raised in several tasks would gather all of their tracebacks.
        waiter.set_exception(type(error)(error.detail, code=error.code, retry_after=error.retry_after))
