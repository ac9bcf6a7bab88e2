"""Let transactions that lock the same row wait for each other without a connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from app.postgres.failures import RowLocked, row_locked


@dataclass(slots=True)
class _Queue:
    """The callers that wait for their turn on one object, while another one has it."""

    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class Queues:
    """One queue for each object on which a transaction runs, in the order of arrival."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}

    @asynccontextmanager
    async def turn(self, object_id: str) -> AsyncIterator[None]:
        """Wait for the turn on an object, and have it until the block ends.

        Raises:
            RowLocked: the caller in front found the object's row locked by another session.
        """
        queue = self._queues.get(object_id)
        if queue is None:
            self._queues[object_id] = _Queue()
        else:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            queue.waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                # The turn may have come in the same moment.
                if turn.done() and not turn.cancelled() and turn.exception() is None:
                    self._next(object_id)
                raise
        try:
            yield
        except RowLocked:
            self._refuse_all(object_id)
            raise
        finally:
            self._next(object_id)

    def _next(self, object_id: str) -> None:
        waiting = self._queues[object_id].waiting
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._queues[object_id]

    def _refuse_all(self, object_id: str) -> None:
        waiting = self._queues[object_id].waiting
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_exception(row_locked())
