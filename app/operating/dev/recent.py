"""The last requests that the API has answered, for the panel."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_KEPT: Final = 200
_UNANSWERED: Final = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """A request and its answer. `at` is a Unix time, `milliseconds` the time until the answer began.

    The path has no query, which can hold a name that somebody looked for. `status` is 0 if there was no answer.
    """

    at: float
    method: str
    path: str
    status: int
    milliseconds: float
    request_id: str


class RecentRequests:
    """Passes requests on to the API, and keeps the last ones."""

    def __init__(self, service: ASGIApp) -> None:
        self._service = service
        self._answered: deque[Answered] = deque(maxlen=_KEPT)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note it once its answer begins or is missing."""
        at, began = time.time(), time.perf_counter()
        noted = False

        def note(status: int, request_id: bytes) -> None:
            nonlocal noted
            noted = True
            taken = round((time.perf_counter() - began) * 1000, 1)
            self._answered.append(
                Answered(at, scope["method"], scope["path"], status, taken, request_id.decode("latin-1"))
            )

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start" and not noted:
                note(message["status"], dict(message["headers"]).get(b"x-request-id", b""))
            await send(message)

        try:
            await self._service(scope, receive, noting)
        finally:
            if not noted:
                note(_UNANSWERED, b"")

    def newest(self, limit: int) -> list[dict[str, object]]:
        """Return requests, the newest first."""
        return [asdict(one) for one in list(reversed(self._answered))[:limit]]
