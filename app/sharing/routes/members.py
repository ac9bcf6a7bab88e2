"""Shared subscriptions: their people and seats, and changes of both."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.context import Context
from app.customers import failures
from app.domain.ids import CustomerId, SubscriptionItemId
from app.domain.roles import Role
from app.domain.snapshots import JsonObject
from app.errors import Conflict
from app.http import cursors, problem_codes, problems
from app.http.answers import UNCHANGED, answer
from app.http.dependencies import (
    CallerDep,
    ContextDep,
    CursorQuery,
    LimitQuery,
    ReaderDep,
    SubscriptionPath,
    WriterDep,
    refuse_admin_fields,
    spend,
)
from app.http.idempotency import IdempotentRoute
from app.http.operation_ids import operation_id_of
from app.identity.actors import Actor
from app.operations import runner as operations
from app.operations import waiting
from app.operations.answers import (
    ACCEPTED,
    DETAILS,
    ON_PEOPLE,
    operation_answer,
    operation_members,
    result_of,
)
from app.operations.runner import Outcome
from app.operations.schemas import SettledOperation
from app.sharing import (
    admission as member_changes,
)
from app.sharing import (
    members as shared_subscriptions,
)
from app.sharing import (
    purchase_permissions,
    seat_changes,
    seat_releases,
)
from app.sharing.admission import Admitted
from app.sharing.member_changes import Action
from app.sharing.members import PeopleQuery
from app.sharing.people import AskedChange
from app.sharing.schemas.members import (
    MemberChangeRequest,
    PersonList,
    PersonRole,
    PersonState,
    SeatQuoteRequest,
    SeatsRequest,
)
from app.sharing.seat_changes import Purchasing
from app.subscriptions import changes as subscription_changes
from app.subscriptions import previews, seat_purchases
from app.subscriptions.routes.changes import change_answer, quote_answer
from app.subscriptions.routes.preconditions import precondition_of
from app.subscriptions.schemas.changes import ChangedSubscription, QuoteAnswer
from app.subscriptions.schemas.subscriptions import SubscriptionAnswer, shown

router = APIRouter(tags=["shared subscriptions"], route_class=IdempotentRoute)
_READ = {**UNCHANGED, **problems.responses(401, 403, 404, 422, 503, codes=problem_codes.ROLES)}
# What Stripe refuses while an operation runs is shown by its results; 502 only before it begins.
_PEOPLE = (*problem_codes.ROLES, *problem_codes.PEOPLE)
_BUYING = (
    *problem_codes.ROLES,
    *problem_codes.ADMIN_FIELDS,
    *problem_codes.TERMS,
    *problem_codes.MONEY,
    *problem_codes.DECLINES,
    "operation_expired",
    "seat_item_ambiguous",
    "seats_in_use",
    "version_conflict",
)


def _write(
    *statuses: int, codes: tuple[str, ...], refusals: tuple[str, ...] = ()
) -> dict[int | str, dict[str, Any]]:
    given = (401, 403, 404, 409, 413, 415, 422, 503, *statuses)
    return problems.responses(*given, codes=codes, refusals=refusals)


@router.get("/shared-subscriptions/{subscription_id}/users", response_model=PersonList, responses=_READ)
async def get_shared_subscription_users(
    request: Request,
    context: ContextDep,
    actor: ReaderDep,
    subscription_id: SubscriptionPath,
    search: Annotated[str | None, Query(max_length=100, description="Within e-mail or name.")] = None,
    role: Annotated[PersonRole | None, Query()] = None,
    state: Annotated[
        list[PersonState] | None, Query(max_length=4, description="May be repeated; without it: all states.")
    ] = None,
    limit: LimitQuery = 20,
    cursor: CursorQuery = None,
) -> Response:
    """Return the owner first, then the members, the people who are being added, and the invited ones.

    A user sees only themselves and the owner's contact.
    """
    states = frozenset(state or ())
    principal, query = actor.principal.key, ["users", subscription_id, search, role, *sorted(states)]
    after = cursors.as_text(cursors.decode(cursor, principal=principal, query=query))
    found = await shared_subscriptions.people(
        context,
        actor,
        subscription_id,
        PeopleQuery(_cleaned(search), None if role is None else Role(role), states, after, limit),
    )
    more = found.next_after is not None
    page = {
        "data": [
            {
                "customer_id": row.customer_id,
                "email": row.email,
                "name": row.name,
                "role": row.role,
                "state": row.state,
                "since": row.since,
                "invitation_id": row.invitation_id,
            }
            for row in found.rows
        ],
        "total_count": found.total_count,
        "seats": found.seats.as_members(),
        "has_more": more,
        "next_cursor": cursors.encode(found.next_after, principal=principal, query=query) if more else None,
    }
    return answer(request, PersonList.model_validate(page))


def _cleaned(search: str | None) -> str | None:
    return None if search is None else search.replace("\x00", "").strip() or None


@router.patch(
    "/shared-subscriptions/{subscription_id}/users",
    response_model=SettledOperation,
    responses={**ACCEPTED, **_write(412, 502, codes=(*_PEOPLE, *_BUYING), refusals=problem_codes.REFUSALS)},
)
async def update_shared_subscription_users(
    request: Request,
    context: ContextDep,
    actor: WriterDep,
    subscription_id: SubscriptionPath,
    body: MemberChangeRequest,
) -> Response:
    """Add, remove and change members in one call, each with its own result.

    200: every result is final. 202: some are pending, see `Location`. 409: nothing was accepted.
    """
    refuse_admin_fields(actor, body)
    asked = _asked(body)
    if len(asked) > 1:
        # Each is a call of Stripe's; the first was counted with the request.
        await spend(request, cost=len(asked) - 1)
    purchasing = None
    if body.over_capacity == "add_seats" or body.release_seats:
        purchasing = Purchasing(
            _item_id(body.subscription_item_id),
            body.quote_id,
            body.proration_behavior,
            body.forgo_credit,
            releases=body.release_seats,
        )
    precondition = await precondition_of(request, context, actor, subscription_id)
    operation_id = await operation_id_of(request, actor.principal)
    if body.release_seats and purchasing is not None:
        untested = await seat_releases.check_credit(
            context, actor, subscription_id, asked, purchasing, operation_id
        )
        purchasing = dataclasses.replace(purchasing, untested=untested)
    admitted = await member_changes.admit_changes(
        context,
        actor,
        subscription_id,
        asked,
        operation_id,
        purchasing,
        precondition=precondition,
    )
    return await run_and_answer(request, context, actor, admitted)


async def run_and_answer(request: Request, context: Context, actor: Actor, admitted: Admitted) -> Response:
    """Run what was admitted, and answer with the result of each person.

    If an earlier request with the same key runs it, answer with what is known so far.

    Raises:
        Conflict: nothing was accepted.
    """
    payment = None
    if admitted.anything_to_run and not admitted.again:
        async with failures.noted(context, actor) as attempt:
            payment = await operations.run_within(context, admitted.operation_id, admitted.lease_token)
            attempt.saw(payment)
    outcome = await operations.outcome(context, admitted.operation_id, actor, payment=payment)
    results = [result_of(step, outcome, actor) for step in outcome.steps if step.action in ON_PEOPLE]
    if results and all(result["outcome"] == "refused" for result in results):
        raise _nothing_accepted(results, outcome)
    return operation_answer(request, outcome, actor)


def _item_id(value: str | None) -> SubscriptionItemId | None:
    return None if value is None else SubscriptionItemId(value)


@router.put(
    "/shared-subscriptions/{subscription_id}/seats",
    response_model=ChangedSubscription,
    responses={**ACCEPTED, **_write(402, 412, 502, codes=_BUYING)},
)
async def set_seats(
    request: Request,
    context: ContextDep,
    actor: WriterDep,
    subscription_id: SubscriptionPath,
    body: SeatsRequest,
) -> Response:
    """Set the number of seats to `total`.

    A total below the seats that are used or promised is refused.
    """
    refuse_admin_fields(actor, body)
    update = seat_purchases.total_update(
        body.total,
        item_id=_item_id(body.subscription_item_id),
        quote_id=body.quote_id,
        proration_behavior=body.proration_behavior,
        forgo_credit=body.forgo_credit,
    )
    precondition = await precondition_of(request, context, actor, subscription_id)
    operation_id = await operation_id_of(request, actor.principal)
    async with failures.noted(context, actor) as attempt:
        done = await subscription_changes.update(
            context, actor, subscription_id, update, operation_id, precondition
        )
        attempt.saw(done.payment)
    return await change_answer(request, context, actor, done)


@router.post(
    "/shared-subscriptions/{subscription_id}/quote",
    response_model=QuoteAnswer,
    responses=_write(502, codes=(*_PEOPLE, *_BUYING)),
)
async def quote_seats(
    request: Request,
    context: ContextDep,
    actor: CallerDep,
    subscription_id: SubscriptionPath,
    body: SeatQuoteRequest,
) -> Response:
    """Quote a number of seats, or a member change that buys the seats it lacks."""
    refuse_admin_fields(actor, body)
    removed = 0
    if body.total is not None:
        total = body.total
    elif body.release_seats:
        release = await seat_changes.release_of(context, actor, subscription_id, _asked(body))
        total, removed = release.total, release.removed
    else:
        total = await seat_changes.seats_needed(context, actor, subscription_id, _asked(body))
    update = seat_purchases.total_update(
        total,
        item_id=_item_id(body.subscription_item_id),
        quote_id=None,
        proration_behavior=body.proration_behavior,
    )
    quoted = await previews.preview(context, actor, subscription_id, update, removed=removed)
    return answer(request, quote_answer(quoted))


@router.delete(
    "/shared-subscriptions/{subscription_id}/users/me",
    response_model=SettledOperation,
    responses={**ACCEPTED, **_write(codes=_PEOPLE, refusals=problem_codes.REFUSALS)},
)
async def leave_shared_subscription(
    request: Request, context: ContextDep, actor: WriterDep, subscription_id: SubscriptionPath
) -> Response:
    """Give the caller's own seat back. The owner transfers the subscription first."""
    operation_id = await operation_id_of(request, actor.principal)
    admitted = await member_changes.leave(context, actor, subscription_id, operation_id)
    return await run_and_answer(request, context, actor, admitted)


