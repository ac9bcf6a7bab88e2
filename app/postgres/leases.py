"""Renew the leases of objects and operations while their holder runs, and queue the callers that wait for one.

A lease lasts `OPERATION_LEASE` seconds. These rules bound it:

- A lease is renewed each third of its length while the work under it runs. So even a short lease outlives a call to
  Stripe, which takes at most 5 s for the budget's grant and 7 s for the answer.
- If a process is killed, its leases end after at most `OPERATION_LEASE` seconds.
- If a process is stopped and resumed later, its leases are lost. It applies no snapshot, because the token is checked
  in the transaction that applies it. It sends no request, because the operation's token is checked in the transaction
  that records the sending.
- The work has its own limits: 7 s for a call, 6 s for a statement, and `OPERATION_DEADLINE` for the retries of a
  request. So no running holder keeps a lease without end.
- A request without an answer may still take effect until `LATE_WINDOW` has passed. So may a request that a proxy in
  front of Stripe answered. Until then only the answer to its own key settles the step.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from app.errors import BillingError
from app.postgres.database import Connection, Database

log = structlog.get_logger(__name__)

_RENEWALS_A_LEASE = 3
ASK_AGAIN_SECONDS = 1.0
"""Interval at which a waiting caller asks for a lease that another process may have released."""

Found = TypeVar("Found")
Renew = Callable[[Connection], Awaitable[object]]


@asynccontextmanager
async def renewing_lease(database: Database, seconds: float, renew: Renew) -> AsyncIterator[None]:
    """Renew a lease of `seconds` until the block ends.

    `renew` must not change a lease that another holder has taken. A renewal that fails is logged, not raised.
    """
    renewal = _Renewal(database, seconds / _RENEWALS_A_LEASE, renew)
    try:
        yield
    finally:
        await renewal.stop()


class _Renewal:
    """A timer that renews a lease. It is no sleeping task because most work ends before the first renewal."""

    def __init__(self, database: Database, every: float, renew: Renew) -> None:
        self._database = database
        self._every = every
        self._renew = renew
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(every, self._begin)

    def _begin(self) -> None:
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._renew_once())
        self._timer = self._loop.call_later(self._every, self._begin)

    async def _renew_once(self) -> None:
        try:
            async with self._database.connection() as connection:
                await self._renew(connection)
        except BillingError as error:
            # The next renewal may still be in time. If none is, the next holder of the lease finishes the work.
            log.warning("lease_not_renewed", reason=error.code)
        except Exception as error:  # The work under the lease must not fail because a renewal did.
            log.error("lease_not_renewed", error=type(error).__name__, exc_info=error)

    async def stop(self) -> None:
        """Cancel the timer and wait for a renewal that is running."""
        self._timer.cancel()
        if self._task is not None:
            await self._task


@dataclass(slots=True)
class _Queue:
    """The callers that wait for one lease.

    The first caller holds `asking`. `released` is set when this process releases the lease.
    """

    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    members: int = 0


class LeaseQueues:
    """The callers in this process that wait for leases, in the order of their arrival for each object.

    Only the first caller asks the database. It asks at once when this process releases the lease, and otherwise every
    ASK_AGAIN_SECONDS, because another process may have released it. No caller holds a connection while it waits.
    """

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}

    def __len__(self) -> int:
        """Return the number of objects for whose lease a caller waits."""
        return len(self._queues)

    async def ask(
        self, object_id: str, attempt: Callable[[], Awaitable[Found | None]], *, seconds: float
    ) -> Found | None:
        """Call `attempt` until it returns a result, and return that; None after `seconds`.

        The time limit never cancels `attempt`, because it may just have taken the lease. Raises what `attempt` raises.
        """
        give_up = asyncio.get_running_loop().time() + seconds
        queue = self._queues.setdefault(object_id, _Queue())
        queue.members += 1
        try:
            try:
                async with asyncio.timeout_at(give_up):
                    await queue.asking.acquire()
            except TimeoutError:
                return None
            try:
                return await self._first(queue, attempt, give_up)
            finally:
                queue.asking.release()
        finally:
            queue.members -= 1
            if not queue.members:
                del self._queues[object_id]

    async def _first(
        self, queue: _Queue, attempt: Callable[[], Awaitable[Found | None]], give_up: float
    ) -> Found | None:
        loop = asyncio.get_running_loop()
        while True:
            queue.released.clear()
            found = await attempt()
            if found is not None or (now := loop.time()) >= give_up:
                return found
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(give_up, now + ASK_AGAIN_SECONDS)):
                    await queue.released.wait()

    def released(self, object_id: str) -> None:
        """Wake the first caller of this process that waits for the lease. Call it after the release is committed."""
        queue = self._queues.get(object_id)
        if queue is not None:
            queue.released.set()
