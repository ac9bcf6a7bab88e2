"""Webhook endpoints: create, list, change, delete, rotate the secret, test, deliveries, redeliver."""

from __future__ import annotations

from typing import Annotated, cast

import orjson
from fastapi import APIRouter, Depends, Path, Request
from starlette.responses import Response

from app.errors import Forbidden
from app.events import endpoints
from app.events.endpoint_schemas import (
    DeliveryList,
    NewWebhookEndpointRequest,
    RotateSecretRequest,
    TestAnswer,
    WebhookEndpointAnswer,
    WebhookEndpointChangeRequest,
    WebhookEndpointList,
    WebhookEndpointSecretAnswer,
)
from app.events.endpoints import DELIVERY_PATTERN, ID_PATTERN, Changes, NewEndpoint
from app.events.secrets import EndpointSecrets
from app.events.sending import WebhookSender
from app.events.store.endpoints import Endpoint
from app.http import cursors, problems
from app.http.answers import UNCHANGED, answer
from app.http.dependencies import (
    ContextDep,
    CursorQuery,
    LimitQuery,
    SettingsDep,
    get_settings,
    reading_actor,
    writing_actor,
)
from app.http.idempotency import IdempotentRoute
from app.http.operation_ids import operation_id_of
from app.identity.actors import Actor


class EndpointRoute(IdempotentRoute):
    """A route whose answer may carry a signing secret, which is not stored."""

    def to_store(self, body: bytes) -> bytes:
        """Return the answer with `secret: null`."""
        found = orjson.loads(body) if body else None
        if isinstance(found, dict) and "secret" in found:
            return orjson.dumps({**found, "secret": None})
        return body


router = APIRouter(tags=["webhook endpoints"], route_class=EndpointRoute)
EndpointPath = Annotated[str, Path(pattern=ID_PATTERN)]
DeliveryPath = Annotated[str, Path(pattern=DELIVERY_PATTERN)]
_READ = {**UNCHANGED, **problems.responses(401, 403, 404, 422, 503)}
_READ_ALL = {**UNCHANGED, **problems.responses(401, 403, 422, 503)}
_CODES = ("webhooks_unavailable",)
_WRITE = problems.responses(401, 403, 404, 409, 413, 415, 422, 503, codes=_CODES)


def _admin(actor: Actor) -> Actor:
    actor.require_scope("admin")
    if not actor.is_admin:
        raise Forbidden(
            "Only a service key with the scope admin that acts for no customer may do this.",
            code="scope_required",
        )
    return actor


async def reading_admin(request: Request) -> Actor:
    """Return the admin key that reads. Raises Forbidden `scope_required`, and what `reading_actor` raises."""
    return _admin(await reading_actor(request))


async def writing_admin(request: Request) -> Actor:
    """Return the admin key that writes. Raises Forbidden `scope_required`, and what `writing_actor` raises."""
    return _admin(await writing_actor(request))


ReadingAdminDep = Annotated[Actor, Depends(reading_admin)]
WritingAdminDep = Annotated[Actor, Depends(writing_admin)]


def _secrets(request: Request) -> EndpointSecrets:
    return EndpointSecrets(get_settings(request).encryption_keys)


@router.post(
    "/webhook-endpoints",
    response_model=WebhookEndpointSecretAnswer,
    status_code=201,
    responses=problems.responses(401, 403, 409, 410, 413, 415, 422, 503, codes=_CODES),
)
async def create_webhook_endpoint(
    request: Request,
    context: ContextDep,
    settings: SettingsDep,
    actor: WritingAdminDep,
    body: NewWebhookEndpointRequest,
) -> Response:
    """Send events to a URL from now on, or from a place of the log. The answer has the signing secret, once."""
    asked = NewEndpoint(body.url, body.types, body.description, body.after)
    endpoint_id = (await operation_id_of(request, actor.principal)).replace("op_", "we_", 1)
    made, secret = await endpoints.create(
        context, _secrets(request), asked, endpoint_id, live=settings.stripe_livemode
    )
    return _with_secret(request, made, secret, status=201)


@router.get("/webhook-endpoints", response_model=WebhookEndpointList, responses=_READ_ALL)
async def get_webhook_endpoints(
    request: Request,
    context: ContextDep,
    actor: ReadingAdminDep,
    limit: LimitQuery = 20,
    cursor: CursorQuery = None,
) -> Response:
    """Return the endpoints."""
    principal, query = actor.principal.key, "webhook-endpoints"
    after = cursors.as_text(cursors.decode(cursor, principal=principal, query=query)) or ""
    found = await endpoints.page(context, after=after, limit=limit + 1)
    kept, more = found[:limit], len(found) > limit
    page = {
        "data": [endpoints.shown(one) for one in kept],
        "has_more": more,
        "next_cursor": cursors.encode(kept[-1].id, principal=principal, query=query) if more else None,
    }
    return answer(request, WebhookEndpointList.model_validate(page))


