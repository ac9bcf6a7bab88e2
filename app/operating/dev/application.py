"""The application around the API in `coseat dev`: the routes under `/dev`, and everything else as it is."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import NotFound
from app.http import problems
from app.operating.dev.guard import is_from_here
from app.operating.dev.routes import panel
from app.settings import Settings

_ELSEWHERE = (
    "Only pages of this address, at localhost or 127.0.0.1, and programs on this machine may use /dev."
)


@dataclass(frozen=True, slots=True)
class Development:
    """The API in the application of a developer's machine. `coseat serve` runs the API without it."""

    service: ASGIApp
    panel: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a request to the panel or to the API."""
        if scope["type"] != "http" or not _is_panel(scope["path"]):
            await self.service(scope, receive, send)
        elif is_from_here(scope):
            await self.panel(scope, receive, send)
        else:
            await problems.render(NotFound(_ELSEWHERE), Request(scope))(scope, receive, send)


def develop(service: ASGIApp, settings: Settings) -> Development:
    """Return the application around `service`."""
    return Development(service, panel(settings))


def _is_panel(path: str) -> bool:
    return path == "/dev" or path.startswith("/dev/")
