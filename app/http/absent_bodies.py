"""Refuse a body on a route that takes none, before anything is done.

A body that is ignored lets its sender believe that it was followed: `{"allowed": false}` gave a permission.
"""

from __future__ import annotations

import json
from typing import Any, Final

from app.errors import FieldError, InvalidRequest
from app.http.strict_json import StrictRequest

_LONGEST_SHOWN: Final = 40
"""The characters of an unknown name that the answer repeats."""
_DETAIL: Final = "This route takes no body. Leave it out, or send {}."


async def check(request: StrictRequest) -> None:
    """Check that the body of a request is absent, or an object without members.

    Raises:
        InvalidRequest: It says something, with one entry for each member.
    """
    if not await request.body():
        return
    try:
        found: Any = await request.json()
    except json.JSONDecodeError:
        found = None
    if found == {}:
        return
    names = list(found) if isinstance(found, dict) else []
    pointers = [f"/{name[:_LONGEST_SHOWN]}" for name in names] or [""]
    raise InvalidRequest(_DETAIL, errors=[FieldError(one, "extra_forbidden", _DETAIL) for one in pointers])
