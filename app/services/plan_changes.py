"""Changing, ending and resuming a subscription: rights, seats and prices are judged in one transaction, locked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

from app.cache import catalogue, operations, subscriptions
from app.domain.ids import SubscriptionId, SubscriptionItemId
from app.domain.plan_changes import (
    OfferedPrice,
    Plan,
    PlanItem,
    Terms,
    changed_plan,
)
from app.domain.roles import Permission, require
from app.domain.seats import check_floor
from app.domain.statuses import ENDED, standing
from app.domain.views import SubscriptionView
from app.errors import (
    Conflict,
)
from app.services.actors import Actor
from app.services.charges import as_seen
from app.services.context import Context
from app.services.payment_details import Outside, look_outside
from app.services.plan_operations import (
    Accepted,
    Begun,
    begun,
    carry_out,
    insert_operation,
    payment_of,
)
from app.services.plan_writes import (
    Done,
    MoneyTerms,
    PlanUpdate,
    StripeCall,
    attachment,
    price_ids,
    seen_now,
    write,
)
from app.services.quotes import use_quote
from app.services.subscriptions import Seen, get, read
from app.stripe_gateway.billing import Changed

Precondition = Callable[[Seen], None]
_NO_CHANGE = PlanUpdate([], None, None, None, None, MoneyTerms())


async def update(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    change: PlanUpdate,
    operation_id: str,
    precondition: Precondition,
) -> Done | Accepted:
    """Changes items, payment method, discounts or the intended end, in one call to Stripe.

    Raises NotFound, Forbidden, Conflict `seats_in_use`, `quote_expired`, `invoice_unpaid`, `promotion_code_in_use` or
    `subscription_not_active`,
    PreconditionFailed by `precondition`, InvalidRequest for items, PaymentRequired.
    """
    outside, asked = Outside(None), change
    if change.payment_method_id is not None or change.promotion_code is not None:
        # Whoever may not change the plan must not learn which cards and codes exist, nor make us ask Stripe.
        now = await get(context, actor, subscription_id)
        require(now.granted, *permissions_for(change))
        outside = await look_outside(
            context, actor, now.view, change.payment_method_id, change.promotion_code
        )
    if outside.promotion_applies:
        change = replace(change, promotion_code=None)
    async with context.database.transaction() as connection:
        await subscriptions.lock(connection, subscription_id)
        seen = await read(connection, actor, subscription_id, context.rules)
        require(seen.granted, *permissions_for(change))
        operation = await begun(context, connection, operation_id)
        if operation is None:
            precondition(seen)
            if outside.promotion_applies and replace(change, quote_id=None) == _NO_CHANGE:
                return Done(seen, None)
            prices = await catalogue.prices_for_purchase(
                connection, price_ids(change.items, seen.view), open_catalogue=context.rules.open_catalogue
            )
            plan = changed(context, actor, seen.view, change, prices)
            check_status(context, seen.view, plan)
            if plan is not None:
                check_floor(seen.view.seats(owner_uses_seat=context.rules.owner_uses_seat), plan.seats)
            params = update_params(context, seen.view, change, plan)
            outside.apply(seen.view, params)
            if change.quote_id is not None:
                await use_quote(connection, actor, seen.view, asked)
            call = StripeCall(
                "update",
                params,
                quote_id=change.quote_id,
                forgo_credit=change.forgo_credit,
                restarts=plan is not None and bool(plan.restarted),
                attach=attachment(outside.payment_method, seen.view.customer_id),
            )
            operation = await insert_operation(
                context,
                connection,
                actor,
                operation_id,
                "update_subscription",
                subscription_id,
                call,
                seats_left=None if plan is None else plan.seats,
                quote_id=change.quote_id,
                needs=permissions_for(change),
            )
    try:
        return await _carried_out(context, actor, subscription_id, operation)
    except Conflict as refusal:
        raise as_seen(refusal, seen.role) from refusal


async def _carried_out(
    context: Context, actor: Actor, subscription_id: SubscriptionId, begun: Begun
) -> Done | Accepted:
    async def attempt(token: UUID) -> Changed:
        return await write(context, begun.operation_id, subscription_id, begun.call, token)

    changed = await carry_out(context, begun, attempt)
    if isinstance(changed, Accepted):
        return changed
    payment = await payment_of(context, begun, changed)
    if isinstance(payment, Accepted):
        return payment
    done = await seen_now(context, actor, subscription_id, payment)
    async with context.database.connection() as connection:
        operation = await operations.operation(connection, begun.operation_id)
    forgone = 0 if operation is None else StripeCall(**operation.request).credit_forgone
    return replace(done, credit_forgone=forgone)


def permissions_for(change: PlanUpdate) -> list[Permission]:
    """Ending is one right, everything that costs is another."""
    needed = []
    if change.items or change.payment_method_id or change.promotion_code or change.terms != MoneyTerms():
        needed.append(change.permission)
    if change.cancel_at_period_end is not None:
        # To take an end back is to resume: it goes on costing the payer, who may have ended it himself.
        needed.append(Permission.CANCEL if change.cancel_at_period_end else Permission.CHANGE_PLAN)
    return needed or [Permission.SEE_PLAN]


def _current_items(view: SubscriptionView, prices: dict[Any, OfferedPrice]) -> list[PlanItem]:
    """Prices that left the catalogue still serve the items that have them."""
    found = []
    for item in view.items:
        known = prices.get(item["price"]["id"])
        recurring = item["price"]["recurring"] or {}
        price = known or OfferedPrice(
            id=item["price"]["id"],
            active=False,
            product_active=False,
            on_sale=False,
            recurring=True,
            metered=item["metered"],
            interval=(recurring["interval"], recurring["interval_count"]) if recurring else None,
            currency=view.currency,
            currencies=frozenset({view.currency}),
            shareable=item["product"]["supports_shared_subscriptions"],
            owner_uses_seat=item["product"]["owner_uses_seat"],
        )
        found.append(PlanItem(SubscriptionItemId(item["id"]), price, item["quantity"]))
    return found


def changed(
    context: Context,
    actor: Actor,
    view: SubscriptionView,
    change: PlanUpdate,
    prices: dict[Any, OfferedPrice],
) -> Plan | None:
    if not change.items:
        return None
    return changed_plan(
        _current_items(view, prices),
        change.items,
        prices,
        Terms(
            may_buy_unlisted=actor.is_admin,
            currency=view.currency,
            flexible=view.billing_mode == "flexible",
        ),
    )


def check_status(context: Context, view: SubscriptionView, plan: Plan | None) -> None:
    """An ended subscription cannot change; one in arrears may shrink, but gains no seats."""
    if view.status in ENDED:
        raise Conflict("This subscription has ended.", code="subscription_not_active")
    if plan is None:
        return
    allowed = standing(view.status, past_due_allows_new_seats=context.rules.past_due_allows_new_seats)
    before = view.seats(owner_uses_seat=context.rules.owner_uses_seat).total
    if not allowed.edits or (plan.seats > before and not allowed.new_seats):
        raise Conflict("The subscription's status does not allow this.", code="subscription_not_active")


def update_params(
    context: Context, view: SubscriptionView, change: PlanUpdate, plan: Plan | None
) -> dict[str, Any]:
    """Pending updates hold a change until it is paid, but Stripe allows them few parameters; else all or nothing."""
    terms = change.terms
    params: dict[str, Any] = {}
    if plan is not None:
        params["items"] = plan.params
        params["proration_behavior"] = terms.proration_behavior or context.rules.proration_behavior
    if terms.proration_date is not None:
        params["proration_date"] = terms.proration_date
    if terms.trial_end is not None:
        params["trial_end"] = terms.trial_end
        params.setdefault("proration_behavior", terms.proration_behavior or context.rules.proration_behavior)
    if terms.default_tax_rates is not None:
        params["default_tax_rates"] = list(terms.default_tax_rates) or ""
    if terms.discounts is not None:
        params["discounts"] = list(terms.discounts) or ""
    if change.cancel_at_period_end is not None:
        params.update(ending(view, at_period_end=change.cancel_at_period_end))
    simple = {"items", "proration_behavior", "proration_date", "trial_end"}
    needs_payment = params.keys() & {"items", "trial_end"}
    if needs_payment:
        only_simple = (
            params.keys() <= simple and change.payment_method_id is None and change.promotion_code is None
        )
        params["payment_behavior"] = "pending_if_incomplete" if only_simple else "error_if_incomplete"
    return params


def ending(view: SubscriptionView, *, at_period_end: bool) -> dict[str, Any]:
    """Items of different intervals end at different times: then nothing renews any more from the nearest end on."""
    ends = {item["current_period_end"] for item in view.items}
    if not at_period_end:
        mixed = view.cancel_at is not None and not view.cancel_at_period_end
        return {"cancel_at": ""} if mixed else {"cancel_at_period_end": False}
    return {"cancel_at": "min_period_end"} if len(ends) > 1 else {"cancel_at_period_end": True}


async def cancel(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    *,
    now: bool,
    reason: str | None,
    prorate: bool | None,
    operation_id: str,
) -> Done | Accepted:
    """Ends it now, or lets it run out; asking again changes nothing and answers the same."""
    async with context.database.transaction() as connection:
        await subscriptions.lock(connection, subscription_id)
        seen = await read(connection, actor, subscription_id, context.rules)
        require(seen.granted, Permission.CANCEL_NOW if now else Permission.CANCEL)
        view = seen.view
        if view.status in ENDED or (not now and (view.cancel_at_period_end or view.cancel_at is not None)):
            return Done(seen, None)
        operation = await begun(context, connection, operation_id)
        if operation is None:
            params: dict[str, Any] = {"cancellation_details": {"comment": reason}} if reason else {}
            if not now:
                params.update(ending(view, at_period_end=True))
            elif prorate is not None:
                params.update({"prorate": prorate, "invoice_now": prorate})
            call = StripeCall("cancel" if now else "update", params)
            operation = await insert_operation(
                context,
                connection,
                actor,
                operation_id,
                "cancel_subscription",
                subscription_id,
                call,
                needs=[Permission.CANCEL_NOW if now else Permission.CANCEL],
            )
    return await _carried_out(context, actor, subscription_id, operation)


async def resume(
    context: Context, actor: Actor, subscription_id: SubscriptionId, operation_id: str
) -> Done | Accepted:
    """Takes an intended cancellation back, or wakes a paused subscription. Raises Conflict for an ended one."""
    async with context.database.transaction() as connection:
        await subscriptions.lock(connection, subscription_id)
        seen = await read(connection, actor, subscription_id, context.rules)
        require(seen.granted, Permission.CHANGE_PLAN)
        view = seen.view
        if view.status in ENDED:
            raise Conflict("This subscription has ended: buy it anew.", code="subscription_not_active")
        if view.status != "paused" and view.cancel_at is None and not view.cancel_at_period_end:
            return Done(seen, None)
        operation = await begun(context, connection, operation_id)
        if operation is None:
            paused = view.status == "paused"
            call = StripeCall(
                "resume" if paused else "update", {} if paused else ending(view, at_period_end=False)
            )
            operation = await insert_operation(
                context,
                connection,
                actor,
                operation_id,
                "resume_subscription",
                subscription_id,
                call,
                needs=[Permission.CHANGE_PLAN],
            )
    return await _carried_out(context, actor, subscription_id, operation)
