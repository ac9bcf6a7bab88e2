"""Changing, ending and resuming a subscription: rights, seats and prices are judged in one transaction, locked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

from app.catalogue import store as catalogue
from app.catalogue.offers import OfferedPrice
from app.context import Context
from app.customers import failures
from app.customers.payment_details import Outside, look_outside
from app.domain.ids import SubscriptionId, SubscriptionItemId
from app.domain.roles import Permission, require
from app.domain.seats import check_floor
from app.domain.snapshots import JsonObject
from app.domain.statuses import ENDED, entitlements
from app.domain.views import SubscriptionView
from app.errors import (
    Conflict,
)
from app.identity.actors import Actor
from app.mirror import refreshing as sync
from app.mirror.store import subscriptions
from app.mirror.visibility import Seen, get, read
from app.operations import store as operations
from app.operations.runner import Accepted
from app.operations.waiting import waits
from app.postgres.database import Connection
from app.stripe.billing import Changed
from app.subscriptions import ending
from app.subscriptions.change_operations import Begun, begun, carry_out, insert_operation, payment_of
from app.subscriptions.charges import as_seen
from app.subscriptions.ends import When
from app.subscriptions.item_changes import ChangedItems, PricedItem, Terms, change_items, only_lowers
from app.subscriptions.quotes import use_quote
from app.subscriptions.superseding import superseding
from app.subscriptions.writes import (
    Done,
    MoneyTerms,
    StripeCall,
    SubscriptionUpdate,
    attachment,
    price_ids,
    seen_now,
    write,
)

Precondition = Callable[[Seen], None]
_NO_CHANGE = SubscriptionUpdate([], None, None, None, None, MoneyTerms())


async def update(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    change: SubscriptionUpdate,
    operation_id: str,
    precondition: Precondition,
) -> Done | Accepted:
    """Changes items, payment method, discounts or the intended end, in one call to Stripe.

    Raises NotFound, Forbidden, Conflict `seats_in_use`, `quote_expired`, `invoice_unpaid`, `promotion_code_in_use` or
    `subscription_not_active`,
    PreconditionFailed by `precondition`, InvalidRequest for items, PaymentRequired.
    """

    async def changed() -> Done | Accepted:
        if _only_ends(change):
            return await _change_end(context, actor, subscription_id, change, operation_id, precondition)
        return await _update(context, actor, subscription_id, change, operation_id, precondition)

    return await superseding(context, actor, subscription_id, changed)


async def _update(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    change: SubscriptionUpdate,
    operation_id: str,
    precondition: Precondition,
) -> Done | Accepted:
    outside, asked = Outside(None), change
    if change.payment_method_id is not None or change.promotion_code is not None:
        # Whoever may not change the plan must not learn which cards and codes exist, nor make us ask Stripe.
        now = await get(context, actor, subscription_id)
        require(now.granted, *permissions_for(change, now.view))
        outside = await look_outside(
            context, actor, now.view, change.payment_method_id, change.promotion_code
        )
    if outside.promotion_applies:
        change = replace(change, promotion_code=None)
    async with context.database.transaction() as connection:
        await subscriptions.lock(connection, subscription_id)
        seen = await read(connection, actor, subscription_id, context.rules)
        require(seen.granted, *permissions_for(change, seen.view))
        operation = await begun(context, connection, operation_id)
        if operation is None:
            precondition(seen)
            if outside.promotion_applies and replace(change, quote_id=None) == _NO_CHANGE:
                return Done(seen, None)
            prices = await catalogue.prices_for_purchase(
                connection, price_ids(change.items, seen.view), open_catalogue=context.rules.open_catalogue
            )
            after = items_after(actor, seen.view, change, prices)
            check_status(context, seen.view, after)
            await _check_end(connection, actor, seen, change, after)
            if after is not None and not after.reduces:
                await failures.check(connection, actor)
            if after is not None:
                check_floor(seen.view.seats(owner_uses_seat=context.rules.owner_uses_seat), after.seats)
            params = update_params(context, seen.view, change, after)
            outside.apply(seen.view, params)
            check_complete(seen.view)
            if change.quote_id is not None:
                await use_quote(connection, actor, seen.view, asked)
            call = StripeCall(
                "update",
                params,
                quote_id=change.quote_id,
                forgo_credit=change.forgo_credit,
                restarts=after is not None and bool(after.restarted),
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
                seats_left=None if after is None else after.seats,
                quote_id=change.quote_id,
                needs=permissions_for(change, seen.view),
                end_by=ending.end_by(actor, seen.view) if change.cancel_at_period_end else None,
            )
    try:
        return await _carried_out(context, actor, subscription_id, operation)
    except Conflict as refusal:
        raise as_seen(refusal, seen) from refusal


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
    if await waits(context, begun.operation_id):
        return Accepted(begun.operation_id, payment)
    done = await seen_now(context, actor, subscription_id, payment)
    async with context.database.connection() as connection:
        operation = await operations.operation(connection, begun.operation_id)
    forgone = 0 if operation is None else StripeCall(**operation.request).credit_forgone
    return replace(done, credit_forgone=forgone, operation_id=begun.operation_id)


def permissions_for(change: SubscriptionUpdate, view: SubscriptionView) -> list[Permission]:
    """Ending is one right, reducing the quantity another, everything that costs a third."""
    needed = []
    quantities = {str(item["id"]): item["quantity"] for item in view.items}
    costs = change.payment_method_id or change.promotion_code or change.terms != MoneyTerms()
    if not costs and only_lowers(change.items, quantities):
        needed.append(Permission.LOWER_QUANTITY)
    elif change.items or costs:
        needed.append(change.permission)
    if change.cancel_at_period_end is not None:
        needed.append(Permission.CANCEL if change.cancel_at_period_end else Permission.TAKE_BACK_END)
    return needed or [Permission.SEE_SUBSCRIPTION]


def _only_ends(change: SubscriptionUpdate) -> bool:
    """True if an update does what cancelling or resuming does, so that one rule serves both."""
    return change.cancel_at_period_end is not None and not (
        change.items
        or change.payment_method_id
        or change.promotion_code
        or change.quote_id
        or change.terms != MoneyTerms()
    )


async def _check_end(
    connection: Connection, actor: Actor, seen: Seen, change: SubscriptionUpdate, after: ChangedItems | None
) -> None:
    """Judge an end that is changed together with something else."""
    if change.cancel_at_period_end is None:
        return
    if not change.cancel_at_period_end:
        if ending.ends_at(seen.view) is not None:
            await ending.check_taking_back(connection, actor, seen)
        return
    if after is not None and len({item.price.interval for item in after.items}) > 1:
        raise ending.ambiguous(seen.view, _BY_UPDATE)
    if not ending.stands_already(seen.view, When.PERIOD_END):
        await ending.check_end(connection, actor, seen, When.PERIOD_END)


def _current_items(view: SubscriptionView, prices: dict[Any, OfferedPrice]) -> list[PricedItem]:
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
        found.append(PricedItem(SubscriptionItemId(item["id"]), price, item["quantity"]))
    return found


def items_after(
    actor: Actor,
    view: SubscriptionView,
    change: SubscriptionUpdate,
    prices: dict[Any, OfferedPrice],
) -> ChangedItems | None:
    if not change.items:
        return None
    return change_items(
        _current_items(view, prices),
        change.items,
        prices,
        Terms(
            may_buy_unlisted=actor.is_admin,
            currency=view.currency,
            flexible=view.billing_mode == "flexible",
        ),
    )


def check_status(context: Context, view: SubscriptionView, after: ChangedItems | None) -> None:
    """Judge a change by the status: what reduces is refused only where Stripe takes no change at all.

    Raises Conflict `subscription_not_active`.
    """
    if view.status in ENDED:
        raise Conflict("This subscription has ended: buy a new one.", code="subscription_not_active")
    if after is None:
        return
    check_complete(view)
    if after.reduces:
        return
    allowed = entitlements(view.status, past_due_allows_new_seats=context.rules.past_due_allows_new_seats)
    before = view.seats(owner_uses_seat=context.rules.owner_uses_seat).total
    if not allowed.edits or (after.seats > before and not allowed.new_seats):
        raise Conflict(
            f"A subscription with the status {view.status} takes no more seats, items or other prices. Pay what is "
            "open, or resume it, first.",
            code="subscription_not_active",
        )


def check_complete(view: SubscriptionView) -> None:
    """Until the first invoice is paid, Stripe changes nothing but metadata (SDK, `Subscription.status`).

    Raises Conflict `subscription_not_active`.
    """
    if view.status == "incomplete":
        raise Conflict(
            "The first invoice of this subscription is not paid yet. Pay it, or cancel the subscription and buy again.",
            code="subscription_not_active",
        )


def update_params(
    context: Context, view: SubscriptionView, change: SubscriptionUpdate, after: ChangedItems | None
) -> dict[str, Any]:
    """Pending updates hold a change until it is paid, but Stripe allows them few parameters; else all or nothing."""
    terms = change.terms
    params: dict[str, Any] = {}
    if after is not None:
        params["items"] = after.params
        params["proration_behavior"] = terms.proration_behavior or context.rules.proration_behavior
        if view.status == "paused":
            # Nothing is invoiced until it resumes, and the paid periods are over: there is nothing to credit.
            params["proration_behavior"] = "none"
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
        params.update(_end_params(view, at_period_end=change.cancel_at_period_end))
    simple = {"items", "proration_behavior", "proration_date", "trial_end"}
    needs_payment = params.keys() & {"items", "trial_end"}
    if needs_payment and view.status != "paused":
        only_simple = (
            params.keys() <= simple and change.payment_method_id is None and change.promotion_code is None
        )
        params["payment_behavior"] = "pending_if_incomplete" if only_simple else "error_if_incomplete"
    return params


def _end_params(view: SubscriptionView, *, at_period_end: bool) -> dict[str, Any]:
    if at_period_end:
        return ending.params_for(view, When.PERIOD_END, pointer=_BY_UPDATE)
    return ending.taking_back_params(view) or {"cancel_at_period_end": False}


async def cancel(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    *,
    when: When,
    reason: str | None,
    prorate: bool | None,
    operation_id: str,
) -> Done | Accepted:
    """End it now, or let it run out; asking again changes nothing and answers the same.

    A purchase that waits for its payment ends for it.
    Raises InvalidRequest `end_ambiguous`, Conflict `managed_by_schedule`, Forbidden, NotFound.
    """
    params: dict[str, Any] = {"cancellation_details": {"comment": reason}} if reason else {}
    if when is When.NOW and prorate is not None:
        params.update({"prorate": prorate, "invoice_now": prorate})

    async def ended() -> Done | Accepted:
        return await _end(context, actor, subscription_id, when, params, operation_id)

    return await superseding(context, actor, subscription_id, ended)


_BY_UPDATE = "/cancel_at_period_end"


async def _end(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    when: When,
    params: dict[str, Any],
    operation_id: str,
    *,
    kind: str = "cancel_subscription",
    precondition: Precondition | None = None,
) -> Done | Accepted:
    """`params`: what Stripe is told besides the end. An update names its end by another field than a cancellation."""
    needed = Permission.CANCEL_NOW if when is When.NOW else Permission.CANCEL
    is_read = False
    while True:
        async with context.database.transaction() as connection:
            await subscriptions.lock(connection, subscription_id)
            seen = await read(connection, actor, subscription_id, context.rules)
            view = seen.view
            require(seen.granted, needed)
            if view.status in ENDED and kind == "cancel_subscription":
                return await _done_already(connection, seen, kind)
            operation = await begun(context, connection, operation_id)
            if operation is not None:
                break
            if precondition is not None:
                precondition(seen)
            if view.status in ENDED:
                check_status(context, view, None)
            if when is When.NOW:
                method = "cancel"
            elif view.status == "incomplete":
                # Stripe takes no end for it, and nothing was paid that could run out.
                method = "end_unpaid"
            else:
                pointer = "/when" if kind == "cancel_subscription" else _BY_UPDATE
                asked = ending.params_for(view, when, pointer=pointer)
                stands = ending.stands_already(view, when)
                if stands and is_read:
                    await ending.check_no_change_runs(connection, view)
                    await ending.confirm(context, connection, actor, seen, operation_id)
                    return await _done_already(connection, seen, kind)
                if not stands:
                    await ending.check_end(connection, actor, seen, when)
                method, end_params = ("", {}) if stands else await _way_to_end(connection, view, when, asked)
                params = {**params, **end_params}
            if method:
                operation = await insert_operation(
                    context,
                    connection,
                    actor,
                    operation_id,
                    kind,
                    subscription_id,
                    StripeCall(method, params),
                    needs=[needed],
                    end_by=ending.end_by(actor, view),
                )
                break
        # Somebody may have changed the end in the Dashboard a moment ago: "already so" is said of what Stripe has.
        if not await ending.is_current(context, view):
            await sync.read_through(context, "subscription", subscription_id)
        is_read = True
    return _without_payment(await _carried_out(context, actor, subscription_id, operation))


async def _done_already(connection: Connection, seen: Seen, kind: str) -> Done:
    """Answer as the operation of this kind did that made it so; no operation did if it was made in the Dashboard."""
    return Done(seen, None, operation_id=await operations.last_applied(connection, seen.view.id, kind))


async def _way_to_end(
    connection: Connection, view: SubscriptionView, when: When, asked: JsonObject
) -> tuple[str, JsonObject]:
    """Return the call that brings the end about, and its parameters: at once where its period is over already."""
    return ("cancel", {}) if await ending.is_over(connection, view, when) else ("update", asked)


async def _change_end(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    change: SubscriptionUpdate,
    operation_id: str,
    precondition: Precondition,
) -> Done | Accepted:
    """An update of nothing but the end: as cancelling, or as taking the end back."""
    kind = "update_subscription"
    if change.cancel_at_period_end:
        return await _end(
            context,
            actor,
            subscription_id,
            When.PERIOD_END,
            {},
            operation_id,
            kind=kind,
            precondition=precondition,
        )
    return await _take_back(
        context, actor, subscription_id, operation_id, kind=kind, wake=False, precondition=precondition
    )


async def resume(
    context: Context, actor: Actor, subscription_id: SubscriptionId, operation_id: str
) -> Done | Accepted:
    """Take back whichever end is set, and wake a paused subscription; asking again answers the same.

    Raises Conflict `subscription_not_active` for an ended one, `managed_by_schedule`, Forbidden, NotFound.
    """

    async def resumed() -> Done | Accepted:
        return await _take_back(
            context, actor, subscription_id, operation_id, kind="resume_subscription", wake=True
        )

    return await superseding(context, actor, subscription_id, resumed)


def _check_resumable(view: SubscriptionView) -> None:
    if view.collection_method == "send_invoice":
        raise Conflict(
            "Stripe resumes only subscriptions that are charged automatically, and this one is paid by sent invoices. "
            "Change its collection method in the Dashboard first, or cancel it and buy a new one.",
            code="subscription_not_active",
        )


async def _take_back(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    operation_id: str,
    *,
    kind: str,
    wake: bool,
    precondition: Precondition | None = None,
) -> Done | Accepted:
    """`wake`: a paused subscription is resumed too."""
    is_read = False
    while True:
        async with context.database.transaction() as connection:
            await subscriptions.lock(connection, subscription_id)
            seen = await read(connection, actor, subscription_id, context.rules)
            view = seen.view
            wakes = wake and view.status == "paused"
            needed = [Permission.TAKE_BACK_END, *([Permission.RESUME] if wakes else [])]
            require(seen.granted, *needed)
            operation = await begun(context, connection, operation_id)
            if operation is not None:
                break
            if precondition is not None:
                precondition(seen)
            if view.status in ENDED:
                raise Conflict("This subscription has ended: buy a new one.", code="subscription_not_active")
            params = await ending.taking_back_call(connection, view)
            if params:
                await ending.check_taking_back(connection, actor, seen)
            if params or wakes:
                check_complete(view)
                if wakes:
                    _check_resumable(view)
                    await failures.check(connection, actor)
                operation = await insert_operation(
                    context,
                    connection,
                    actor,
                    operation_id,
                    kind,
                    subscription_id,
                    StripeCall("resume" if wakes else "update", params),
                    needs=needed,
                )
                break
            if is_read:
                await ending.check_no_change_runs(connection, view)
                return await _done_already(connection, seen, kind)
        # Somebody may have set an end in the Dashboard a moment ago.
        if not await ending.is_current(context, view):
            await sync.read_through(context, "subscription", subscription_id)
        is_read = True
    done = await _carried_out(context, actor, subscription_id, operation)
    return done if wakes else _without_payment(done)


def _without_payment(done: Done | Accepted) -> Done | Accepted:
    """A change of the end asks for no payment: an invoice that is open anyway is no part of its answer."""
    return done if isinstance(done, Accepted) else replace(done, payment=None)
