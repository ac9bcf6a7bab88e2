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


def install(app: FastAPI) -> None:
    """Add the routes /docs, its files, and /openapi.json. What they answer is read once and kept in memory.

    The document takes most of a second to make. A thread does that, at the first request, so that the event loop goes
    on answering others.
    """
    making: asyncio.Task[bytes] | None = None

    async def stated() -> bytes:
        nonlocal making
        if making is None or (making.done() and making.exception() is not None):
            making = asyncio.create_task(asyncio.to_thread(lambda: orjson.dumps(app.openapi())))
        # `shield`: the client that began it may disconnect while others wait for it.
        return await asyncio.shield(making)

    async def docs(_: Request) -> Response:
        return Response(_PAGE, headers=_HEADERS, media_type="text/html")

    async def file(request: Request) -> Response:
        content, kind = _file(request.path_params["name"])
        return Response(content, headers=_HEADERS, media_type=kind)

    async def document(_: Request) -> Response:
        return Response(await stated(), headers={"Cache-Control": "no-cache"}, media_type="application/json")

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
