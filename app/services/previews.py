"""What a change would cost, before anybody pays it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from app.cache import catalogue, quotes
from app.domain.ids import SubscriptionId
from app.domain.payments import Costs
from app.domain.roles import Permission, require
from app.domain.views import SubscriptionView
from app.services.actors import Actor
from app.services.context import Context
from app.services.payment_details import look_outside
from app.services.plan_changes import changed, check_floor, check_status, permissions_for, update_params
from app.services.plan_writes import (
    PlanUpdate,
    price_ids,
)
from app.services.quotes import change_hash, state_hash
from app.services.subscriptions import read


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
    outside = await look_outside(context, None, change.promotion_code)
    async with context.database.connection() as connection:
        seen = await read(connection, actor, subscription_id, context.rules)
        require(seen.granted, Permission.SEE_AMOUNTS, *permissions_for(change))
        prices = await catalogue.prices_for_purchase(connection, price_ids(change.items, seen.view))
    plan = changed(context, actor, seen.view, change, prices)
    check_status(context, seen.view, plan)
    check_floor(context, seen.view, plan)
    params = update_params(context, seen.view, change, plan)
    outside.apply(seen.view, params)
    costs, next_total = await _costs(context, seen.view, params)
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
    context: Context, view: SubscriptionView, params: dict[str, Any]
) -> tuple[Costs, int | None]:
    """Two previews: the change itself, and the first ordinary invoice after it."""
    details_names = ("items", "proration_behavior", "proration_date", "trial_end", "default_tax_rates")
    details = {name: params[name] for name in details_names if name in params}
    details.setdefault("proration_behavior", context.rules.proration_behavior)
    base: dict[str, Any] = {"subscription": view.id}
    if "discounts" in params:
        base["discounts"] = params["discounts"]
    now = await context.billing.preview({**base, "subscription_details": details})
    if details["proration_behavior"] != "always_invoice":
        # Nothing is invoiced at once: what was previewed is the next invoice itself.
        due_now = replace(now, total=0, amount_due=0, credit=0)
        return due_now, now.total
    if params.get("cancel_at_period_end") or params.get("cancel_at"):
        return now, None
    renewal = await context.billing.preview(
        {**base, "subscription_details": {**details, "proration_behavior": "none"}}
    )
    return now, renewal.total
