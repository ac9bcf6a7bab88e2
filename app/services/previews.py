"""What a change would cost, before anybody pays it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from app.cache import catalogue, quotes
from app.domain.ids import SubscriptionId
from app.domain.payments import Costs
from app.domain.plan_changes import Plan, PlanItem
from app.domain.roles import Permission, require
from app.domain.seats import check_floor
from app.domain.views import SubscriptionView
from app.errors import NotFound
from app.services.actors import Actor
from app.services.context import Context
from app.services.payment_details import look_outside
from app.services.plan_changes import changed, check_status, permissions_for, update_params
from app.services.plan_writes import (
    PlanUpdate,
    price_ids,
)
from app.services.quotes import change_hash, state_hash
from app.services.subscriptions import read

_PREVIEWED = (
    "items",
    "proration_behavior",
    "proration_date",
    "trial_end",
    "default_tax_rates",
    "cancel_at",
    "cancel_at_period_end",
)


@dataclass(frozen=True, slots=True)
class Quoted:
    """`next_total`: the first ordinary invoice after the change, in the same currency."""

    quote_id: str
    expires_at: object
    now: Costs
    next_total: int | None


async def preview(
    context: Context, actor: Actor, subscription_id: SubscriptionId, change: PlanUpdate
) -> Quoted:
    """What a change would cost now, to the cent, and a quote that holds it for a day."""
    async with context.database.connection() as connection:
        seen = await read(connection, actor, subscription_id, context.rules)
        require(seen.granted, Permission.SEE_AMOUNTS, *permissions_for(change))
        prices = await catalogue.prices_for_purchase(connection, price_ids(change.items, seen.view))
    outside = await look_outside(context, actor, seen.view, None, change.promotion_code)
    plan = changed(context, actor, seen.view, change, prices)
    check_status(context, seen.view, plan)
    if plan is not None:
        check_floor(seen.view.seats(owner_uses_seat=context.rules.owner_uses_seat), plan.seats)
    params = update_params(context, seen.view, change, plan)
    outside.apply(seen.view, params)
    costs, next_total = await _costs(context, seen.view, params, plan)
    quote_id = f"qt_{uuid4().hex}"
    async with context.database.connection() as connection:
        expires_at = await quotes.insert(
            connection,
            quote_id,
            subscription_id=subscription_id,
            principal=actor.principal.key,
            change_hash=change_hash(change),
            state_hash=state_hash(seen.view),
            proration_date=costs.proration_date or 0,
        )
    return Quoted(quote_id, expires_at, costs, next_total)


async def _costs(
    context: Context, view: SubscriptionView, params: dict[str, Any], plan: Plan | None
) -> tuple[Costs, int | None]:
    """What is due at once, and the total of the first ordinary invoice after it."""
    details = {name: params[name] for name in _PREVIEWED if name in params}
    behavior = details.setdefault("proration_behavior", context.rules.proration_behavior)
    asked: dict[str, Any] = {"subscription": view.id, "subscription_details": details}
    if "discounts" in params:
        asked["discounts"] = params["discounts"]
    trial_stays = view.status == "trialing" and "trial_end" not in params
    prorated = plan is not None and plan.altered and behavior == "always_invoice" and not trial_stays
    if not prorated and not (plan is not None and plan.restarted) and "trial_end" not in params:
        if trial_stays:
            details["proration_behavior"] = "none"
        return await _nothing_due(context, view, asked)
    now = await context.billing.preview(asked)
    return now, await _next_total(context, view, asked, plan, now)


async def _nothing_due(
    context: Context, view: SubscriptionView, asked: dict[str, Any]
) -> tuple[Costs, int | None]:
    """Stripe previews the next invoice where nothing is invoiced at once; its lines tell what will be on it."""
    try:
        upcoming = await context.billing.preview(asked)
    except NotFound:
        return Costs(view.currency, 0, 0, 0, [], None), None
    return replace(upcoming, total=0, amount_due=0, credit=0), upcoming.total


async def _next_total(
    context: Context, view: SubscriptionView, asked: dict[str, Any], plan: Plan | None, now: Costs
) -> int | None:
    """Items that start over are billed with the change itself, so the next invoice may be of the others alone."""
    details = {**asked["subscription_details"], "proration_behavior": "none"}
    again = {**asked, "subscription_details": details}
    if details.get("trial_end") == "now":
        again["preview_mode"] = "recurring"
    elif plan is not None and plan.restarted:
        left_out, start_over = _not_on_the_next(view, plan, now)
        ids = {item.id for item in left_out}
        prices = {item.price.id for item in left_out if item.id is None}
        kept = [
            e for e in details["items"] if e.get("id") not in ids - {None} and e.get("price") not in prices
        ]
        details["items"] = [*kept, *({"id": item_id, "deleted": True} for item_id in ids if item_id)]
        if start_over:
            again["preview_mode"] = "recurring"
    try:
        return (await context.billing.preview(again)).total
    except NotFound:
        return None


def _not_on_the_next(view: SubscriptionView, plan: Plan, now: Costs) -> tuple[list[PlanItem], bool]:
    """The items that the first ordinary invoice will not be of, and whether it is of those that start over."""
    current = {item["id"]: item["current_period_end"] for item in view.items}
    charged = {line["price_id"]: line["period_end"] for line in now.lines if line["amount"] >= 0}
    ends = {item.price.id: charged.get(item.price.id, current.get(str(item.id))) for item in plan.items}
    first = min(end for end in ends.values() if end is not None)
    start_over = any(ends.get(item.price.id) == first for item in plan.items if item.id in plan.restarted)
    if start_over:
        return [item for item in plan.items if ends.get(item.price.id) != first], True
    return [item for item in plan.items if item.id in plan.restarted], False
