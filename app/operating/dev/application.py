"""The application around the API in `coseat dev`: the portal at `/`, the routes under `/dev`, and the API as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import NotFound
from app.http import problems
from app.operating.dev.guard import is_from_here
from app.operating.dev.portal import Files, panel_page
from app.operating.dev.received import ReceivedEvents
from app.operating.dev.recent import RecentRequests
from app.operating.dev.routes import panel
from app.operating.dev.stand_in import StandIn
from app.settings import Settings

_ELSEWHERE: Final = (
    "Only pages of this address, at localhost or 127.0.0.1, and programs on this machine may use /dev."
)
_READING: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Development:
    """The API in the application of a developer's machine. `coseat serve` runs the API without it."""

    service: ASGIApp
    recorded: ASGIApp
    panel: ASGIApp
    portal: Files
    stand_in: StandIn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a request to the panel, to the portal or to the API."""
        if scope["type"] != "http":
            await self._live(scope, receive, send)
            return
        path = scope["path"]
        if path == "/dev" or path.startswith("/dev/"):
            await self._panel(scope, receive, send)
        elif path.startswith("/v1/"):
            await self.recorded(scope, receive, send)
        elif scope["method"] in _READING and self.portal.has(path):
            await self.portal(scope, receive, send)
        elif scope["method"] in _READING and path == "/":
            await panel_page()(scope, receive, send)
        else:
            await self.service(scope, receive, send)

    async def _panel(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_from_here(scope):
            await self.panel(scope, receive, send)
        else:
            await problems.render(NotFound(_ELSEWHERE), Request(scope))(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the start and the end of the process on to the API."""
        try:
            await self.service(scope, receive, send)
        finally:
            await self.stand_in.aclose()


def develop(service: ASGIApp, settings: Settings, *, directory: Path, portal: Path) -> Development:
    """Return the application around `service`.

    `directory` has the state of `coseat dev`, and `portal` the built portal, if there is one.
    """
    recorded = RecentRequests(service)
    stand_in = StandIn(settings.stripe_api_base or "", settings.stripe_key)
    routes = panel(settings, stand_in, ReceivedEvents(directory), recorded)
    return Development(service, recorded, routes, Files(portal), stand_in)
