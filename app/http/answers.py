"""Serialise an answer once, and send it with the ETag of the caller's own view."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from starlette.responses import Response

from app.errors import PreconditionFailed
from app.http.headers import header_text
from app.http.schemas import Answer

# JSON escapes a quote inside a string, so text from a caller can never look like this member.
_SYNCED_AT = b'"synced_at":"'
_EVERY_SYNCED_AT = re.compile(_SYNCED_AT + b'[^"]*"')
JSON = "application/json"
_IS_JSON = (b"content-type", JSON.encode())
_REVALIDATED = (b"cache-control", b"private, no-cache")
_NOT_STORED = (b"cache-control", b"no-store")

UNCHANGED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The answer still has the ETag of If-None-Match"}
}
"""The 304 answer of OpenAPI. Every GET route that uses `answer` can give it."""


def etag_of(body: bytes) -> str:
    """Return the ETag of a serialised answer.

    `synced_at` is left out: it changes with every read from Stripe, even if the object does not.
    """
    return f'"{hashlib.blake2b(_without_synced_at(body), digest_size=12).hexdigest()}"'


def _without_synced_at(body: bytes) -> bytes:
    start = body.find(_SYNCED_AT)
    if start < 0:
        return body
    end = body.index(b'"', start + len(_SYNCED_AT)) + 1
    # The answer for a single object has one `synced_at`, so the slower regular expression is not needed.
    return body[:start] + (
        body[end:] if body.find(_SYNCED_AT, end) < 0 else _EVERY_SYNCED_AT.sub(b"", body[end:])
    )


def answer(
    request: Request, model: Answer, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Serialise `model` and return it as `answer_bytes` does."""
    return answer_bytes(request, model.__pydantic_serializer__.to_json(model), status=status, headers=headers)


class _EncodedResponse(Response):
    """A response whose headers are given as encoded bytes.

    Starlette encodes headers from a mapping of text. In a cached read that costs as much as all other steps together.
    """

    def __init__(self, status: int, head: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status_code = status
        self.raw_headers = head
        self.body = body
        self.background = None


def answer_bytes(
    request: Request, body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return `body` (serialised JSON) as a response with caching headers.

    A GET is answered 304 without a body if `If-None-Match` names the current ETag. Other methods are `no-store`.
    """
    head = [] if headers is None else [(name.lower().encode(), headers[name].encode()) for name in headers]
    if request.scope["method"] == "GET":
        etag = etag_of(body)
        head.append((b"etag", etag.encode()))
        head.append(_REVALIDATED)
        known = header_text(request.scope, b"if-none-match")
        if known is not None and _names(known, etag):
            return _EncodedResponse(304, head, b"")
    else:
        head.append(_NOT_STORED)
    head.append((b"content-length", b"%d" % len(body)))
    head.append(_IS_JSON)
    return _EncodedResponse(status, head, body)


def named_tags(request: Request) -> frozenset[str] | None:
    """Return the ETags that `If-Match` names, None without that header. `*` stands for any."""
    header = request.headers.get("if-match")
    return None if header is None else frozenset(tag.strip() for tag in header.split(","))


def check_if_match(request: Request, model: Answer) -> None:
    """Check that `If-Match`, if it is there, names the answer that a read gives now. Raises PreconditionFailed."""
    expected = named_tags(request)
    if expected is None or "*" in expected:
        return
    if etag_of(model.__pydantic_serializer__.to_json(model)) not in expected:
        raise PreconditionFailed()


def _names(header: str, etag: str) -> bool:
    """Compare weakly, as RFC 9110 section 13.1.2 requires for If-None-Match."""
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or etag in tags
