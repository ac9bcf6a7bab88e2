"""Ending and resuming a subscription: the end is judged and stored under its lock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from app.context import Context
from app.customers import failures
from app.domain.ids import SubscriptionId
from app.domain.roles import Permission, require
from app.domain.snapshots import JsonObject
from app.domain.statuses import ENDED
from app.domain.views import SubscriptionView
from app.errors import (
    Conflict,
)
from app.identity.actors import Actor
from app.mirror import refreshing as sync
from app.mirror.store import subscriptions
from app.mirror.visibility import Seen, read
from app.operations import store as operations
from app.operations.runner import Accepted, unless_away
from app.postgres.database import Connection
from app.subscriptions import change_operations, ending
from app.subscriptions.change_operations import Begun, Done, begun, insert_operation
from app.subscriptions.change_rules import (
    BY_UPDATE,
    check_complete,
    check_status,
)
from app.subscriptions.ends import When
from app.subscriptions.orders import Method, Order, ShownEnd
from app.subscriptions.superseding import settle_what_waited, superseding
from app.subscriptions.updates import SubscriptionUpdate

Precondition = Callable[[Seen], None]


async def cancel(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    *,
    when: When,
    reason: str | None,
    prorate: bool | None,
    operation_id: str,
    precondition: Precondition,
) -> Done | Accepted:
    """End a subscription now or at a later moment; asking again changes nothing.

    A purchase that waits for its payment ends for it.

    Raises:
        NotFound: the actor may not see the subscription.
        Forbidden: `role_required`.
        InvalidRequest: `end_ambiguous`.
        Conflict: `managed_by_schedule`, `operation_in_progress`, or `invoice_unpaid`.
        ServiceUnavailable: nothing was sent.
        BillingError: what `precondition` raises.
    """
    params: dict[str, Any] = {"cancellation_details": {"comment": reason}} if reason else {}
    if when is When.NOW and prorate is not None:
        params.update({"prorate": prorate, "invoice_now": prorate})

    async def ended(ends_later: bool) -> Done | Accepted:
        return await _end(
            context,
            actor,
            subscription_id,
            when,
            params,
            operation_id,
            ends_later=ends_later,
            precondition=precondition,
        )

    return await superseding(context, actor, subscription_id, ended)


async def _end(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    when: When,
    params: dict[str, Any],
    operation_id: str,
    *,
    ends_later: bool,
    precondition: Precondition,
    kind: str = "cancel_subscription",
) -> Done | Accepted:
    """End the subscription. `params`: parameters of Stripe's call beside the end.

    `ends_later`: see `insert_operation`. `kind`: of the operation. An update names its end by another field than a
    cancellation.
    """
    admitted = await _admitted(
        context,
        actor,
        subscription_id,
        when,
        params,
        operation_id,
        kind=kind,
        precondition=precondition,
        ends_later=ends_later,
    )
    if isinstance(admitted, Done):
        return admitted
    done = await change_operations.carry_out_change(context, actor, admitted)
    if admitted.order.method is Method.END_UNPAID:
        await settle_what_waited(context, subscription_id)
    return _without_payment(done)


async def _admitted(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    when: When,
    params: dict[str, Any],
    operation_id: str,
    *,
    kind: str,
    precondition: Precondition,
    ends_later: bool,
) -> Begun | Done:
    """Return the operation that ends the subscription, or what stands already where there is nothing to do."""
    needed = Permission.CANCEL_NOW if when is When.NOW else Permission.CANCEL
    is_read = is_away = False
    while True:
        async with subscriptions.admitting(context.database, subscription_id) as connection:
            seen = await read(connection, actor, subscription_id, context.rules)
            view = seen.view
            require(seen.granted, needed)
            if view.status in ENDED and kind == "cancel_subscription":
                return await _done_already(connection, seen, kind)
            operation = await begun(context, connection, operation_id)
            if operation is not None:
                return operation
            precondition(seen)
            check_status(context, view, None)
            pointer = "/when" if kind == "cancel_subscription" else BY_UPDATE
            order = await _order_to_end(connection, actor, seen, when, params, pointer)
            if order is None and is_away:
                order = _as_shown(view, {**params, **ending.params_for(view, when, pointer=pointer)})
            if order is not None:
                end_by = ending.end_by(actor, view)
                return await insert_operation(
                    context,
                    connection,
                    actor,
                    operation_id,
                    kind,
                    subscription_id,
                    order,
                    needs=[needed],
                    end_by=end_by,
                    view=view,
                    ends_later=ends_later,
                )
            if is_read:
                return await _confirmed(context, connection, actor, seen, operation_id, kind)
        is_read = await _read_if_outdated(context, view)
        is_away = not is_read


async def _read_if_outdated(context: Context, view: SubscriptionView) -> bool:
    """Read the subscription if Stripe shows another end than the view; return False if Stripe is away.

    The end may have been changed in the Dashboard a moment ago, so only Stripe's state says that it stands already.
    """

    async def read_now() -> bool:
        if not await ending.is_current(context, view):
            await sync.read_through(context, "subscription", view.id)
        return True

    return await unless_away(context, read_now) is not None


def _as_shown(view: SubscriptionView, params: JsonObject) -> Order:
    """Return the order that asks Stripe whether the end stands, as the copy shows it; `params` set it."""
    return Order(Method.UPDATE, params, shown_end=ShownEnd(ending.ends_at(view)))


async def _confirmed(
    context: Context, connection: Connection, actor: Actor, seen: Seen, operation_id: str, kind: str
) -> Done:
    """Note that the actor wants the end that stands already, and answer that it stands."""
    await ending.check_no_change_runs(connection, seen.view)
    await ending.confirm(context, connection, actor, seen, operation_id)
    return await _done_already(connection, seen, kind)


async def _done_already(connection: Connection, seen: Seen, kind: str) -> Done:
    """Answer with the newest operation of this kind that changed the subscription.

    There is none if the change was made in the Dashboard.
    """
    return Done(seen, None, operation_id=await operations.last_applied(connection, seen.view.id, kind))


async def _order_to_end(
    connection: Connection, actor: Actor, seen: Seen, when: When, params: JsonObject, pointer: str
) -> Order | None:
    """Return the order that ends the subscription; None if the end stands already.

    `params`: further parameters of the call. `pointer`: the field that names the end, for an error.
    """
    view = seen.view
    if view.status == "incomplete":
        # Stripe takes no end for it, and nothing was paid that could run out.
        return Order(Method.END_UNPAID, params)
    if when is When.NOW:
        return Order(Method.CANCEL, params)
    asked = ending.params_for(view, when, pointer=pointer)
    if ending.stands_already(view, when):
        return None
    await ending.check_end(connection, actor, seen, when)
    if await ending.is_over(connection, view, when):
        return Order(Method.CANCEL, params)
    return Order(Method.UPDATE, {**params, **asked})


async def change_end(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    change: SubscriptionUpdate,
    operation_id: str,
    precondition: Precondition,
    *,
    ends_later: bool,
) -> Done | Accepted:
    """Carry out an update of only the end, as cancelling or taking the end back does.

    Raises:
        BillingError: what `cancel` and `resume` raise, and what `precondition` raises.
    """
    kind = "update_subscription"
    if change.cancel_at_period_end:
        return await _end(
            context,
            actor,
            subscription_id,
            When.PERIOD_END,
            {},
            operation_id,
            ends_later=ends_later,
            kind=kind,
            precondition=precondition,
        )
    return await _take_back(
        context,
        actor,
        subscription_id,
        operation_id,
        kind=kind,
        wake=False,
        precondition=precondition,
        ends_later=ends_later,
    )


async def resume(
    context: Context,
    actor: Actor,
    subscription_id: SubscriptionId,
    operation_id: str,
    precondition: Precondition,
) -> Done | Accepted:
    """Take back whichever end is set, and resume a paused subscription.

    Asking again changes nothing.

    Raises:
        NotFound: the actor may not see the subscription.
        Forbidden: `role_required`.
        Conflict: `subscription_not_active` for an ended one, `managed_by_schedule`, or `operation_in_progress`.
        RateLimited: too many payments of the actor failed recently.
        ServiceUnavailable: nothing was sent.
        BillingError: what `precondition` raises.
    """

    async def resumed(ends_later: bool) -> Done | Accepted:
        return await _take_back(
            context,
            actor,
            subscription_id,
            operation_id,
            kind="resume_subscription",
            wake=True,
            precondition=precondition,
            ends_later=ends_later,
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
    precondition: Precondition,
    ends_later: bool,
) -> Done | Accepted:
    """Take the end back. `wake`: a paused subscription is resumed too. `ends_later`: see `insert_operation`."""
    is_read = is_away = False
    while True:
        async with subscriptions.admitting(context.database, subscription_id) as connection:
            seen = await read(connection, actor, subscription_id, context.rules)
            view = seen.view
            wakes = wake and view.status == "paused"
            needed = [Permission.TAKE_BACK_END, *([Permission.RESUME] if wakes else [])]
            require(seen.granted, *needed)
            operation = await begun(context, connection, operation_id)
            if operation is not None:
                break
            precondition(seen)
            order = await _order_to_take_back(connection, actor, seen, wakes=wakes)
            if order is None and is_away:
                order = _as_shown(view, {"cancel_at_period_end": False})
            if order is not None:
                operation = await insert_operation(
                    context,
                    connection,
                    actor,
                    operation_id,
                    kind,
                    subscription_id,
                    order,
                    needs=needed,
                    view=view,
                    ends_later=ends_later,
                )
                break
            if is_read:
                await ending.check_no_change_runs(connection, view)
                return await _done_already(connection, seen, kind)
        is_read = await _read_if_outdated(context, view)
        is_away = not is_read
    done = await change_operations.carry_out_change(context, actor, operation)
    return done if wakes else _without_payment(done)


async def _order_to_take_back(
    connection: Connection, actor: Actor, seen: Seen, *, wakes: bool
) -> Order | None:
    """Return the order that takes the end back, or resumes; None if there is nothing to do."""
    view = seen.view
    if view.status in ENDED:
        raise Conflict("This subscription has ended: buy a new one.", code="subscription_not_active")
    params = await ending.taking_back_call(connection, view)
    if params:
        await ending.check_taking_back(connection, actor, seen)
    if not (params or wakes):
        return None
    check_complete(view)
    if wakes:
        _check_resumable(view)
        await failures.check(connection, actor)
    return Order(Method.RESUME if wakes else Method.UPDATE, params)


def _without_payment(done: Done | Accepted) -> Done | Accepted:
    """Leave an open invoice out: a change of the end asks for no payment."""
    return done if isinstance(done, Accepted) else replace(done, payment=None)
