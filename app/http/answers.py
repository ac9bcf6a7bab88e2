"""Answers: a model serialised once, with the ETag of the caller's own view."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from starlette.responses import Response

from app.http.headers import header_text
from app.http.schemas import Answer

# A quote inside a JSON string is escaped, so no caller's text can look like this member.
_SYNCED_AT = b'"synced_at":"'
_EVERY_SYNCED_AT = re.compile(_SYNCED_AT + b'[^"]*"')
JSON = "application/json"
_IS_JSON = (b"content-type", JSON.encode())
_REVALIDATED = (b"cache-control", b"private, no-cache")
_NOT_STORED = (b"cache-control", b"no-store")

UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "As it was at the ETag of If-None-Match"}}
"""For OpenAPI: what every read that goes through `answer` may say."""


def etag_of(body: bytes) -> str:
    """Of what the caller sees, without `synced_at`: reading the same thing again later is no change."""
    return f'"{hashlib.blake2b(_without_synced_at(body), digest_size=12).hexdigest()}"'


def _without_synced_at(body: bytes) -> bytes:
    start = body.find(_SYNCED_AT)
    if start < 0:
        return body
    end = body.index(b'"', start + len(_SYNCED_AT)) + 1
    # One object says it once and needs no pattern.
    return body[:start] + (
        body[end:] if body.find(_SYNCED_AT, end) < 0 else _EVERY_SYNCED_AT.sub(b"", body[end:])
    )


def answer(
    request: Request, model: Answer, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    return answer_bytes(request, model.__pydantic_serializer__.to_json(model), status=status, headers=headers)


class _Whole(Response):
    """Its head is written here as it is sent: the framework's own way through a mapping of text costs as much as all
    that a hot read does besides.
    """

    def __init__(self, status: int, head: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status_code = status
        self.raw_headers = head
        self.body = body
        self.background = None


def answer_bytes(
    request: Request, body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    head = [] if headers is None else [(name.lower().encode(), headers[name].encode()) for name in headers]
    if request.scope["method"] == "GET":
        etag = etag_of(body)
        head.append((b"etag", etag.encode()))
        head.append(_REVALIDATED)
        known = header_text(request.scope, b"if-none-match")
        if known is not None and _names(known, etag):
            return _Whole(304, head, b"")
    else:
        head.append(_NOT_STORED)
    head.append((b"content-length", b"%d" % len(body)))
    head.append(_IS_JSON)
    return _Whole(status, head, body)


def _names(header: str, etag: str) -> bool:
    """Weak comparison, as RFC 9110 section 13.1.2 asks for If-None-Match."""
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or etag in tags
