"""The routes under `/dev`. Only pages and programs of this machine reach them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Final, TypeVar

import orjson
from pydantic import BaseModel, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from app.errors import InvalidRequest, NotFound
from app.http import problems
from app.http import schemas as common
from app.http.bodies import Body
from app.http.strict_json import parse
from app.operating.dev.people import PEOPLE, Login, Person, sign_in
from app.operating.dev.portal import PANEL, Files, panel_page
from app.operating.dev.received import ReceivedEvents
from app.operating.dev.recent import RecentRequests
from app.operating.dev.stand_in import OUTCOMES, StandIn
from app.settings import Settings, SettingsError

_MOST_BYTES: Final = 64 * 1024
_BODY_SECONDS: Final = 10.0
_MOST_ROWS: Final = 200

Asked = TypeVar("Asked", bound=BaseModel)


class TokenRequest(common.Request):
    """The person who signs in. An address that nobody has is somebody new."""

    email: common.Email


class ClockRequest(common.Request):
    """How far the stand-in's clock moves, in seconds, at most 400 days."""

    advance: Annotated[int, Field(ge=1, le=400 * 86_400)]


class PaymentRequest(common.Request):
    """What the payer's browser does. `authenticate` is the cardholder's answer if the bank asks."""

    client_secret: Annotated[str, Field(min_length=1, max_length=500)]
    payment_method: common.PaymentMethodIdText | None = None
    authenticate: bool = True


@dataclass(frozen=True, slots=True)
class Panel:
    """The endpoints of the routes."""

    settings: Settings
    stand_in: StandIn
    received: ReceivedEvents
    recorded: RecentRequests

    async def front(self, _: Request) -> Response:
        """Return the panel."""
        return panel_page()

    async def people(self, _: Request) -> Response:
        """Return the people of the demonstration, each with a token."""
        return _list([_with_login(person, sign_in(self.settings, person.email)) for person in PEOPLE])

    async def token(self, request: Request) -> Response:
        """Return a token for a person, who may be somebody new."""
        asked = await _asked(request, TokenRequest)
        return _json(asdict(sign_in(self.settings, asked.email)))

    async def mailbox(self, _: Request) -> Response:
        """Return what the application would have sent by mail."""
        return _list(self.received.mails())

    async def events(self, request: Request) -> Response:
        """Return the events that arrived last."""
        return _list(self.received.newest(_limit(request)))

    async def requests(self, request: Request) -> Response:
        """Return the requests that the API answered last."""
        return _list(self.recorded.newest(_limit(request)))

    async def webhook(self, request: Request) -> Response:
        """Take in an event that Coseat has signed."""
        body = await Body(request.receive).read(limit=_MOST_BYTES, seconds=_BODY_SECONDS)
        self.received.take(body, dict(request.headers))
        return Response(status_code=204)

    async def clock(self, _: Request) -> Response:
        """Return the time of the stand-in."""
        return _json(await self.stand_in.clock())

    async def advance(self, request: Request) -> Response:
        """Move the time of the stand-in forward."""
        asked = await _asked(request, ClockRequest)
        return _json(await self.stand_in.advance(asked.advance))

    async def outcomes(self, _: Request) -> Response:
        """Return the ways in which a payment can end."""
        return _list([asdict(outcome) for outcome in OUTCOMES])

    async def pay(self, request: Request) -> Response:
        """Confirm a payment or a set-up, as the payer's browser does with Stripe.js."""
        asked = await _asked(request, PaymentRequest)
        return _json(await self.stand_in.confirm(asked.model_dump(exclude_none=True)))


ROUTES: Final = (
    ("GET", "/dev", Panel.front),
    ("GET", "/dev/people", Panel.people),
    ("POST", "/dev/token", Panel.token),
    ("GET", "/dev/mailbox", Panel.mailbox),
    ("GET", "/dev/events", Panel.events),
    ("GET", "/dev/requests", Panel.requests),
    ("POST", "/dev/webhook", Panel.webhook),
    ("GET", "/dev/clock", Panel.clock),
    ("POST", "/dev/clock", Panel.advance),
    ("GET", "/dev/payment-outcomes", Panel.outcomes),
    ("POST", "/dev/payment", Panel.pay),
)
"""Method, path and endpoint of each route."""


def panel(
    settings: Settings, stand_in: StandIn, received: ReceivedEvents, recorded: RecentRequests
) -> Starlette:
    """Return the application that answers the routes under `/dev`."""
    made = Panel(settings, stand_in, received, recorded)
    routes = [Route(path, partial(endpoint, made), methods=[method]) for method, path, endpoint in ROUTES]
    application = Starlette(routes=[*routes, Mount("/dev/panel", Files(PANEL))])
    problems.install(application)
    application.add_exception_handler(SettingsError, _unsigned)
    return application


def _limit(request: Request) -> int:
    """Return how many rows are asked for, 50 unless the query says so. Raises InvalidRequest."""
    given = request.query_params.get("limit", "50")
    if not given.isdecimal() or not 1 <= int(given) <= _MOST_ROWS:
        raise InvalidRequest(f"query/limit: a whole number from 1 to {_MOST_ROWS}.")
    return int(given)


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
        found = [{**one, "loc": ("body", *one["loc"])} for one in error.errors(include_url=False)]
        raise problems.from_validation(found) from None


def _list(rows: Sequence[object]) -> Response:
    return _json({"data": rows})


def _json(value: object) -> Response:
    return Response(orjson.dumps(value), headers={"Cache-Control": "no-store"}, media_type="application/json")


async def _unsigned(request: Request, error: Exception) -> Response:
    detail = "No token can be signed here: tokens are verified by the key of your identity provider. Sign in there."
    return problems.render(NotFound(detail), request)
