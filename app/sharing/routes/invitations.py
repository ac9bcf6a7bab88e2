"""Invitations: create, list, resend, revoke; and look up, accept, decline by a token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from app.context import Context
from app.customers import links
from app.domain.snapshots import JsonObject
from app.errors import InvalidRequest
from app.http import cursors, problem_codes, problems
from app.http.answers import UNCHANGED, answer
from app.http.dependencies import (
    ContextDep,
    CursorQuery,
    LimitQuery,
    PrincipalDep,
    ReaderDep,
    SubscriptionPath,
    WriterDep,
    get_settings,
)
from app.http.idempotency import IdempotentRoute
from app.http.operation_ids import operation_id_of
from app.identity.actors import Actor
from app.identity.principals import EndUser, ServiceKey
from app.operations.answers import ACCEPTED
from app.operations.schemas import SettledOperation
from app.sharing import acceptances, invitations
from app.sharing.invitation_store import Invitation
from app.sharing.invitation_tokens import ID_PATTERN, InvitationTokens, TokenName, kept_part, name_of
from app.sharing.invitations import Invited, NewInvitation
from app.sharing.routes.members import run_and_answer
from app.sharing.schemas.invitations import (
    InvitationAnswer,
    InvitationList,
    InvitationLookup,
    InvitationState,
    NewInvitationRequest,
    ResendRequest,
    TokenRequest,
)


class InvitationRoute(IdempotentRoute):
    """A route whose answer may carry a token. The stored answer keeps only its name, and a replay makes it again."""

    def to_store(self, body: bytes) -> bytes:
        """Return the answer without the secret part of its token."""
        return _with_token(body, kept_part)

    def to_replay(self, request: Request, body: bytes) -> bytes:
        """Return the answer with its whole token.

        Raises:
            ServiceUnavailable: `invitations_unavailable`.
        """
        return _with_token(body, lambda kept: _tokens(request).make(name_of(kept)))


router = APIRouter(tags=["invitations"], route_class=InvitationRoute)
_READ = {**UNCHANGED, **problems.responses(401, 403, 404, 422, 503, codes=problem_codes.ROLES)}
_CODES = (*problem_codes.ROLES, "invitation_ended", "invitations_unavailable")
_WRITE = problems.responses(*(401, 403, 404, 409, 413, 415, 422, 503), codes=_CODES)
_CREATE = problems.responses(
    *(401, 403, 404, 409, 413, 415, 422, 503),
    codes=(
        *_CODES,
        "already_invited",
        "already_member",
        "not_shareable",
        "seat_limit_reached",
        "subscription_not_active",
    ),
)
_BY_TOKEN = problems.responses(
    *(401, 404, 409, 413, 415, 422, 503), codes=("invitation_ended", "invitations_unavailable")
)
_ACCEPT = problems.responses(
    *(401, 403, 404, 409, 413, 415, 422, 502, 503),
    codes=("invitation_ended", "invitation_for_another", "invitations_unavailable"),
    refusals=problem_codes.REFUSALS,
    seats_shown=False,
)
InvitationPath = Annotated[str, Path(pattern=ID_PATTERN)]


@router.post(
    "/shared-subscriptions/{subscription_id}/invitations",
    response_model=InvitationAnswer,
    status_code=201,
    responses=_CREATE,
)
async def create_invitation(
    request: Request,
    context: ContextDep,
    actor: WriterDep,
    subscription_id: SubscriptionPath,
    body: NewInvitationRequest,
) -> Response:
    """Invite an address, and reserve a seat until the invitation ends. Nothing is written at Stripe.

    The person accepts it as whatever customer they are.
    """
    tokens = _tokens(request)
    tokens.check_available()
    operation_id = await operation_id_of(request, actor.principal)
    invited = await invitations.create(
        context,
        actor,
        subscription_id,
        NewInvitation(body.email, body.role),
        operation_id.replace("op_", "inv_", 1),
    )
    return _answer(request, actor, invited, tokens, status=201)


@router.get(
    "/shared-subscriptions/{subscription_id}/invitations", response_model=InvitationList, responses=_READ
)
async def get_invitations(
    request: Request,
    context: ContextDep,
    actor: ReaderDep,
    subscription_id: SubscriptionPath,
    state: Annotated[list[InvitationState] | None, Query(max_length=5)] = None,
    limit: LimitQuery = 20,
    cursor: CursorQuery = None,
) -> Response:
    """Return the invitations in all states, or in the named ones, newest first."""
    states = sorted(set(state or ()))
    principal, query = actor.principal.key, ["invitations", subscription_id, *states]
    before = cursors.as_number(cursors.decode(cursor, principal=principal, query=query))
    found = await invitations.page(
        context, actor, subscription_id, states=states, before=before, limit=limit + 1
    )
    kept, more = found[:limit], len(found) > limit
    page = {
        "data": [_shown(one) for one in kept],
        "has_more": more,
        "next_cursor": cursors.encode(kept[-1].number, principal=principal, query=query) if more else None,
    }
    return answer(request, InvitationList.model_validate(page))


@router.post(
    "/shared-subscriptions/{subscription_id}/invitations/{invitation_id}/resend",
    response_model=InvitationAnswer,
    responses=_WRITE,
)
async def resend_invitation(
    request: Request,
    context: ContextDep,
    actor: WriterDep,
    subscription_id: SubscriptionPath,
    invitation_id: InvitationPath,
    body: ResendRequest | None = None,
) -> Response:
    """Make the old token void, and begin a new term."""
    tokens = _tokens(request)
    tokens.check_available()
    invited = await invitations.resend(context, actor, subscription_id, invitation_id)
    return _answer(request, actor, invited, tokens, status=200)


@router.delete(
    "/shared-subscriptions/{subscription_id}/invitations/{invitation_id}", status_code=204, responses=_WRITE
)
async def revoke_invitation(
    context: ContextDep, actor: WriterDep, subscription_id: SubscriptionPath, invitation_id: InvitationPath
) -> Response:
    """Revoke an open invitation, which frees its seat. Revoking it again changes nothing."""
    await invitations.revoke(context, actor, subscription_id, invitation_id)
    return Response(status_code=204)


@router.post("/invitations/lookup", response_model=InvitationLookup, responses=_BY_TOKEN)
async def look_up_invitation(
    request: Request, context: ContextDep, _: PrincipalDep, body: TokenRequest
) -> Response:
    """Return what the invitation is for. It needs no login and changes nothing."""
    looked = await invitations.look_up(context, _tokens(request).verified(body.token))
    found = looked.invitation
    return answer(
        request,
        InvitationLookup.model_validate(
            {
                "product": {"id": looked.product_id, "name": looked.product_name},
                "inviter": None if found.inviter_id is None else {"name": found.inviter_name},
                "role": found.role,
                "expires_at": found.expires_at,
            }
        ),
    )


@router.post(
    "/invitations/accept",
    response_model=SettledOperation,
    responses={**ACCEPTED, **_ACCEPT},
)
async def accept_invitation(
    request: Request, context: ContextDep, actor: WriterDep, body: TokenRequest
) -> Response:
    """Accept an invitation, sent to any address, as the caller. Accepting again gives the same answer.

    A login without a customer gets one first, as by `POST /v1/customers`. The setting `INVITATION_EMAIL_MUST_MATCH`
    binds an invitation to its address.
    """
    name = _tokens(request).verified(body.token)
    if actor.is_service:
        raise InvalidRequest("A service key must say who accepts: X-Acting-Customer.")
    await acceptances.check_usable(context, actor, name)
    acting = await _signed_up(context, actor)
    operation_id = await operation_id_of(request, actor.principal)
    admitted = await acceptances.accept(context, acting, name, operation_id)
    return await run_and_answer(request, context, acting, admitted)


async def _signed_up(context: Context, actor: Actor) -> Actor:
    """Do for a login what `POST /v1/customers` does, and return its actor with the customer."""
    if not isinstance(actor.principal, EndUser):
        return actor
    customer_id, _ = await links.sign_up(context, actor.principal, actor.customer_id)
    return Actor(actor.principal, customer_id)


@router.post("/invitations/decline", status_code=204, responses=_BY_TOKEN)
async def decline_invitation(
    request: Request, context: ContextDep, principal: PrincipalDep, body: TokenRequest
) -> Response:
    """Decline an invitation, which frees its seat. It needs no login. Declining it again changes nothing."""
    name = _tokens(request).verified(body.token)
    await invitations.decline(context, name, principal=principal.key)
    return Response(status_code=204)


def _tokens(request: Request) -> InvitationTokens:
    return InvitationTokens(get_settings(request).invitation_signing_secrets)


def _with_token(body: bytes, change: Callable[[str], str]) -> bytes:
    """Return the answer with its token changed, or as it is if it has none."""
    document = orjson.loads(body) if body else None
    if not isinstance(document, dict) or not isinstance(document.get("token"), str):
        return body
    return orjson.dumps({**document, "token": change(document["token"])})


def _answer(
    request: Request, actor: Actor, invited: Invited, tokens: InvitationTokens, *, status: int
) -> Response:
    """Answer with the invitation. Its token goes to service keys only, who may act for a customer."""
    found = invited.invitation
    is_sender = isinstance(actor.principal, ServiceKey) and found.state == "open"
    token = tokens.make(TokenName(found.id, found.generation)) if is_sender else None
    model = InvitationAnswer.model_validate(
        {"invitation": _shown(found), "seats": invited.seats.as_members(), "token": token}
    )
    return answer(request, model, status=status)


def _shown(found: Invitation) -> JsonObject:
    inviter = {"customer_id": found.inviter_id, "name": found.inviter_name}
    return {
        "id": found.id,
        "subscription_id": found.subscription_id,
        "email": found.email,
        "role": found.role,
        "state": found.state,
        "reason": found.reason,
        "created": found.created_at,
        "expires_at": found.expires_at,
        "invited_by": None if found.inviter_id is None else inviter,
        "renewable": found.is_renewable,
    }
