"""What a change would cost, before anybody pays it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from app.catalogue import store as catalogue
from app.context import Context
from app.customers.payment_details import look_outside
from app.domain.ids import SubscriptionId
from app.domain.payments import Costs, Named
from app.domain.roles import Permission, require
from app.domain.seats import check_floor
from app.domain.snapshots import JsonObject, Subscription
from app.domain.statuses import RENEWING
from app.domain.views import SubscriptionView
from app.errors import NotFound
from app.identity.actors import Actor
from app.mirror.visibility import Seen, read
from app.subscriptions.change_rules import (
    check_complete,
    check_status,
    end_params,
    items_after,
    permissions_for,
    update_params,
)
from app.subscriptions.charges import Priced, asked, price
from app.subscriptions.item_changes import ChangedItems, PricedItem
from app.subscriptions.payment_bounds import check_bounds
from app.subscriptions.quotes import promise
from app.subscriptions.seat_purchases import computed
from app.subscriptions.store import quotes
from app.subscriptions.store.quotes import Promise
from app.subscriptions.updates import SubscriptionUpdate, price_ids


@dataclass(frozen=True, slots=True)
class Quoted:
    """A quote as its caller sees it; amounts are minor units.

    `next_total`: the first ordinary invoice after the change, None if there is none. `invoice_unpaid`: why
    `credit_forgone` is not credited.
    """

    quote_id: str
    expires_at: datetime
    now: Costs
    next_total: int | None
    credit_forgone: int
    invoice_unpaid: JsonObject | None


async def preview(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    change: SubscriptionUpdate,
    *,
    removed: int = 0,
) -> Quoted:
    """Return what a change would cost now, to the cent, in a quote that promises it.

    `removed`: the members whose seats the same call gives back.

    Raises:
        NotFound, Forbidden, InvalidRequest: as the change itself.
        Conflict: `invoice_unpaid` where the change charges beside a credit that was not paid, or raises before an
            earlier raise is paid; `unsecured_raise_limit`, `seats_in_use`, `subscription_not_active`.
    """
    async with context.database.connection() as connection:
        seen = await read(connection, actor, subscription_id, context.rules)
        change = computed(change, seen.view)
        require(seen.granted, Permission.SEE_AMOUNTS, *permissions_for(change, seen.view))
        prices = await catalogue.prices_for_purchase(
            connection, price_ids(change.items, seen.view), open_catalogue=context.rules.open_catalogue
        )
        after = items_after(actor, seen.view, change, prices)
        _check(context, seen.view, after, removed)
        end = await end_params(connection, seen.view, change)
    named = Named(promotion_code=change.promotion_code, may_add_codes=actor.is_admin)
    outside = await look_outside(context, seen.view, named)
    params = update_params(context, seen.view, change, after, end)
    outside.apply(seen.view, params)
    check_complete(seen.view)
    found = await context.stripe.fetch("subscription", subscription_id)
    subscription = found.snapshot
    if not isinstance(subscription, Subscription):
        raise NotFound()
    priced = await price(
        context,
        subscription,
        found.at,
        params,
        restarts=after is not None and bool(after.restarted),
        forgo_credit=True,
    )
    if not actor.is_service:
        await check_bounds(context, subscription, found.at, priced)
    next_total = await _next_total(context, subscription, params, priced, after)
    promised = promise(change, subscription, found.at, priced)
    quote_id, expires_at = await _stored(context, actor, subscription_id, promised)
    return Quoted(
        quote_id, expires_at, priced.now, next_total, priced.credit_forgone, _unpaid_as_seen(priced, seen)
    )


async def _stored(
    context: Context, actor: Actor, subscription_id: SubscriptionId, promised: Promise
) -> tuple[str, datetime]:
    """Store a quote; return its id and when it expires."""
    quote_id = f"qt_{uuid4().hex}"
    async with context.database.connection() as connection:
        expires_at = await quotes.insert(
            connection,
            quote_id,
            promised,
            subscription_id=subscription_id,
            principal=actor.principal.key,
        )
    return quote_id, expires_at


def _check(context: Context, view: SubscriptionView, after: ChangedItems | None, removed: int) -> None:
    """Raise Conflict if the status does not allow the change, or it leaves fewer seats than are used."""
    check_status(context, view, after)
    if after is not None:
        seats = view.seats(owner_uses_seat=context.rules.owner_uses_seat)
        check_floor(seats._replace(used=seats.used - removed), after.seats)


def _unpaid_as_seen(priced: Priced, seen: Seen) -> JsonObject | None:
    """Return the unpaid invoice; a manager gets no link to it.

    A manager who may buy seats sees amounts, and no links to the payer's invoices.
    """
    if priced.unpaid is None:
        return None
    shown = asdict(priced.unpaid)
    return shown if seen.sees_payers_own else {**shown, "hosted_invoice_url": None}


async def _next_total(
    context: Context,
    subscription: Subscription,
    params: JsonObject,
    priced: Priced,
    after: ChangedItems | None,
) -> int | None:
    """Return the total of the first ordinary invoice after the change.

    Items that start over are billed with the change itself, so the next invoice may be of the others alone. What the
    change's own invoice collects, such as pending items, is not on the next one.
    """
    if subscription.status not in RENEWING:
        return None
    if not priced.is_invoiced:
        behavior = str(priced.params.get("proration_behavior") or context.rules.proration_behavior)
        if subscription.status == "trialing":
            behavior = "none"
        return await _total(context, asked(subscription, priced.params, behavior))
    again = _without_spent(asked(subscription, params, "none"), subscription, priced.now.spent)
    details: dict[str, Any] = again["subscription_details"]
    first: int | None = None
    if details.get("trial_end") == "now":
        again["preview_mode"] = "recurring"
        first = min(_charged_until(priced.now).values(), default=None)
    elif after is not None and after.restarted:
        left_out, start_over, first = _not_on_the_next(subscription, after, priced.now)
        ids = {item.id for item in left_out}
        prices = {item.price.id for item in left_out if item.id is None}
        kept = [
            e for e in details["items"] if e.get("id") not in ids - {None} and e.get("price") not in prices
        ]
        details["items"] = [*kept, *({"id": item_id, "deleted": True} for item_id in ids if item_id)]
        if start_over:
            again["preview_mode"] = "recurring"
    if "preview_mode" in again and _has_ended_by(subscription, params, first):
        # That mode is of a whole period, and does not ask whether the subscription will have one.
        return None
    return await _total(context, again, without_pending=True)


def _without_spent(
    asked: dict[str, Any], subscription: Subscription, spent: frozenset[str]
) -> dict[str, Any]:
    """Return the next invoice's parameters without discounts that the change uses up."""
    if not spent:
        return asked
    discounts_now = [{"discount": discount_id} for discount_id in subscription.discounts]
    entries = asked.get("discounts", discounts_now)
    left = [entry for entry in entries if spent.isdisjoint(entry.values())] if entries else []
    return {**asked, "discounts": left or ""}


