"""The hottest reads: one subscription, by either of its names.

FastAPI's way to a route costs more than the statement behind it, so a plain GET of one subscription is answered before
any routing; anything else (a query, an odd id) takes the ordinary way, with its checks and messages.
"""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.context import Context
from app.domain.ids import SubscriptionId, is_subscription_id
from app.domain.roles import Role
from app.errors import BillingError, NotFound
from app.http import problems
from app.http.answers import UNCHANGED, answer, answer_bytes
from app.http.cursors import Paging
from app.http.dependencies import (
    ContextDep,
    CursorQuery,
    CustomerPath,
    FreshQuery,
    LimitQuery,
    ReaderDep,
    SubscriptionPath,
    get_context,
    principal_of,
    spend,
)
from app.http.schemas import RoleName
from app.http.strict_queries import StrictQueryRoute
from app.http.stripe_values import SubscriptionStatusName
from app.identity.principals import Principal, ServiceKey
from app.mirror import refreshing as sync
from app.mirror import visibility as subscriptions
from app.operations import waiting
from app.subscriptions.schemas.subscriptions import SubscriptionAnswer, SubscriptionList, body, shown

StatusesQuery = Annotated[
    list[SubscriptionStatusName] | None,
    Query(max_length=10, description="Repeatable."),
]

_READ = {**UNCHANGED, **problems.responses(401, 403, 404, 422, 502, 503)}
_PATH = re.compile(r"/v1(/(?:shared-)?subscriptions/)([^/]+)")
_ROUTES = {
    "/subscriptions/": SimpleNamespace(name="get_subscription"),
    "/shared-subscriptions/": SimpleNamespace(name="get_shared_subscription"),
}
"""What logs and metrics call them: as the routes below, which the same requests would take without the short way."""


class PlainReadsFirst:
    """Answers a GET of one subscription that has no query, and hands everything else on."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or hand it on."""
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


router = APIRouter(route_class=StrictQueryRoute)


@router.get(
    "/shared-subscriptions/{subscription_id}",
    response_model=SubscriptionAnswer,
    responses=_READ,
    tags=["shared subscriptions"],
)
async def get_shared_subscription(
    request: Request, subscription_id: SubscriptionPath, fresh: FreshQuery = False
) -> Response:
    """Return a shared subscription with its seats, as the caller's role shows it."""
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
    """Return a subscription, as the caller's role shows it."""
    return await _read(request, subscription_id, fresh=fresh)


@router.get(
    "/customers/{customer_id}/subscriptions",
    response_model=SubscriptionList,
    responses={**UNCHANGED, **problems.responses(401, 403, 404, 422, 503)},
    tags=["customers"],
)
async def get_customer_subscriptions(
    request: Request,
    context: ContextDep,
    actor: ReaderDep,
    customer_id: CustomerPath,
    status: StatusesQuery = None,
    role: Annotated[RoleName | None, Query()] = None,
    limit: LimitQuery = 20,
    cursor: CursorQuery = None,
) -> Response:
    """Return every subscription that the customer pays for, owns or is a member of.

    Newest first, each with the customer's role.
    """
    acting = actor.customer(customer_id)
    paging = Paging.of(
        cursor, limit, principal=actor.principal.key, query=["subscriptions", acting, status, role]
    )
    found = await subscriptions.of_customer(
        context, acting, statuses=status, role=None if role is None else Role(role)
    )
    rows = [
        {"created": seen.view.created, "id": seen.view.id, "seen": seen}
        for seen in found
        if paging.after is None or (seen.view.created, seen.view.id) < paging.after
    ]
    frame = paging.frame(rows)
    await waiting.add_payments(context, [row["seen"] for row in frame["data"]])
    frame["data"] = [shown(row["seen"], context.rules) for row in frame["data"]]
    return answer(request, SubscriptionList.model_validate(frame))


async def _read(request: Request, subscription_id: SubscriptionId, *, fresh: bool) -> Response:
    context, principal = get_context(request), await principal_of(request)
    if fresh:
        seeks = await _seeks(context, principal, subscription_id)
        await spend(request)
        await sync.freshen(context, "subscription", subscription_id, seeks=seeks)
    seen = await subscriptions.get_as(context, principal, subscription_id)
    await waiting.add_payments(context, [seen])
    return answer_bytes(request, body(seen, context.rules))


async def _seeks(context: Context, principal: Principal, subscription_id: SubscriptionId) -> bool:
    """Return True if Stripe is to be asked for a subscription that the copy does not have.

    Nobody's question costs a call for what they may not see, and a key that acts for nobody may see everything.

    Raises:
        BillingError: what `app.mirror.visibility.get_as` raises.
    """
    try:
        await subscriptions.get_as(context, principal, subscription_id)
    except NotFound:
        if isinstance(principal, ServiceKey) and principal.acting_customer is None:
            return True
        raise
    return False
