"""Parse JSON as strictly as RFC 8259 recommends for exchange between systems.

Python's decoder accepts NaN, integers of any length, and repeated members, of which the last one wins. Requests here
move money, so a body whose meaning is not certain is refused. Source: https://www.rfc-editor.org/rfc/rfc8259
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from fastapi import Request

DEEPEST: Final = 16
"""Greatest depth of nested lists and objects. The deepest body of the API needs four."""
LARGEST: Final = 2**53 - 1
"""Largest absolute value of an integer that all implementations represent exactly (RFC 8259 section 6)."""

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


class StrictRequest(Request):
    """A request whose `json` is parsed by `parse`.

    FastAPI answers a json.JSONDecodeError with 422.
    """

    async def json(self) -> Any:
        """Return the parsed body. Raises json.JSONDecodeError."""
        if not hasattr(self, "_json"):
            self._json = parse(await self.body())
        return self._json


def parse(body: bytes) -> Any:
    """Return the value of a body in UTF-8.

    Raises:
        json.JSONDecodeError: The body breaks a rule. The message names the rule, but no part of the body.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused("The body is not UTF-8", error.start) from None
    _check_depth(body)
    return json.loads(
        text,
        object_pairs_hook=_members,
        parse_constant=_no_constant,
        parse_int=_integer,
        parse_float=_fraction,
    )


def _check_depth(body: bytes) -> None:
    """Refuse a body that is nested too deeply, before the recursive decoder runs.

    Raises json.JSONDecodeError.
    """
    if body.count(b"[") + body.count(b"{") <= DEEPEST:
        return
    depth = 0
    for found in _BRACKET.finditer(_STRING.sub(b"", body)):
        depth += 1 if found[0] in b"[{" else -1
        if depth > DEEPEST:
            raise _refused(f"Lists and objects lie more than {DEEPEST} deep", 0)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _refused("An object has two members of one name", 0)
    return found


def _no_constant(_: str) -> Any:
    raise _refused("NaN and Infinity are not JSON", 0)


def _integer(digits: str) -> int:
    value = int(digits) if len(digits) <= len(str(LARGEST)) + 1 else LARGEST + 1
    if abs(value) > LARGEST:
        raise _refused("A number is too large", 0)
    return value


def _fraction(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise _refused("A number is too large", 0)
    return value


def _refused(rule: str, position: int) -> json.JSONDecodeError:
    return json.JSONDecodeError(rule, "", position)
