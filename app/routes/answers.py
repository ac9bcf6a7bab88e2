"""Answers: a model serialised once, with the ETag of the caller's own view."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from starlette.responses import Response

from app.routes.headers import header_text
from app.schemas.common import Answer

# A quote inside a JSON string is escaped, so no caller's text can look like this member.
_SYNCED_AT = b'"synced_at":"'
_EVERY_SYNCED_AT = re.compile(_SYNCED_AT + b'[^"]*"')
JSON = "application/json"

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


def answer_bytes(
    request: Request, body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    sent = dict(headers or {})
    if request.method == "GET":
        sent["ETag"] = etag = etag_of(body)
        sent["Cache-Control"] = "private, no-cache"
        known = header_text(request.scope, b"if-none-match")
        if known is not None and _names(known, etag):
            return Response(status_code=304, headers=sent)
    else:
        sent["Cache-Control"] = "no-store"
    return Response(body, status, sent, JSON)


def _names(header: str, etag: str) -> bool:
    """Weak comparison, as RFC 9110 section 13.1.2 asks for If-None-Match."""
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or etag in tags
