"""One rule for every lease, of an object as of an operation: it lasts `OPERATION_LEASE`, and is renewed while its
holder lives.

What bounds what:

- A lease is renewed after a third of its length, as often as the work under it takes. So it outlives any call to
  Stripe (at most 5 s for a grant of the budget and 10 s for the answer), however short it is.
- A process that is killed leaves its leases to run out: what it held is free again after at most `OPERATION_LEASE`.
- A process that is stopped and goes on later finds its leases gone. It lands nothing (the token is checked in the
  landing's transaction) and begins to send nothing (the operation's token is checked where a sending is recorded).
- The work itself ends by its own bounds: 10 s a call, 15 s a statement, a request's `OPERATION_DEADLINE` for trying
  again. So no living holder keeps a lease for ever.
- A request that was sent and never answered may take effect until `LATE_WINDOW` has passed, and so may one that was
  answered by a proxy in front of Stripe: until then its step is not settled by anything but the answer of its own key.
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
"""After which a lease that another process may have released is asked for again."""

Found = TypeVar("Found")
Renew = Callable[[Connection], Awaitable[object]]


@asynccontextmanager
async def renewing_lease(database: Database, seconds: float, renew: Renew) -> AsyncIterator[None]:
    """Renews a lease of so many seconds until the block ends. `renew` must leave alone what is another's by now."""
    keeper = _Keeper(database, seconds / _RENEWALS_A_LEASE, renew)
    try:
        yield
    finally:
        await keeper.stop()


class _Keeper:
    """A timer, not a task that sleeps: most work ends long before the first renewal."""

    def __init__(self, database: Database, every: float, renew: Renew) -> None:
        self._database = database
        self._every = every
        self._renew = renew
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(every, self._begin)

    def _begin(self) -> None:
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._once())
        self._timer = self._loop.call_later(self._every, self._begin)

    async def _once(self) -> None:
        try:
            async with self._database.connection() as connection:
                await self._renew(connection)
        except BillingError as error:
            # The next renewal may be in time; if none is, the lease's next holder does what is left.
            log.warning("lease_not_renewed", reason=error.code)

    async def stop(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            await self._task


@dataclass(slots=True)
class _Queue:
    """`asking` is held by the first of those who wait; `released` is set when a lease of this process ends."""

    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    members: int = 0


class LeaseQueues:
    """Those in this process who wait for the lease of an object, in the order in which they came.

    Only the first of them asks the database: at once when this process releases the lease, and otherwise every
    ASK_AGAIN_SECONDS, because another process may have released it. Nobody holds a connection between.
    """

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}

    def __len__(self) -> int:
        """The number of objects whose lease is asked for."""
        return len(self._queues)

    async def ask(
        self, object_id: str, attempt: Callable[[], Awaitable[Found | None]], *, seconds: float
    ) -> Found | None:
        """Return what `attempt` found, called again until it finds something; None after `seconds`.

        `attempt` is never cancelled by the end of the time: it may just have taken the lease.
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
        """Wake the first who waits in this process, once the release is committed."""
        queue = self._queues.get(object_id)
        if queue is not None:
            queue.released.set()
