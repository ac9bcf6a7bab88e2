"""Bound the requests that one process runs and those that wait for a place.

The rest is answered 503 with `Retry-After`. The caller of a request that waits for long has often gone when the answer
comes. So a request that would wait too long is refused at once, and its caller can try again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import Overloaded
from app.http import problems

LONGEST_WAIT: Final = 2.0
"""Seconds that a request may wait for a place."""
RETRY_AFTER: Final = 1
_ALWAYS = frozenset({"/healthz", "/readyz", "/metrics"})


class ConcurrencyLimit:
    """ASGI layer that runs at most `most` requests at the same time.

    At most `waiting` more wait for a place. Health checks and metrics are never refused or delayed.
    """

    def __init__(self, app: ASGIApp, *, most: int, waiting: int) -> None:
        self.app = app
        self.most = most
        self.most_waiting = waiting
        self.working = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the inner application once there is a place, or answer 503."""
        if self.working < self.most and scope["type"] == "http":
            self.working += 1
        elif not await self._let_in(scope, receive, send):
            return
        try:
            await self.app(scope, receive, send)
        finally:
            if self._waiting:
                self._leave()
            else:
                self.working -= 1

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Return True if the request has a place.

        Otherwise it has been answered: it needed no place, or there was none.
        """
        if scope["type"] != "http" or scope["path"] in _ALWAYS:
            await self.app(scope, receive, send)
            return False
        if await self._turn():
            return True
        await problems.render(Overloaded(retry_after=RETRY_AFTER), Request(scope))(scope, receive, send)
        return False

    async def _turn(self) -> bool:
        """Wait for a place.

        Return False if too many requests wait already, or after LONGEST_WAIT.
        """
        if len(self._waiting) >= self.most_waiting:
            return False
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(LONGEST_WAIT):
                await turn
        except BaseException as error:
            if not turn.cancelled():
                # The place was handed over in the same moment, so it goes to the next request.
                self._leave()
            with suppress(ValueError):
                self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def _leave(self) -> None:
        """Hand the place to the request that has waited longest, or give it up."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.working -= 1
