"""The routes under `/dev`. Only pages and programs of this machine reach them."""

from __future__ import annotations

import json
from dataclasses import asdict
from http import HTTPStatus
from typing import Final, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.errors import BillingError, FieldError, InternalError, InvalidRequest, MethodNotAllowed, NotFound
from app.http import problems
from app.http import schemas as common
from app.http.bodies import Body
from app.http.strict_json import parse
from app.operating.dev.people import PEOPLE, Login, Person, sign_in
from app.settings import Settings, SettingsError

_MOST_BYTES: Final = 64 * 1024
_BODY_SECONDS: Final = 10.0

ROUTES: Final = (("GET", "/dev/people"), ("POST", "/dev/token"))
"""Method and path of each route, in the order of their endpoints."""

Asked = TypeVar("Asked", bound=BaseModel)


class TokenRequest(common.Request):
    """The person who signs in. An address that nobody has is somebody new."""

    email: common.Email


def panel(settings: Settings) -> Starlette:
    """Return the application that answers the routes under `/dev`."""

    async def people(_: Request) -> Response:
        return _json({"data": [_with_login(person, sign_in(settings, person.email)) for person in PEOPLE]})

    async def token(request: Request) -> Response:
        asked = await _asked(request, TokenRequest)
        return _json(asdict(sign_in(settings, asked.email)))

    endpoints = (people, token)
    return Starlette(
        routes=[
            Route(path, endpoint, methods=[method])
            for (method, path), endpoint in zip(ROUTES, endpoints, strict=True)
        ],
        exception_handlers={BillingError: _problem, HTTPException: _unknown, SettingsError: _unsigned},
    )


def _with_login(person: Person, login: Login) -> dict[str, object]:
    shown = {"name": person.name, "about": person.about}
    return {**shown, **asdict(login)}


async def _asked(request: Request, schema: type[Asked]) -> Asked:
    """Return the body as `schema`. Raises InvalidRequest, and what `Body.read` raises."""
    body = await Body(request.receive).read(limit=_MOST_BYTES, seconds=_BODY_SECONDS)
    try:
        return schema.model_validate(parse(body))
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"The body is no JSON object: {error.msg}.") from None
    except ValidationError as error:
        errors = [
            FieldError("/" + "/".join(str(part) for part in one["loc"]), one["type"], one["msg"])
            for one in error.errors(include_input=False, include_url=False, include_context=False)
        ]
        raise InvalidRequest(f"{errors[0].pointer}: {errors[0].detail}", errors=errors) from None


def _json(value: object) -> Response:
    return Response(orjson.dumps(value), headers={"Cache-Control": "no-store"}, media_type="application/json")


async def _problem(request: Request, error: Exception) -> Response:
    return problems.render(error if isinstance(error, BillingError) else InternalError(), request)


async def _unknown(request: Request, error: Exception) -> Response:
    is_method = isinstance(error, HTTPException) and error.status_code == HTTPStatus.METHOD_NOT_ALLOWED
    return problems.render(MethodNotAllowed() if is_method else NotFound(), request)


async def _unsigned(request: Request, error: Exception) -> Response:
    detail = "No token can be signed here: tokens are verified by the key of your identity provider. Sign in there."
    return problems.render(NotFound(detail), request)
