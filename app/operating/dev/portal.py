"""The portal's files, which are built and not committed; without them, a page that says what is here."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PANEL: Final = Path(__file__).with_name("panel")
"""The files of the panel, which need no build."""
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""React components place some styles inline. Nothing is loaded from another host."""
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_SMALLEST_COMPRESSED: Final = 500
_INDEX: Final = "index.html"
_FOR_EVER: Final = "public, max-age=31536000, immutable"


def panel_page() -> Response:
    """Return the page that says what is here."""
    return FileResponse(PANEL / _INDEX, headers=_HEADERS)


class Files:
    """Serves the files of a directory, compressed if the browser takes that, with a policy for the page."""

    def __init__(self, directory: Path) -> None:
        self._files = StaticFiles(directory=directory, html=True, check_dir=False)
        self._served: ASGIApp = GZipMiddleware(
            self._files, minimum_size=_SMALLEST_COMPRESSED, compresslevel=6
        )

    def has(self, path: str) -> bool:
        """Return True if the directory has a file of this path. `/` is its index."""
        name = path.lstrip("/") or _INDEX
        try:
            _, found = self._files.lookup_path(name)
        except ValueError:
            return False
        return found is not None and stat.S_ISREG(found.st_mode)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a GET or HEAD of a file. Names below `assets/` have a hash of the content."""
        lasting = scope["path"].startswith("/assets/")

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update({**_HEADERS, "Cache-Control": _FOR_EVER} if lasting else _HEADERS)
            await send(message)

        await self._served(scope, receive, with_headers)
