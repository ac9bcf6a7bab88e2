"""Opaque cursors: a position in one query of one caller.

The digest detects a cursor that is sent with another query or by another caller. It is no access control: each page is
authorised again, and a position only names a place in the caller's own list.
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
LONGEST = 2000
"""Characters of a cursor. A position may hold an id of 255 characters, with up to 4 bytes each."""


def _digest(principal: str, query: object) -> bytes:
    text = orjson.dumps([principal, query], option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()


def encode(position: object, *, principal: str, query: object) -> str:
    """Return the cursor for `position` (JSON data) in this principal's query."""
    return base64.urlsafe_b64encode(_digest(principal, query) + orjson.dumps(position)).decode().rstrip("=")


def decode(cursor: str | None, *, principal: str, query: object) -> object:
    """Return the position that a cursor names, or None without a cursor.

    Raises:
        InvalidRequest: The cursor was not made for this principal and query.
    """
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        if len(cursor) > LONGEST or raw[:_DIGEST_BYTES] != _digest(principal, query):
            raise _invalid()
        return orjson.loads(raw[_DIGEST_BYTES:])
    except (binascii.Error, ValueError):
        raise _invalid() from None


def as_pair(position: object) -> tuple[int, str] | None:
    """Return a decoded position as (created, id).

    Raises:
        InvalidRequest: If it is anything else.
    """
    match position:
        case None:
            return None
        case [int(created), str(object_id)] if abs(created) < 2**62 and "\x00" not in object_id:
            return created, object_id
        case _:
            raise _invalid()


def as_text(position: object) -> str | None:
    """Return a decoded position as text. Raises InvalidRequest if it is anything else."""
    if position is None or (isinstance(position, str) and "\x00" not in position):
        return position
    raise _invalid()


def _invalid() -> InvalidRequest:
    detail = "cursor: it belongs to another query or caller. Start again without a cursor."
    return InvalidRequest(detail, errors=[FieldError("query/cursor", "invalid", detail)])


@dataclass(frozen=True, slots=True)
class Paging:
    """The position of one request in a list by (created, id), newest first."""

    after: tuple[int, str] | None
    limit: int
    principal: str
    query: object

    @classmethod
    def of(cls, cursor: str | None, limit: int, *, principal: str, query: object) -> Paging:
        """Decode the cursor of a request.

        Raises:
            InvalidRequest: If it belongs to another query or caller.
        """
        return cls(as_pair(decode(cursor, principal=principal, query=query)), limit, principal, query)

    def frame(self, rows: list[JsonObject]) -> JsonObject:
        """Return the page for `rows`, which were read with a limit of one row more.

        The additional row only shows that there is a next page.
        """
        kept = rows[: self.limit]
        more = len(rows) > self.limit
        position = (kept[-1]["created"], kept[-1]["id"]) if more else None
        return {
            "data": kept,
            "has_more": more,
            "next_cursor": encode(position, principal=self.principal, query=self.query) if more else None,
        }


def as_number(position: object) -> int | None:
    """Return a decoded position as a whole number from 0.

    Raises:
        InvalidRequest: If it is anything else.
    """
    if position is None or (type(position) is int and 0 <= position < 2**62):
        return position
    raise _invalid()
