"""Refuse query parameters that a route does not have, before anything is done.

A misspelt filter that is ignored answers with other rows than the caller asked for, or changes more than they meant.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final
from urllib.parse import parse_qsl

from fastapi import Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query
from fastapi.routing import APIRoute
from starlette.responses import Response

from app.errors import FieldError, InvalidRequest

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_LONGEST_SHOWN: Final = 40
"""The characters of an unknown name that the answer repeats."""


class StrictQueryRoute(APIRoute):
    """A route that answers 422 `unknown_parameter` for a query parameter that it does not have."""

    def get_route_handler(self) -> Handler:
        """Return the handler, which runs after the check of the query."""
        handler = self.around(super().get_route_handler())
        parameters = get_flat_params(self.dependant)
        known = frozenset(one.alias for one in parameters if isinstance(one.field_info, Query))

        async def checked(request: Request) -> Response:
            if request.scope["query_string"]:
                check_names(request.scope["query_string"].decode("latin-1"), known)
            return await handler(request)

        return checked

    def around(self, handler: Handler) -> Handler:
        """Return what runs after the check: a subclass puts its own steps around the handler."""
        return handler


def check_names(query: str, known: frozenset[str]) -> None:
    """Check that a query string has only parameters of `known`.

    Raises:
        InvalidRequest: `unknown_parameter`, with one entry for each other name.
    """
    names = dict.fromkeys(name for name, _ in parse_qsl(query, keep_blank_values=True))
    unknown = [name for name in names if name not in known]
    if not unknown:
        return
    remedy = f"It takes {', '.join(sorted(known))}." if known else "It takes none."
    detail = f"This route has no query parameter of this name. {remedy} Correct the name, or leave it out."
    pointers = [f"query/{name[:_LONGEST_SHOWN]}" for name in unknown]
    raise InvalidRequest(
        f"{pointers[0]}: {detail}",
        code="unknown_parameter",
        errors=[FieldError(pointer, "unknown_parameter", detail) for pointer in pointers],
    )
