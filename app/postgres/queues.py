"""Let transactions that lock the same row wait for each other without a connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.postgres.failures import RowLocked, row_locked


class Queues:
    """One queue for each object on which a transaction runs: the callers that wait, in the order of arrival."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, object_id: str) -> AsyncIterator[None]:
        """Wait for the turn on an object, and have it until the block ends.

        Raises:
            RowLocked: the caller in front found the object's row locked by another session.
        """
        waiting = self._waiting.get(object_id)
        if waiting is None:
            self._waiting[object_id] = deque()
        else:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting.append(turn)
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
        waiting = self._waiting[object_id]
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._waiting[object_id]

    def _refuse_all(self, object_id: str) -> None:
        waiting = self._waiting[object_id]
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_exception(row_locked())
