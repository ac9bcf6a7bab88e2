"""Ask an ASGI application in the same process, without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.types import ASGIApp


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `body` is the JSON that was sent, or None."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def ok(self) -> bool:
        """Return True if the request succeeded."""
        return self.status < 300

    @property
    def code(self) -> str:
        """Return the code of a problem document, otherwise an empty text."""
        return str(self.body.get("code", "")) if isinstance(self.body, dict) else ""


async def ask(
    app: ASGIApp,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    host: str,
    stays: float = 0.0,
) -> Reply:
    """Send one request and return its answer. The caller disconnects `stays` seconds after the body was read."""
    sent: list[Any] = []
    given = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if given:
            return given.pop()
        if stays:
            await asyncio.sleep(stays)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    raw += [(b"host", host.encode()), (b"content-length", str(len(body)).encode())]
    bare, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": bare,
        "raw_path": bare.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": raw,
        "client": ("127.0.0.1", 1),
        "server": (host, 80),
        "state": {},
    }
    await app(scope, receive, send)
    content = b"".join(message.get("body", b"") for message in sent[1:])
    answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    is_json = "json" in answered.get("content-type", "")
    return Reply(sent[0]["status"], answered, orjson.loads(content) if is_json and content else None)
