"""Opaque cursors: a position in one caller's one query, useless for any other.

The digest catches a cursor that strayed to another query or caller; it guards nothing, because each page is
authorised anew and a position names nothing but a place in the caller's own list.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

import orjson

from app.domain.snapshots import JsonObject
from app.errors import FieldError, InvalidRequest

_DIGEST_BYTES = 9
_LONGEST = 600


def _digest(principal: str, query: object) -> bytes:
    text = orjson.dumps([principal, query], option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()


def encode(position: object, *, principal: str, query: object) -> str:
    return base64.urlsafe_b64encode(_digest(principal, query) + orjson.dumps(position)).decode().rstrip("=")


def decode(cursor: str | None, *, principal: str, query: object) -> object:
    """None for no cursor. Raises InvalidRequest for one that is not of this caller and query."""
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        if len(cursor) > _LONGEST or raw[:_DIGEST_BYTES] != _digest(principal, query):
            raise _invalid()
        return orjson.loads(raw[_DIGEST_BYTES:])
    except (binascii.Error, ValueError):
        raise _invalid() from None


def as_pair(position: object) -> tuple[int, str] | None:
    match position:
        case None:
            return None
        case [int(created), str(object_id)] if abs(created) < 2**62 and "\x00" not in object_id:
            return created, object_id
        case _:
            raise _invalid()


def as_text(position: object) -> str | None:
    if position is None or (isinstance(position, str) and "\x00" not in position):
        return position
    raise _invalid()


def _invalid() -> InvalidRequest:
    detail = "This cursor does not belong to this query."
    return InvalidRequest(detail, errors=[FieldError("query/cursor", "invalid", detail)])


@dataclass(frozen=True, slots=True)
class Paging:
    """One request's place in a list that runs by (created, id), newest first."""

    after: tuple[int, str] | None
    limit: int
    principal: str
    query: object

    @classmethod
    def of(cls, cursor: str | None, limit: int, *, principal: str, query: object) -> Paging:
        return cls(as_pair(decode(cursor, principal=principal, query=query)), limit, principal, query)

    def frame(self, rows: list[JsonObject]) -> JsonObject:
        """The page of rows read with one row to spare, which tells whether there are more."""
        kept = rows[: self.limit]
        more = len(rows) > self.limit
        position = (kept[-1]["created"], kept[-1]["id"]) if more else None
        return {
            "data": kept,
            "has_more": more,
            "next_cursor": encode(position, principal=self.principal, query=self.query) if more else None,
        }


def as_number(position: object) -> int | None:
    if position is None or (type(position) is int and 0 <= position < 2**62):
        return position
    raise _invalid()