@router.put(
    "/shared-subscriptions/{subscription_id}/purchase-permission",
    response_model=SubscriptionAnswer,
    responses=_write(codes=(*problem_codes.ROLES, "not_shareable", "version_conflict")),
)
async def give_purchase_permission(
    request: Request, context: ContextDep, actor: WriterDep, subscription_id: SubscriptionPath
) -> Response:
    """Let the present owner buy on the payer's account.

    The next owner starts without the permission.
    """
    seen = await purchase_permissions.give(context, actor, subscription_id)
    await waiting.add_payments(context, [seen])
    return answer(request, SubscriptionAnswer(subscription=shown(seen, context.rules)))


@router.delete(
    "/shared-subscriptions/{subscription_id}/purchase-permission",
    status_code=204,
    responses=_write(codes=(*problem_codes.ROLES, "not_shareable", "version_conflict")),
)
async def withdraw_purchase_permission(
    context: ContextDep, actor: WriterDep, subscription_id: SubscriptionPath
) -> Response:
    """Withdraw the owner's permission to buy, at any time.

    Purchases that rest on it and are not paid yet are abandoned.
    """
    await purchase_permissions.withdraw(context, actor, subscription_id)
    return Response(status_code=204)


def _asked(body: MemberChangeRequest | SeatQuoteRequest) -> list[AskedChange]:
    asked = [
        AskedChange(
            Action.ADD,
            f"/add/{position}",
            email=add.email,
            customer_id=None if add.customer_id is None else CustomerId(add.customer_id),
            role=Role(add.role),
        )
        for position, add in enumerate(body.add)
    ]
    asked += [
        AskedChange(Action.REMOVE, f"/remove/{position}", customer_id=CustomerId(customer_id))
        for position, customer_id in enumerate(body.remove)
    ]
    asked += [
        AskedChange(
            Action.UPDATE,
            f"/update/{position}",
            customer_id=CustomerId(change.customer_id),
            role=Role(change.role),
        )
        for position, change in enumerate(body.update)
    ]
    return asked