async def _total(context: Context, asked: dict[str, Any], *, without_pending: bool = False) -> int | None:
    try:
        costs = await context.billing.preview(asked)
    except NotFound:
        return None
    if not without_pending:
        return costs.total
    if costs.billed and all(line.invoice_item_id is not None for line in costs.billed):
        # The subscription ends: the only invoice to come is that of the pending items.
        return None
    return costs.total - sum(
        costs.line_totals[line.id] for line in costs.billed if line.invoice_item_id is not None
    )


def _has_ended_by(subscription: Subscription, params: Mapping[str, Any], first: int | None) -> bool:
    """Return True if the changed subscription ends within its first period.

    `first`: the end of that period, Unix seconds. An end at the period's end follows the items into their new period;
    a named end stays.
    """
    if {"cancel_at", "cancel_at_period_end"}.isdisjoint(params):
        at_period_end, end = subscription.cancel_at_period_end, subscription.cancel_at
    else:
        at_period_end, end = params.get("cancel_at_period_end") is True, params.get("cancel_at") or None
    return at_period_end or (end is not None and first is not None and end <= first)


def _charged_until(now: Costs) -> dict[str | None, int]:
    """Return the end of the period that a change charges for at once, by price."""
    return {line["price_id"]: line["period_end"] for line in now.lines if line["amount"] >= 0}


def _not_on_the_next(
    subscription: Subscription, after: ChangedItems, now: Costs
) -> tuple[list[PricedItem], bool, int]:
    """Return the items that are not on the first ordinary invoice.

    Then whether that invoice is for the items that start over, and when it comes (Unix seconds).
    """
    current = {str(item.id): item.current_period_end for item in subscription.items}
    charged = _charged_until(now)
    ends = {item.price.id: charged.get(item.price.id, current.get(str(item.id))) for item in after.items}
    first = min(end for end in ends.values() if end is not None)
    start_over = any(ends.get(item.price.id) == first for item in after.items if item.id in after.restarted)
    if start_over:
        return [item for item in after.items if ends.get(item.price.id) != first], True, first
    return [item for item in after.items if item.id in after.restarted], False, first
