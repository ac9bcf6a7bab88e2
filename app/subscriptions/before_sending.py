"""What an operation checks and does before it sends anything.

If Stripe was away when the change was admitted, Stripe is asked for the payment method and the promotion code that the
change names, and a purchase that waits for its payment ends. The rules are those of an admission that Stripe answers. A
refusal ends the operation, and nothing is sent. See docs/decisions/0065-admit-a-change-although-stripe-is-away.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from app.context import Context
from app.customers import failures
from app.customers.payment_details import fetch_free_or_own, look_outside, promotion
from app.customers.ways_of_paying import behavior_of_purchase
from app.domain.ids import CustomerId
from app.domain.payments import Named
from app.domain.roles import Permission, require
from app.domain.seats import check_floor
from app.domain.views import SubscriptionView
from app.errors import Conflict, Forbidden, NotFound
from app.mirror.store import subscriptions
from app.mirror.visibility import see_as
from app.operations import store as operations
from app.operations import waiting_store
from app.operations.kinds import Ended
from app.operations.rows import Operation, Step, StepChanged
from app.operations.sending import locked_view
from app.postgres.database import Connection
from app.subscriptions.orders import Conditions, Found, Method, Order, Unpriced, attachment
from app.subscriptions.subscription_steps import keep
from app.subscriptions.superseding import PROCESSING_RETRY_SECONDS, check_price, supersede
from app.subscriptions.unpaid import without_invoice


async def check_allowed(context: Context, connection: Connection, operation: Operation, step: Step) -> None:
    """Judge a step before it has an effect, in the transaction of `connection`.

    Since the admission the actor may have lost the permission, or somebody may have become a member in the Dashboard.

    Raises:
        Forbidden: The actor has lost the permission.
        Conflict: `seats_in_use`.
        ServiceUnavailable: The subscription or the actor was changed, and the change is still to be read.
    """
    if not operation.subscription_id:
        return
    view = await locked_view(connection, operation.subscription_id, operation.actor_id)
    conditions = Conditions.of(step)
    if operation.actor_id is not None:
        granted = _granted(context, view, operation.actor_id)
        require(granted, *conditions.needs)
        only_lower = Permission.LOWER_QUANTITY in conditions.needs and Permission.BUY_SEATS not in granted
        if only_lower and view is not None:
            _check_lowers(view, Order.of(operation))
    if view is not None and conditions.seats_left is not None:
        check_floor(view.seats(owner_uses_seat=context.rules.owner_uses_seat), conditions.seats_left)


def _granted(context: Context, view: SubscriptionView | None, actor_id: CustomerId) -> frozenset[Permission]:
    seen = None if view is None else see_as(view, actor_id, context.rules)
    return frozenset() if seen is None else seen.granted


def _check_lowers(view: SubscriptionView, order: Order) -> None:
    """Raise Forbidden if the admitted reduction would now raise a quantity.

    The quantity was lowered further in the Dashboard in between.
    """
    now = {item["id"]: item["quantity"] or 0 for item in view.items}
    if any(entry["quantity"] > now.get(entry["id"], 0) for entry in order.params["items"]):
        raise Forbidden("Your role on this subscription allows you to lower its quantity, not to raise it.")


async def found_for_purchase(context: Context, params: Mapping[str, Any], named: Named) -> Found:
    """Ask Stripe for what a purchase names. `params`: those of the creation.

    Raises:
        NotFound: There is no such payment method, or it is another customer's.
        InvalidRequest: `/promotion_code` names no code that the customer may use here.
    """
    customer_id = CustomerId(params["customer"])
    found: dict[str, Any] = {}
    attach = None
    if named.payment_method_id is not None:
        method = await fetch_free_or_own(context, named.payment_method_id, customer_id)
        found["default_payment_method"] = named.payment_method_id
        found["payment_behavior"] = behavior_of_purchase(method.type)
        attach = attachment(method, customer_id)
    if named.promotion_code is not None:
        added = await promotion(context, named.promotion_code, customer_id, params["currency"])
        found["discounts"] = [*params.get("discounts", []), added]
    return Found(found, attach)


async def _found_for_change(
    context: Context, operation: Operation, params: Mapping[str, Any], named: Named
) -> Found:
    """Ask Stripe for what a change of a subscription names. `params`: those of its update.

    Raises:
        BillingError: What `look_outside` and `Outside.apply` raise.
    """
    outside = await look_outside(context, await _view(context, operation), named)
    # Read again: the look may have applied other discounts to the copy.
    view = await _view(context, operation)
    found = {"discounts": params["discounts"]} if "discounts" in params else {}
    outside.apply(view, found)
    return Found(found, attachment(outside.payment_method, view.customer_id))


async def _view(context: Context, operation: Operation) -> SubscriptionView:
    async with context.database.connection() as connection:
        view = await subscriptions.subscription_view(connection, operation.subscription_id, asker=None)
    if view is None:
        raise NotFound()
    return view


async def counted(
    context: Context, operation: Operation, step: Step, trying: Callable[[], Awaitable[Ended]]
) -> Ended:
    """Try a step, and count a wrong code or a declined card for the customer, as the request would have done.

    It is counted here if Stripe was to be asked for the card or the code, see `app.customers.failures`.

    Raises:
        RateLimited: `too_many_declines`: the customer has failed too often, and nothing was attempted.
        BillingError: What `trying` raises.
    """
    if Order.of(operation).unread is None or step.was_sent:
        return await trying()
    async with failures.counted_later(context, operation.actor_id) as attempt:
        ended = await trying()
        attempt.failed = ended.error is not None and failures.is_failure(ended.error)
        return ended


async def found_first(context: Context, operation: Operation, step: Step) -> Step:
    """Ask Stripe once for what the order names, and keep what it says with the step.

    Raises:
        BillingError: The change must not be sent, or Stripe does not answer.
    """
    order = Order.of_step(operation, step)
    if order.unread is None or step.was_sent:
        return step
    await _check_still_allowed(context, operation, step)
    if order.method is Method.CREATE:
        found = await found_for_purchase(context, order.params, order.unread)
    else:
        found = await _found_for_change(context, operation, order.params, order.unread)
    return await keep(context, operation, step, {"found": asdict(found)})


async def ended_first(context: Context, operation: Operation, step: Step) -> None:
    """End the purchase that waits for its payment, if the order is to; a change that is refused ends nothing.

    Raises:
        Conflict: What is refused, or `operation_in_progress` while a payment is processing.
        BillingError: Stripe does not answer.
    """
    order = Order.of_step(operation, step)
    if not order.ends_waiting or step.was_sent:
        return
    await _check_still_allowed(context, operation, step)
    await _end_waiting(context, operation, order.unpriced, changes_only_end=order.changes_only_end)


async def voided_first(context: Context, operation: Operation, step: Step) -> None:
    """Void the first invoice of a subscription that is to end unpaid: it cannot be paid while the end is on its way.

    Raises:
        Forbidden: The actor has lost the permission.
        NotFound: Stripe has no such subscription.
        Conflict: `operation_in_progress` while its payment is processing.
        BillingError: Stripe does not answer.
    """
    if Conditions.of(step).method is not Method.END_UNPAID or step.was_sent:
        return
    await _check_still_allowed(context, operation, step)
    now = await without_invoice(context, operation.subscription_id, key=f"{operation.id}/void")
    if now.subscription.status == "incomplete" and now.open_invoice_id is not None:
        raise Conflict(
            "The first payment of this subscription is being processed. Cancel again once it has succeeded or failed.",
            retry_after=PROCESSING_RETRY_SECONDS,
        )


async def ended_for_seats(context: Context, operation: Operation, step: Step, unpriced: Unpriced) -> None:
    """End the purchase that waits for its payment, for a step that buys seats and was not sent yet.

    Raises:
        StepChanged: The step was settled since it was read.
        BillingError: What `ended_first` raises.
    """
    async with context.database.transaction() as connection:
        view = await locked_view(connection, operation.subscription_id, operation.actor_id)
        steps = await operations.steps(connection, operation.id)
        if any(one.position == step.position and one.is_settled for one in steps):
            raise StepChanged()
        if operation.actor_id is not None:
            require(_granted(context, view, operation.actor_id), Permission.BUY_SEATS)
    await _end_waiting(context, operation, unpriced)


async def _check_still_allowed(context: Context, operation: Operation, step: Step) -> None:
    async with context.database.transaction() as connection:
        await check_allowed(context, connection, operation, step)


async def _end_waiting(
    context: Context, operation: Operation, unpriced: Unpriced | None, *, changes_only_end: bool = False
) -> None:
    async with context.database.connection() as connection:
        found = await waiting_store.of_subscription(connection, operation.subscription_id)
    if not found:
        return
    if unpriced is not None:
        await check_price(
            context, operation.subscription_id, unpriced, is_bounded=operation.actor_id is not None
        )
    await supersede(context, operation.subscription_id, changes_only_end=changes_only_end)