def _nothing_accepted(results: list[JsonObject], outcome: Outcome) -> Conflict:
    """409 with the first refusal's code and numbers, and every result, as an operation's answer has them."""
    first = results[0]
    details = {name: first[name] for name in DETAILS if first.get(name) is not None}
    return Conflict(
        _REASONS.get(first["code"], "None of these changes was accepted."),
        code=first["code"],
        members={**details, **operation_members(outcome), "results": results},
    )


_REASONS = {
    "stripe_limit_reached": "Stripe takes no more changes of this quantity for a while, so no seats were bought.",
    "stripe_rejected": "Stripe refused the purchase, so no seats were bought.",
    "unsecured_raise_limit": "The seats were not bought: one raise before its payment may go by `allowed` at most.",
    "seat_limit_reached": "There are not enough free seats for all additions of this call.",
    "already_member": "This person is on the subscription already, in another role.",
    "member_elsewhere": "This person is on as many other shared subscriptions as one person may be.",
    "cannot_be_added": "This person cannot be added.",
    "ambiguous_email": "More than one customer has this e-mail address.",
    "owner_cannot_leave": "The owner's row is not edited here: transfer the subscription first.",
    "not_found": "There is no such member.",
    "subscription_not_active": "The subscription's status does not allow this.",
    "operation_in_progress": "Another change of this person is still running.",
    "role_required": "Your role on this subscription does not allow this any more.",
    "quote_expired": "The quote can no longer be kept. Nothing was charged: ask for a new quote.",
    "invoice_unpaid": "An invoice of this subscription was not paid, so no seats were bought. Pay it first.",
    "card_declined": "The card was declined, so no seats were bought. Use another payment method.",
    "payment_abandoned": "The purchase was abandoned before it was paid, so no seats were bought.",
    "update_expired": "The purchase expired before it was paid, so no seats were bought. Ask again to pay.",
    "payment_action_required": "The payment was not made in time, so no seats were bought. Ask again to pay.",
}
