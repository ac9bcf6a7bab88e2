"""Transfer of ownership, and the audit trail of a subscription."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.context import Context
from app.domain.ids import CustomerId, SubscriptionId
from app.domain.snapshots import JsonObject
from app.errors import Conflict
from app.http import cursors, problem_codes, problems
from app.http.answers import UNCHANGED, answer
from app.http.dependencies import (
    ContextDep,
    CursorQuery,
    LimitQuery,
    ReaderDep,
    SubscriptionPath,
    WriterDep,
)
from app.http.idempotency import IdempotentRoute
from app.http.operation_ids import operation_id_of
from app.identity.actors import Actor
from app.operations import runner as operations
from app.operations.answers import ACCEPTED, operation_answer
from app.operations.schemas import SettledOperation
from app.sharing import audit, transfers
from app.sharing.routes.members import run_and_answer
from app.sharing.schemas.transfers import AuditEventList, OfferedTransfer, TransferAnswer, TransferRequest
from app.sharing.store import Transfer

router = APIRouter(tags=["shared subscriptions"], route_class=IdempotentRoute)
_READ = {**UNCHANGED, **problems.responses(401, 403, 404, 422, 503, codes=problem_codes.ROLES)}
# What Stripe refuses while an operation runs is reported in its results, never as 502.
_WRITE = problems.responses(
    *(401, 403, 404, 409, 413, 415, 422, 503),
    codes=(*problem_codes.ROLES, *problem_codes.PEOPLE, "version_conflict"),
    refusals=problem_codes.REFUSALS,
)


@router.get(
    "/shared-subscriptions/{subscription_id}/transfer", response_model=TransferAnswer, responses=_READ
)
async def get_transfer(
    request: Request, context: ContextDep, actor: ReaderDep, subscription_id: SubscriptionPath
) -> Response:
    """Return the newest offer of ownership, if it concerns the caller."""
    found = await _current(context, actor, subscription_id)
    return answer(request, TransferAnswer.model_validate({"transfer": found}))


@router.post(
    "/shared-subscriptions/{subscription_id}/transfer",
    response_model=OfferedTransfer,
    responses={**ACCEPTED, **_WRITE},
)
async def offer_transfer(
    request: Request,
    context: ContextDep,
    actor: WriterDep,
    subscription_id: SubscriptionPath,
    body: TransferRequest,
) -> Response:
    """Offer ownership to a member.

    If there is no owner, a payer who names themselves becomes the owner at once.
    """
    admitted = await transfers.offer(
        context,
        actor,
        subscription_id,
        to_id=CustomerId(body.to_customer_id),
        allow_purchases=body.allow_purchases,
        keep_me_as=body.keep_me_as,
        operation_id=await operation_id_of(request, actor.principal),
    )
    if admitted is None:
        return await _offered(request, context, actor, subscription_id)
    if not admitted.again:
        await operations.run_within(context, admitted.operation_id, admitted.lease_token)
    outcome = await operations.outcome(context, admitted.operation_id, actor)
    if not all(step.is_settled for step in outcome.steps):
        return operation_answer(request, outcome, actor)
    if any(step.state in ("refused", "failed") for step in outcome.steps):
        raise Conflict(
            "The owner changed while this request ran. Read the subscription again.", code="version_conflict"
        )
    return await _offered(request, context, actor, subscription_id)


@router.post(
    "/shared-subscriptions/{subscription_id}/transfer/accept",
    response_model=SettledOperation,
    responses={**ACCEPTED, **_WRITE},
)
async def accept_transfer(
    request: Request, context: ContextDep, actor: WriterDep, subscription_id: SubscriptionPath
) -> Response:
    """Make the caller the owner, as offered; the paying customer stays the same."""
    operation_id = await operation_id_of(request, actor.principal)
    admitted = await transfers.accept(context, actor, subscription_id, operation_id)
    return await run_and_answer(request, context, actor, admitted)


@router.post(
    "/shared-subscriptions/{subscription_id}/transfer/decline",
    response_model=TransferAnswer,
    responses=_WRITE,
)
async def decline_transfer(
    request: Request, context: ContextDep, actor: WriterDep, subscription_id: SubscriptionPath
) -> Response:
    """Decline the offer as its receiver, or withdraw it as its giver."""
    decided = await transfers.decline(context, actor, subscription_id)
    return answer(request, TransferAnswer.model_validate({"transfer": _shown(decided)}))


async def _offered(
    request: Request, context: Context, actor: Actor, subscription_id: SubscriptionId
) -> Response:
    found = await _current(context, actor, subscription_id)
    return answer(request, OfferedTransfer.model_validate({"pending": False, "transfer": found}))


async def _current(context: Context, actor: Actor, subscription_id: SubscriptionId) -> JsonObject | None:
    found = await transfers.current(context, actor, subscription_id)
    return None if found is None else _shown(found)


def _shown(transfer: Transfer) -> JsonObject:
    return {
        "subscription_id": transfer.subscription_id,
        "from_customer_id": transfer.from_id,
        "to_customer_id": transfer.to_id,
        "allow_purchases": transfer.allow_purchases,
        "keep_me_as": transfer.keep_me_as,
        "state": transfer.state,
        "operation_id": transfer.operation_id,
        "created_at": transfer.created_at,
        "expires_at": transfer.expires_at,
    }


@router.get(
    "/shared-subscriptions/{subscription_id}/audit-events", response_model=AuditEventList, responses=_READ
)
async def get_audit_events(
    request: Request,
    context: ContextDep,
    actor: ReaderDep,
    subscription_id: SubscriptionPath,
    limit: LimitQuery = 20,
    cursor: CursorQuery = None,
) -> Response:
    """Return who changed what, before and after, newest first."""
    principal, query = actor.principal.key, ["audit-events", subscription_id]
    before = cursors.as_number(cursors.decode(cursor, principal=principal, query=query))
    found = await audit.events(context, actor, subscription_id, before=before, limit=limit + 1)
    kept, more = found[:limit], len(found) > limit
    page = {
        "data": [_event(row) for row in kept],
        "has_more": more,
        "next_cursor": cursors.encode(kept[-1]["id"], principal=principal, query=query) if more else None,
    }
    return answer(request, AuditEventList.model_validate(page))


def _event(row: JsonObject) -> JsonObject:
    kind, _, name = (row["principal"] or "").partition(":")
    return {
        "id": f"aud_{row['id']}",
        **{n: row[n] for n in ("at", "source", "action", "customer_id", "before", "after", "operation_id")},
        "actor_customer_id": row["actor_id"],
        "service": name.partition(":")[0] if kind == "service" else None,
    }
