"""An event loop that stands still: it tells one driver when everybody waits, and its clock moves when he says so.

Everybody waits when no callback is ready and no statement is under way in the database. What runs belongs to a
process of the service, which its tasks inherit; a killed process gets no further answer of any sort, so what it
would do on its way out reaches nobody.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, Literal

STARTS_AT = 10_000.0
"""Seconds; a power of two as the step of the clock adds up without rounding."""
STEP = 1 / 1024
STALLED_SECONDS = 0.004
"""Real ones: a statement that takes longer is looked at, whether it waits for a lock."""

Quiet = Literal["idle", "stalled"]


class Killed(BaseException):
    """The process is gone: whatever it still tries ends here."""


class Process:
    """One process of the service; `tasks` in the order in which they began, `killed_at` in seconds of the loop."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.killed_at: float | None = None
        self.tasks: dict[asyncio.Task[Any], None] = {}

    def check(self) -> None:
        if not self.alive:
            raise Killed(self.name)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        token = PROCESS.set(self)
        try:
            return asyncio.get_running_loop().create_task(work)
        finally:
            PROCESS.reset(token)


PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)


class HeldLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._now = STARTS_AT
        self.under_way = 0
        """Statements that the database works on; 0 and nothing ready: everybody waits."""
        self.next_timer: float | None = None
        self._quiet: asyncio.Future[Quiet] | None = None
        super().__init__(_Selector(self))
        self.set_task_factory(_new_task)

    def time(self) -> float:
        return self._now

    def advance_to(self, moment: float) -> None:
        steps = -int(-(moment - STARTS_AT) // STEP)
        self._now = max(self._now, STARTS_AT + steps * STEP)

    def restart_clock(self) -> None:
        """For the next schedule: what was to happen in the last one does not."""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        for timer in list(scheduled):
            timer.cancel()
        scheduled.clear()
        self._now = STARTS_AT

    async def quiet(self) -> Quiet:
        """Returns once everybody waits: `idle`, or `stalled` where a statement has not been answered soon."""
        self._quiet = self.create_future()
        return await self._quiet

    def tell(self, quiet: Quiet) -> bool:
        """False where no driver waits for it."""
        told, self._quiet = self._quiet, None
        if told is None:
            return False
        if not told.done():
            told.set_result(quiet)
        return True


def _new_task(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **more)
    process = PROCESS.get()
    if process is not None:
        process.tasks[task] = None
        task.add_done_callback(lambda ended: process.tasks.pop(ended, None))
    return task


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: HeldLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        loop = self._loop
        loop.next_timer = None if timeout is None else loop.time() + timeout
        if loop.under_way:
            ready = super().select(STALLED_SECONDS)
            if not ready:
                loop.tell("stalled")
            return ready
        ready = super().select(0)
        if ready or loop.tell("idle"):
            return ready
        return super().select(STALLED_SECONDS)


def held_loop() -> HeldLoop:
    loop = asyncio.get_running_loop()
    if not isinstance(loop, HeldLoop):
        raise TypeError("this runs on a HeldLoop only")
    return loop
