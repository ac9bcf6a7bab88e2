"""The page /docs: Swagger UI on the OpenAPI document, with every file served from here.

The page loads nothing from other hosts, and its policy says so to the browser
(docs/decisions/0055-serve-the-documentation-as-swagger-ui.md).
"""

from __future__ import annotations

import asyncio
from functools import cache
from importlib.resources import files
from typing import Final

import orjson
from fastapi import FastAPI, Request
from starlette.responses import Response

from app.errors import NotFound

_PAGE: Final = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Coseat</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="documentation"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
# Without `validatorUrl` the document would be sent to another host. A token is kept in the page's memory only.
_START: Final = b"""SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#documentation",
  deepLinking: true,
  displayOperationId: true,
  displayRequestDuration: true,
  docExpansion: "list",
  filter: true,
  persistAuthorization: false,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""
_KINDS: Final = {".js": "text/javascript", ".css": "text/css"}
ASSETS: Final = ("swagger-ui-bundle.js", "swagger-ui.css")
"""The files of the package `fastapi-offline` that the page needs."""

# Swagger UI gives some of its elements a style of their own.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'"
)
_HEADERS: Final = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}


class Document:
    """The OpenAPI document of an application as it is sent. It takes most of a second to make, and is made once."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._made: bytes | None = None
        self._making: asyncio.Task[bytes] | None = None

    def make(self) -> bytes:
        """Make the document, or return what was made. Call it before requests are accepted."""
        if self._made is None:
            self._made = orjson.dumps(self._app.openapi())
        return self._made

    async def get(self) -> bytes:
        """Return the document.

        If it was not made before, a thread makes it, so that the event loop goes on answering others.
        """
        if self._made is not None:
            return self._made
        if self._making is None or (self._making.done() and self._making.exception() is not None):
            self._making = asyncio.create_task(asyncio.to_thread(self.make))
        # `shield`: the client that began it may disconnect while others wait for it.
        return await asyncio.shield(self._making)


def install(app: FastAPI) -> None:
    """Add the routes /docs, its files, and /openapi.json. What they answer is read once and kept in memory."""
    stated = Document(app)
    app.state.document = stated

    async def docs(_: Request) -> Response:
        return Response(_PAGE, headers=_HEADERS, media_type="text/html")

    async def file(request: Request) -> Response:
        content, kind = _file(request.path_params["name"])
        return Response(content, headers=_HEADERS, media_type=kind)

    async def document(_: Request) -> Response:
        return Response(
            await stated.get(), headers={"Cache-Control": "no-cache"}, media_type="application/json"
        )

    app.add_route("/docs", docs, methods=["GET"], include_in_schema=False)
    app.add_route("/docs/{name}", file, methods=["GET"], include_in_schema=False)
    app.add_route("/openapi.json", document, methods=["GET"], include_in_schema=False)


@cache
def _file(name: str) -> tuple[bytes, str]:
    """Return a file of the page and its media type.

    Raises:
        NotFound: The page has no such file.
    """
    kind = _KINDS.get(name[name.rfind(".") :], "")
    if name == "start.js":
        return _START, kind
    if name not in ASSETS:
        raise NotFound()
    return files("fastapi_offline").joinpath("static", name).read_bytes(), kind
