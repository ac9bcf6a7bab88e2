"""Changing a subscription: the change is judged and stored under its lock."""

from __future__ import annotations

from dataclasses import replace

from app.catalogue import store as catalogue
from app.context import Context
from app.customers import failures
from app.customers.payment_details import Outside, look_outside
from app.domain.ids import SubscriptionId
from app.domain.payments import Named
from app.domain.roles import require
from app.domain.seats import check_floor
from app.domain.snapshots import JsonObject
from app.domain.views import SubscriptionView
from app.errors import (
    Conflict,
)
from app.identity.actors import Actor
from app.mirror.store import subscriptions
from app.mirror.visibility import Seen, get, read
from app.operations.runner import Accepted, unless_away
from app.postgres.database import Connection
from app.subscriptions import change_operations, ending
from app.subscriptions.change_operations import Done, begun, insert_operation
from app.subscriptions.change_rules import (
    NO_CHANGE,
    changes_only_end,
    check_combined_end,
    check_complete,
    check_status,
    end_params,
    items_after,
    permissions_for,
    update_params,
)
from app.subscriptions.charges import as_seen
from app.subscriptions.end_changes import Precondition, change_end
from app.subscriptions.item_changes import ChangedItems
from app.subscriptions.orders import Method, Order, attachment
from app.subscriptions.quotes import use_quote
from app.subscriptions.seat_purchases import computed
from app.subscriptions.superseding import superseding
from app.subscriptions.updates import SubscriptionUpdate, price_ids


async def update(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    change: SubscriptionUpdate,
    operation_id: str,
    precondition: Precondition,
) -> Done | Accepted:
    """Change items, payment method, discounts or the end, in one call to Stripe.

    Raises:
        NotFound: the actor may not see the subscription, or the payment method.
        Forbidden: `role_required`.
        Conflict: `seats_in_use`, `quote_expired`, `invoice_unpaid`, `promotion_code_in_use`, `unsecured_raise_limit`,
            `managed_by_schedule`, `operation_in_progress` or `subscription_not_active`.
        InvalidRequest: an item, or the end, breaks a rule.
        PaymentRequired: the card was declined.
        RateLimited: too many payments of the actor failed recently.
        BillingError: what `precondition` raises.
        ServiceUnavailable: nothing was sent.
    """

    async def changed(ends_later: bool) -> Done | Accepted:
        made = change_end if changes_only_end(change) else _update
        return await made(
            context, actor, subscription_id, change, operation_id, precondition, ends_later=ends_later
        )

    return await superseding(context, actor, subscription_id, changed)


async def _update(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    change: SubscriptionUpdate,
    operation_id: str,
    precondition: Precondition,
    *,
    ends_later: bool,
) -> Done | Accepted:
    outside = await _look_outside(context, actor, subscription_id, change)
    asks_for_seats = change.seats is not None
    async with subscriptions.admitting(context.database, subscription_id) as connection:
        seen = await read(connection, actor, subscription_id, context.rules)
        asked = computed(change, seen.view)
        change = replace(asked, promotion_code=None) if outside.applied is not None else asked
        require(seen.granted, *permissions_for(change, seen.view))
        operation = await begun(context, connection, operation_id)
        if operation is None:
            precondition(seen)
            if outside.applied is not None and replace(change, quote_id=None) == NO_CHANGE:
                return Done(seen, None)
            after = await _judged(context, connection, actor, seen, change)
            end = await end_params(connection, seen.view, change)
            params = update_params(context, seen.view, change, after, end)
            outside.apply(seen.view, params)
            check_complete(seen.view)
            if change.quote_id is not None:
                await use_quote(connection, actor, seen.view, asked, rests_on_items=asks_for_seats)
            order = _order_of(change, params, after, outside, seen.view)
            order = replace(order, sets_seats=asks_for_seats)
            operation = await insert_operation(
                context,
                connection,
                actor,
                operation_id,
                "update_subscription",
                subscription_id,
                order,
                seats_left=None if after is None else after.seats,
                quote_id=change.quote_id,
                needs=permissions_for(change, seen.view),
                end_by=ending.end_by(actor, seen.view) if change.cancel_at_period_end else None,
                view=seen.view,
                ends_later=ends_later,
            )
    try:
        return await change_operations.carry_out_change(context, actor, operation)
    except Conflict as refusal:
        raise as_seen(refusal, seen) from refusal


def _order_of(
    change: SubscriptionUpdate,
    params: JsonObject,
    after: ChangedItems | None,
    outside: Outside,
    view: SubscriptionView,
) -> Order:
    return Order(
        Method.UPDATE,
        params,
        quote_id=change.quote_id,
        forgo_credit=change.forgo_credit,
        restarts=after is not None and bool(after.restarted),
        attach=attachment(outside.payment_method, view.customer_id),
        unread=outside.unread,
        counted={} if after is None else _counted(change, view),
        reduces=after is not None and after.reduces and "trial_end" not in params,
    )


def _counted(change: SubscriptionUpdate, view: SubscriptionView) -> dict[str, int]:
    """Return the quantities by item that the change does not name. Its parameters and its seats rest on them."""
    named = {item.id for item in change.items if item.quantity is not None or item.deleted}
    return {
        item["id"]: item["quantity"]
        for item in view.items
        if item["id"] not in named and item["quantity"] is not None
    }


async def _look_outside(
    context: Context, actor: Actor, subscription_id: SubscriptionId, change: SubscriptionUpdate
) -> Outside:
    """Read at Stripe the payment method and the promotion code that the change names.

    An actor without the permissions must not learn which of them exist, so permissions are checked first. While Stripe
    is away, the operation reads them.
    """
    named = Named(change.payment_method_id, change.promotion_code, may_add_codes=actor.is_admin)
    if named.is_empty:
        return Outside(None)
    now = await get(context, actor, subscription_id)
    require(now.granted, *permissions_for(change, now.view))

    async def looked() -> Outside:
        return await look_outside(context, now.view, named)

    return await unless_away(context, looked) or Outside(None, unread=named)


async def _judged(
    context: Context, connection: Connection, actor: Actor, seen: Seen, change: SubscriptionUpdate
) -> ChangedItems | None:
    """Judge items, status, end and seats; return the items after the change, None if they stay."""
    prices = await catalogue.prices_for_purchase(
        connection, price_ids(change.items, seen.view), open_catalogue=context.rules.open_catalogue
    )
    after = items_after(actor, seen.view, change, prices)
    check_status(context, seen.view, after)
    await check_combined_end(connection, actor, seen, change, after)
    if after is not None and not after.reduces:
        await failures.check(connection, actor)
    if after is not None:
        check_floor(seen.view.seats(owner_uses_seat=context.rules.owner_uses_seat), after.seats)
    return after
