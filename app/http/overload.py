"""How much one process takes on: so many requests at work, so many waiting for them, and 503 for the rest.

A request that waits for long would be answered to somebody who has gone: it is better told at once to come again.
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
"""Seconds in the queue."""
RETRY_AFTER: Final = 1
_ALWAYS = frozenset({"/healthz", "/readyz", "/metrics"})


class AtOnce:
    """Lets `most` requests work at the same time; what operators ask comes through in any case."""

    def __init__(self, app: ASGIApp, *, most: int, waiting: int) -> None:
        self.app = app
        self.most = most
        self.most_waiting = waiting
        self.working = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
        """False: it needed no place, or got none; it has been answered."""
        if scope["type"] != "http" or scope["path"] in _ALWAYS:
            await self.app(scope, receive, send)
            return False
        if await self._turn():
            return True
        await problems.render(Overloaded(retry_after=RETRY_AFTER), Request(scope))(scope, receive, send)
        return False

    async def _turn(self) -> bool:
        """Waits for the place of somebody who leaves; False where there are too many, or it takes too long."""
        if len(self._waiting) >= self.most_waiting:
            return False
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(LONGEST_WAIT):
                await turn
        except BaseException as error:
            if not turn.cancelled():
                # The place was handed over in the same moment: it goes to the next.
                self._leave()
            with suppress(ValueError):
                self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def _leave(self) -> None:
        """Hands the place to the one who has waited longest, or gives it up."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.working -= 1
