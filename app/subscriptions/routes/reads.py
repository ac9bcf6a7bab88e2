"""The hottest reads: one subscription, by either of its names.

FastAPI's way to a route costs more than the statement behind it, so a plain GET of one subscription is answered before
any routing; anything else (a query, an odd id) takes the ordinary way, with its checks and messages.
"""

from __future__ import annotations

import re
from types import SimpleNamespace

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.domain.ids import SubscriptionId, is_subscription_id
from app.errors import BillingError
from app.routes import problems
from app.routes.answers import UNCHANGED, answer_bytes
from app.routes.dependencies import FreshQuery, SubscriptionPath, get_context, principal_of, spend
from app.schemas.subscriptions import SubscriptionAnswer, body
from app.services import subscriptions, sync

_READ = {**UNCHANGED, **problems.responses(401, 403, 404, 422, 502, 503)}
_PATH = re.compile(r"/v1(/(?:shared-)?subscriptions/)([^/]+)")
_ROUTES = {
    start: SimpleNamespace(path=start + "{subscription_id}")
    for start in ("/subscriptions/", "/shared-subscriptions/")
}
"""What logs and metrics call them: as the routes below, which the same requests would take without the short way."""
TEMPLATES = frozenset(route.path for route in _ROUTES.values())


class PlainReadsFirst:
    """Answers a GET of one subscription that has no query, and hands everything else on."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = None
        if scope["type"] == "http" and scope["method"] == "GET" and not scope["query_string"]:
            found = _PATH.fullmatch(scope["path"])
        if found is None or not is_subscription_id(found[2]):
            await self.app(scope, receive, send)
            return
        scope["route"] = _ROUTES[found[1]]
        request = Request(scope)
        try:
            response = await _read(request, SubscriptionId(found[2]), fresh=False)
        except BillingError as error:
            response = problems.render(error, request)
        await response(scope, receive, send)


router = APIRouter()


@router.get(
    "/shared-subscriptions/{subscription_id}",
    response_model=SubscriptionAnswer,
    responses=_READ,
    tags=["shared subscriptions"],
)
async def get_shared_subscription(
    request: Request, subscription_id: SubscriptionPath, fresh: FreshQuery = False
) -> Response:
    """The shared plan with its seats, each role its own view."""
    return await _read(request, subscription_id, fresh=fresh)


@router.get(
    "/subscriptions/{subscription_id}",
    response_model=SubscriptionAnswer,
    responses=_READ,
    tags=["subscriptions"],
)
async def get_subscription(
    request: Request, subscription_id: SubscriptionPath, fresh: FreshQuery = False
) -> Response:
    """A subscription, as the caller's role shows it."""
    return await _read(request, subscription_id, fresh=fresh)


async def _read(request: Request, subscription_id: SubscriptionId, *, fresh: bool) -> Response:
    context, principal = get_context(request), await principal_of(request)
    seen = await subscriptions.get_as(context, principal, subscription_id)
    if fresh:
        await spend(request)
        await sync.freshen(context, "subscription", subscription_id)
        seen = await subscriptions.get_as(context, principal, subscription_id)
    return answer_bytes(request, body(seen, context.rules))
