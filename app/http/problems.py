"""Render every error as application/problem+json, and describe it for OpenAPI.

Source: RFC 9457, https://www.rfc-editor.org/rfc/rfc9457
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from app.errors import (
    BillingError,
    FieldError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
)
from app.http.problem_codes import PHRASES, codes_of
from app.http.problem_schemas import schema_of

MEDIA_TYPE = "application/problem+json"
_TYPE_BASE = "https://coseat.dev/problems/"
_SHOWN_ERRORS = 20


def request_id(request: Request) -> str:
    """Return the id that RequestRecords gave to the request.

    Outside of that layer it is an empty text.
    """
    found: str = request.scope.get("state", {}).get("request_id", "")
    return found


def render(error: BillingError, request: Request) -> Response:
    """Return the answer for `error`, with at most 20 entries in `errors`."""
    # The record of the request shows the code.
    request.scope.setdefault("state", {})["code"] = error.code
    # The members of RFC 9457 come last, so that an extension member cannot replace one of them.
    document: dict[str, Any] = {
        **error.members,
        "type": _TYPE_BASE + error.code.replace("_", "-"),
        "title": error.title,
        "status": error.status,
        "code": error.code,
        "detail": error.detail,
        "request_id": request_id(request),
    }
    if error.errors:
        document["errors"] = [
            {"pointer": e.pointer, "code": e.code, "detail": e.detail} for e in error.errors[:_SHOWN_ERRORS]
        ]
    headers = {"Cache-Control": "no-store"}
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return Response(orjson.dumps(document), error.status, headers, MEDIA_TYPE)


def from_validation(faults: Iterable[Mapping[str, Any]]) -> InvalidRequest:
    """Return the error for a request that breaks its schema, by the faults as pydantic lists them.

    It names the field and the rule of each fault, but no values. `loc` begins with where the field stands, as `body`.
    """
    errors = []
    for found in faults:
        where, *path = (str(part) for part in found["loc"])
        pointer = "/" + "/".join(path) if where == "body" else "/".join([where, *path])
        detail = str(found["msg"]).removeprefix("Value error, ")
        if found["type"] == "json_invalid":
            # Here `loc` is a position in the text, and the reason is in `ctx`.
            pointer, detail = "", f"{detail}: {found['ctx']['error']}"
        errors.append(FieldError(pointer, str(found["type"]), detail))
    first = errors[0] if errors else None
    return InvalidRequest(f"{first.pointer}: {first.detail}" if first else None, errors=errors)


_BY_STATUS = {404: NotFound, 405: MethodNotAllowed, 413: PayloadTooLarge}


def install(app: Starlette) -> None:
    """Register the handlers of exceptions on `app`."""

    async def on_billing_error(request: Request, error: Exception) -> Response:
        found = error if isinstance(error, BillingError) else InternalError()
        return render(found, request)

    async def on_validation(request: Request, error: Exception) -> Response:
        found = (
            from_validation(error.errors()) if isinstance(error, RequestValidationError) else InternalError()
        )
        return render(found, request)

    async def on_http_exception(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        kind = _BY_STATUS.get(
            status, InternalError if status >= HTTPStatus.INTERNAL_SERVER_ERROR else InvalidRequest
        )
        response = render(kind(), request)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            response.headers["Allow"] = ", ".join(_allowed(request))
        return response

    async def on_anything_else(request: Request, _: Exception) -> Response:
        return render(InternalError(), request)

    app.add_exception_handler(BillingError, on_billing_error)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(Exception, on_anything_else)


_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def _allowed(request: Request) -> list[str]:
    """Return all methods of the path, as RFC 9110 section 10.2.1 requires for `Allow`.

    The route that Starlette matched knows only its own methods, so every route is asked.
    """
    routes = request.app.routes
    scopes = ({**request.scope, "method": method} for method in _METHODS)
    return [scope["method"] for scope in scopes if any(r.matches(scope)[0] is Match.FULL for r in routes)]


def responses(
    *statuses: int, codes: Collection[str] = (), refusals: Collection[str] = (), seats_shown: bool = True
) -> dict[int | str, dict[str, Any]]:
    """Return the problems that a route may answer, for OpenAPI.

    400 (a doubled header) and 429 are always among them, and 408 goes with 413, because a body that has a limit of
    bytes also has a deadline. 409 also says that the route is a write. `codes`: those that not every route can answer.
    `refusals` is as in `codes_of`, and `seats_shown` as in `schema_of`.
    """
    write = 409 in statuses
    given = {*statuses, 400, 429} | ({408} if 413 in statuses else set())
    return {
        status: {
            "description": PHRASES[status],
            "content": {
                MEDIA_TYPE: {
                    "schema": schema_of(
                        codes_of(status, write=write, special=codes, refusals=refusals),
                        seats_shown=seats_shown,
                    )
                }
            },
        }
        for status in sorted(given)
    }
