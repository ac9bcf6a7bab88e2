"""The hottest reads: one subscription, by either of its names.

FastAPI's resolving of parameters costs as much as the statement behind these routes, so a plain request goes straight
to its endpoint; anything else (a query, an odd id) takes the ordinary way, with its checks and messages.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from app.domain.ids import SubscriptionId, is_subscription_id
from app.routes import problems
from app.routes.answers import UNCHANGED, answer_bytes
from app.routes.dependencies import FreshQuery, SubscriptionPath, get_context, principal_of
from app.schemas.subscriptions import SubscriptionAnswer, body
from app.services import subscriptions, sync

_READ = {**UNCHANGED, **problems.responses(401, 403, 404, 422, 502, 503)}

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class DirectRoute(APIRoute):
    """For endpoints that take a request and one subscription id."""

    def get_route_handler(self) -> Handler:
        checked, endpoint = super().get_route_handler(), self.endpoint

        async def direct(request: Request) -> Response:
            subscription_id = request.path_params["subscription_id"]
            if request.scope["query_string"] or not is_subscription_id(subscription_id):
                return await checked(request)
            response: Response = await endpoint(request, SubscriptionId(subscription_id))
            return response

        return direct


router = APIRouter(route_class=DirectRoute)


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
        await sync.freshen(context, "subscription", subscription_id)
        seen = await subscriptions.get_as(context, principal, subscription_id)
    return answer_bytes(request, body(seen, context.rules))
