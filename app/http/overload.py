"""Bound the requests that one process runs and those that wait for a place.

The rest is answered 503 with `Retry-After`. The caller of a request that waits for long has often gone when the answer
comes. So a request that would wait too long is refused at once, and its caller can try again.

A request gives its place back when it hands its answer over. A client that does not read the answer holds no place.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from contextlib import suppress
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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

    @property
    def waiting(self) -> int:
        """Return the number of requests that wait for a place."""
        return len(self._waiting)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the inner application once there is a place, or answer 503."""
        if self.working < self.most and scope["type"] == "http":
            self.working += 1
        elif not await self._let_in(scope, receive, send):
            return
        place = _Place(self, send)
        try:
            await self.app(scope, receive, place)
        finally:
            place.give_back()

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
                self.leave()
            with suppress(ValueError):
                self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def leave(self) -> None:
        """Hand a place to the request that has waited longest, or give it up."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.working -= 1


class _Place:
    """The place of one request, and its `send`: the first message of the answer gives the place back."""

    __slots__ = ("_is_held", "_limit", "_send")

    def __init__(self, limit: ConcurrencyLimit, send: Send) -> None:
        self._limit = limit
        self._send = send
        self._is_held = True

    def __call__(self, message: Message) -> Awaitable[None]:
        if self._is_held:
            self.give_back()
        return self._send(message)

    def give_back(self) -> None:
        """Give the place back, once."""
        if self._is_held:
            self._is_held = False
            self._limit.leave()