@router.get("/webhook-endpoints/{endpoint_id}", response_model=WebhookEndpointAnswer, responses=_READ)
async def get_webhook_endpoint(
    request: Request, context: ContextDep, _actor: ReadingAdminDep, endpoint_id: EndpointPath
) -> Response:
    """Return one endpoint."""
    return _answer(request, await endpoints.get(context, endpoint_id))


@router.patch(
    "/webhook-endpoints/{endpoint_id}",
    response_model=WebhookEndpointAnswer,
    responses=problems.responses(401, 403, 404, 409, 410, 413, 415, 422, 503),
)
async def update_webhook_endpoint(
    request: Request,
    context: ContextDep,
    settings: SettingsDep,
    _actor: WritingAdminDep,
    endpoint_id: EndpointPath,
    body: WebhookEndpointChangeRequest,
) -> Response:
    """Change an endpoint, disable it, or enable it again without a gap."""
    asked = Changes(
        frozenset(body.model_fields_set), body.url, body.types, body.description, body.status, body.after
    )
    return _answer(
        request, await endpoints.change(context, endpoint_id, asked, live=settings.stripe_livemode)
    )


@router.delete(
    "/webhook-endpoints/{endpoint_id}",
    status_code=204,
    responses=_WRITE,
)
async def delete_webhook_endpoint(
    context: ContextDep, _actor: WritingAdminDep, endpoint_id: EndpointPath
) -> Response:
    """Delete an endpoint and its deliveries."""
    await endpoints.delete(context, endpoint_id)
    return Response(status_code=204)


@router.post(
    "/webhook-endpoints/{endpoint_id}/rotate-secret",
    response_model=WebhookEndpointSecretAnswer,
    responses=_WRITE,
)
async def rotate_webhook_endpoint_secret(
    request: Request,
    context: ContextDep,
    _actor: WritingAdminDep,
    endpoint_id: EndpointPath,
    body: RotateSecretRequest | None = None,
) -> Response:
    """Make a new signing secret. Events carry the signature of the former one too until the overlap ends."""
    asked = body or RotateSecretRequest()
    found, secret = await endpoints.rotate(
        context, _secrets(request), endpoint_id, overlap=asked.overlap_seconds
    )
    return _with_secret(request, found, secret)


@router.post(
    "/webhook-endpoints/{endpoint_id}/test",
    response_model=TestAnswer,
    responses=_WRITE,
)
async def send_webhook_test(
    request: Request, context: ContextDep, _actor: WritingAdminDep, endpoint_id: EndpointPath
) -> Response:
    """Send the event `endpoint.test` at once, and return how the endpoint answered."""
    sender = cast(WebhookSender, request.app.state.sender)
    sent = await endpoints.send_test(context, _secrets(request), sender, endpoint_id)
    return answer(request, TestAnswer.model_validate(sent.as_members()))


@router.get("/webhook-endpoints/{endpoint_id}/deliveries", response_model=DeliveryList, responses=_READ)
async def get_webhook_deliveries(
    request: Request,
    context: ContextDep,
    actor: ReadingAdminDep,
    endpoint_id: EndpointPath,
    limit: LimitQuery = 20,
    cursor: CursorQuery = None,
) -> Response:
    """Return what was tried to deliver, the newest event first."""
    principal, query = actor.principal.key, ["webhook-deliveries", endpoint_id]
    before = cursors.as_number(cursors.decode(cursor, principal=principal, query=query))
    found = await endpoints.deliveries(context, endpoint_id, before=before, limit=limit + 1)
    kept, more = found[:limit], len(found) > limit
    page = {
        "data": kept,
        "has_more": more,
        "next_cursor": cursors.encode(kept[-1]["position"], principal=principal, query=query)
        if more
        else None,
    }
    return answer(request, DeliveryList.model_validate(page))


@router.post(
    "/webhook-endpoints/{endpoint_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    response_class=Response,
    responses=_WRITE,
)
async def redeliver_webhook(
    context: ContextDep, _actor: WritingAdminDep, endpoint_id: EndpointPath, delivery_id: DeliveryPath
) -> Response:
    """Send an event again, soon, and try whatever waits for this endpoint at once."""
    await endpoints.redeliver(context, endpoint_id, delivery_id)
    return Response(status_code=202)


def _answer(request: Request, endpoint: Endpoint) -> Response:
    return answer(
        request, WebhookEndpointAnswer.model_validate({"webhook_endpoint": endpoints.shown(endpoint)})
    )


def _with_secret(request: Request, endpoint: Endpoint, secret: str, *, status: int = 200) -> Response:
    shown = {"webhook_endpoint": endpoints.shown(endpoint), "secret": secret}
    return answer(request, WebhookEndpointSecretAnswer.model_validate(shown), status=status)
