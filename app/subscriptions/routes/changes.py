"""Buying, changing, quoting, cancelling and resuming subscriptions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.context import Context, Rules
from app.customers import failures
from app.domain.ids import PaymentMethodId, PriceId, SubscriptionItemId
from app.domain.payments import PaymentStep
from app.domain.snapshots import JsonObject
from app.http import problem_codes, problems
from app.http.answers import answer
from app.http.dependencies import (
    CallerDep,
    ContextDep,
    CustomerPath,
    SubscriptionPath,
    WriterDep,
    refuse_admin_fields,
)
from app.http.idempotency import IdempotentRoute
from app.http.operation_ids import operation_id_of
from app.identity.actors import Actor
from app.operations import waiting
from app.operations.answers import ACCEPTED, accepted_answer
from app.operations.runner import Accepted
from app.subscriptions import changes as subscription_changes
from app.subscriptions import end_changes, ending, previews, purchases
from app.subscriptions.change_operations import Done
from app.subscriptions.ends import When
from app.subscriptions.item_changes import ItemChange
from app.subscriptions.previews import Quoted
from app.subscriptions.purchases import Purchase
from app.subscriptions.routes.preconditions import precondition_of
from app.subscriptions.schemas.changes import (
    CanceledSubscription,
    CancelRequest,
    ChangedSubscription,
    Discount,
    NewSubscriptionRequest,
    QuoteAnswer,
    SubscriptionUpdateRequest,
)
from app.subscriptions.schemas.subscriptions import shown
from app.subscriptions.updates import MoneyTerms, SubscriptionUpdate

router = APIRouter(tags=["subscriptions"], route_class=IdempotentRoute)
_CODES = (
    *problem_codes.ROLES,
    *problem_codes.ADMIN_FIELDS,
    *problem_codes.TERMS,
    *problem_codes.MONEY,
    *problem_codes.DECLINES,
    "end_ambiguous",
    "operation_expired",
    "seats_in_use",
    "version_conflict",
)


def _write(*statuses: int, codes: tuple[str, ...] = _CODES) -> dict[int | str, dict[str, Any]]:
    return problems.responses(401, 403, 404, 409, 413, 415, 422, 502, 503, *statuses, codes=codes)


@router.post(
    "/customers/{customer_id}/subscriptions",
    response_model=ChangedSubscription,
    status_code=201,
    responses={**ACCEPTED, **_write(402, codes=(*_CODES, "already_subscribed"))},
)
async def add_subscription(
    request: Request,
    context: ContextDep,
    actor: WriterDep,
    customer_id: CustomerPath,
    body: NewSubscriptionRequest,
) -> Response:
    """Buy a subscription of 1 to 20 items.

    If one of its products can be shared, its customer becomes the owner. 202 if the first invoice is still to be paid:
    the result names the subscription, and `payment` has what its page needs.
    """
    refuse_admin_fields(actor, body)
    acting = actor.customer(customer_id)
    purchase = Purchase(
        items=[
            ItemChange(
                f"/items/{position}",
                price_id=PriceId(item.price_id),
                quantity=item.quantity,
                extras=_item_extras(item.discounts, item.tax_rates),
            )
            for position, item in enumerate(body.items)
        ],
        payment_method_id=_payment_method(body.payment_method_id),
        promotion_code=body.promotion_code,
        currency=body.currency,
        terms=MoneyTerms(
            discounts=_discounts(body.discounts),
            default_tax_rates=body.default_tax_rates,
            trial_end=_seconds(body.trial_end),
            trial_period_days=body.trial_period_days,
            billing_mode=body.billing_mode,
        ),
        allow_duplicate=body.allow_duplicate,
    )
    operation_id = await operation_id_of(request, actor.principal)
    async with failures.counted(context, actor) as attempt, failures.naming_the_code(body.promotion_code):
        done = await purchases.add(context, actor, acting, purchase, operation_id)
        attempt.saw(done.payment)
    return await change_answer(request, context, actor, done, status=201)


@router.patch(
    "/subscriptions/{subscription_id}",
    response_model=ChangedSubscription,
    responses={**ACCEPTED, **_write(402, 412)},
)
async def update_subscription(
    request: Request,
    context: ContextDep,
    actor: WriterDep,
    subscription_id: SubscriptionPath,
    body: SubscriptionUpdateRequest,
) -> Response:
    """Change items, payment method, discounts or the intended end.

    With `If-Match` the change is refused if the subscription is not as the caller saw it.
    """
    refuse_admin_fields(actor, body)
    precondition = await precondition_of(request, context, actor, subscription_id)
    operation_id = await operation_id_of(request, actor.principal)
    change = _subscription_update(body)
    async with _attempt(context, actor, body) as attempt, failures.naming_the_code(body.promotion_code):
        done = await subscription_changes.update(
            context, actor, subscription_id, change, operation_id, precondition
        )
        if change.items:
            attempt.saw(done.payment)
    return await change_answer(request, context, actor, done)


def _attempt(
    context: Context, actor: Actor, body: SubscriptionUpdateRequest
) -> AbstractAsyncContextManager[failures.Attempt]:
    """Count the request as a payment attempt if it names a card or a code.

    Of any other request, only a declined payment counts.
    """
    if body.payment_method_id is not None or body.promotion_code is not None:
        return failures.counted(context, actor)
    return failures.noted(context, actor)


@router.post("/subscriptions/{subscription_id}/preview", response_model=QuoteAnswer, responses=_write())
async def preview_subscription(
    request: Request,
    context: ContextDep,
    actor: CallerDep,
    subscription_id: SubscriptionPath,
    body: SubscriptionUpdateRequest,
) -> Response:
    """Quote a change: what it costs, to the cent, promised for one use until `expires_at`."""
    refuse_admin_fields(actor, body)
    async with _attempt(context, actor, body), failures.naming_the_code(body.promotion_code):
        quoted = await previews.preview(context, actor, subscription_id, _subscription_update(body))
    return answer(request, quote_answer(quoted))


@router.post(
    "/subscriptions/{subscription_id}/cancel",
    response_model=CanceledSubscription,
    responses={**ACCEPTED, **_write(412)},
)
async def cancel_subscription(
    request: Request,
    context: ContextDep,
    actor: WriterDep,
    subscription_id: SubscriptionPath,
    body: CancelRequest | None = None,
) -> Response:
    """Cancel at the end of a period, or now; asking again changes nothing.

    Without a body at the period's end, if all items end together. Otherwise 422 `end_ambiguous` has the members
    `earliest`, `latest` (RFC 3339) and `further_charges`: what is billed again until `latest`, as in the answer.
    """
    asked = body or CancelRequest()
    refuse_admin_fields(actor, asked)
    precondition = await precondition_of(request, context, actor, subscription_id)
    done = await end_changes.cancel(
        context,
        actor,
        subscription_id,
        when=When(asked.when),
        reason=asked.reason,
        prorate=asked.prorate,
        operation_id=await operation_id_of(request, actor.principal),
        precondition=precondition,
    )
    if isinstance(done, Accepted):
        return await accepted_answer(request, context, actor, done)
    await waiting.add_payments(context, [done.seen])
    view = done.seen.view
    end = ending.ends_at(view)
    canceled = CanceledSubscription.model_validate(
        {
            **dict(changed_subscription(done, context.rules)),
            "ends_at": end,
            "further_charges": ending.charges_until(view, end),
        }
    )
    return answer(request, canceled)


@router.post(
    "/subscriptions/{subscription_id}/resume",
    response_model=ChangedSubscription,
    responses={**ACCEPTED, **_write(412)},
)
async def resume_subscription(
    request: Request, context: ContextDep, actor: WriterDep, subscription_id: SubscriptionPath
) -> Response:
    """Take back whichever end is set, and resume a paused subscription."""
    precondition = await precondition_of(request, context, actor, subscription_id)
    operation_id = await operation_id_of(request, actor.principal)
    async with failures.noted(context, actor) as attempt:
        done = await end_changes.resume(context, actor, subscription_id, operation_id, precondition)
        attempt.saw(done.payment)
    return await change_answer(request, context, actor, done)


def quote_answer(quoted: Quoted) -> QuoteAnswer:
    """Return a quote as the API answers it."""
    return QuoteAnswer.model_validate(
        {
            "quote_id": quoted.quote_id,
            "expires_at": quoted.expires_at,
            "currency": quoted.now.currency,
            "amount_due_now": quoted.now.amount_due,
            "credit": quoted.now.credit,
            "next_total": quoted.next_total,
            "credit_forgone": quoted.credit_forgone,
            "invoice_unpaid": quoted.invoice_unpaid,
            "lines": quoted.now.lines,
        }
    )


async def change_answer(
    request: Request, context: Context, actor: Actor, done: Done | Accepted, *, status: int = 200
) -> Response:
    """Answer with the subscription, or 202 with the operation while it is pending."""
    if isinstance(done, Accepted):
        return await accepted_answer(request, context, actor, done)
    await waiting.add_payments(context, [done.seen])
    return answer(request, changed_subscription(done, context.rules), status=status)


def changed_subscription(done: Done, rules: Rules) -> ChangedSubscription:
    """Return a changed subscription as the API answers it."""
    payment: PaymentStep | None = done.payment
    if payment is not None and not done.seen.sees_payers_own:
        payment = payment.without_the_payers_own()
    return ChangedSubscription.model_validate(
        {
            "pending": False,
            "subscription": shown(done.seen, rules),
            "credit_forgone": done.credit_forgone,
            "operation_id": done.operation_id,
            "payment": None if payment is None else dataclasses.asdict(payment),
        }
    )


def _subscription_update(body: SubscriptionUpdateRequest) -> SubscriptionUpdate:
    return SubscriptionUpdate(
        items=[
            ItemChange(
                f"/items/{position}",
                id=None if item.id is None else SubscriptionItemId(item.id),
                price_id=None if item.price_id is None else PriceId(item.price_id),
                quantity=item.quantity,
                deleted=item.deleted,
            )
            for position, item in enumerate(body.items or [])
        ],
        payment_method_id=_payment_method(body.payment_method_id),
        promotion_code=body.promotion_code,
        cancel_at_period_end=body.cancel_at_period_end,
        quote_id=body.quote_id,
        forgo_credit=body.forgo_credit,
        terms=MoneyTerms(
            discounts=_discounts(body.discounts),
            default_tax_rates=body.default_tax_rates,
            trial_end=body.trial_end if isinstance(body.trial_end, str) else _seconds(body.trial_end),
            proration_behavior=body.proration_behavior,
            proration_date=_seconds(body.proration_date),
        ),
    )


def _payment_method(value: str | None) -> PaymentMethodId | None:
    return None if value is None else PaymentMethodId(value)


def _seconds(value: datetime | None) -> int | None:
    return None if value is None else int(value.timestamp())


def _discounts(entries: Sequence[Discount] | None) -> list[JsonObject] | None:
    return None if entries is None else [entry.model_dump(exclude_none=True) for entry in entries]


def _item_extras(entries: Sequence[Discount] | None, tax_rates: Sequence[str] | None) -> JsonObject:
    extras: JsonObject = {}
    if entries:
        extras["discounts"] = _discounts(entries)
    if tax_rates:
        extras["tax_rates"] = list(tax_rates)
    return extras
