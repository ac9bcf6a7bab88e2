"""How a subscription is paid, read from Stripe, and the parameters of a change that suit it."""

from __future__ import annotations

from app.context import Context
from app.customers.store import customers
from app.customers.ways_of_paying import (
    WayOfPaying,
    behavior_of_update,
    charged_method,
    check_collected,
    check_raise,
    raise_by,
)
from app.domain.ids import SubscriptionId
from app.domain.snapshots import Customer, Invoice, JsonObject, PaymentMethod, Subscription
from app.errors import NotFound
from app.operations import store as operations
from app.subscriptions.charges import Priced, asked

_DAY = 86_400


async def suited(
    context: Context, operation_id: str, subscription: Subscription, at: int, priced: Priced
) -> JsonObject:
    """Return the parameters of a priced change with the payment behaviour that suits how the subscription is paid.

    `subscription` and `at`: as Stripe has it now, under the lease, and the second of its answer. A raise that stands
    before its payment is held against what is owed, unless a service key asks for itself.

    Raises:
        Conflict: `invoice_unpaid` or `unsecured_raise_limit`.
    """
    params = dict(priced.params)
    if "payment_behavior" not in params:
        return params
    way = await way_of_paying(context, subscription, params.get("default_payment_method"))
    params["payment_behavior"] = behavior_of_update(params["payment_behavior"], way)
    if await _is_of_an_end_user(context, operation_id):
        await _check_bounds(context, subscription, at, priced, way)
    return params


async def check_bounds(context: Context, subscription: Subscription, at: int, priced: Priced) -> None:
    """Hold an end user's change against what may stand before its payment, as the change itself is held.

    Raises:
        Conflict: `invoice_unpaid` or `unsecured_raise_limit`.
    """
    if "payment_behavior" in priced.params:
        way = await way_of_paying(context, subscription, priced.params.get("default_payment_method"))
        await _check_bounds(context, subscription, at, priced, way)


async def _check_bounds(
    context: Context, subscription: Subscription, at: int, priced: Priced, way: WayOfPaying
) -> None:
    more = raise_by(subscription, priced.params.get("items", ()))
    if subscription.status == "trialing" or more <= 0:
        return
    is_unpaid = way.pays_later or subscription.pause_collection is not None
    if is_unpaid and await _costs(context, subscription, priced):
        check_collected(subscription, more)
        invoices = await _invoices(context, subscription)
        check_raise(subscription, more, invoices, at=at, percent=context.rules.unsecured_raise_max)


async def _costs(context: Context, subscription: Subscription, priced: Priced) -> bool:
    """Return True if a raise is to be paid now, or with the next renewal.

    In the last seconds of a period a raise costs nothing yet, and its renewal is paid weeks later.
    """
    if priced.now.amount_due > 0 or not priced.is_invoiced:
        return True
    recurring = {**asked(subscription, priced.params, "none"), "preview_mode": "recurring"}
    try:
        return (await context.billing.preview(recurring)).total > 0
    except NotFound:
        # The subscription ends with this period.
        return False


async def way_of_paying(
    context: Context, subscription: Subscription, new_method_id: str | None = None
) -> WayOfPaying:
    """Find the method that Stripe charges; `new_method_id` becomes the subscription's own with the change.

    The type of a method never changes, so the cache may know it.
    """
    method_id = new_method_id or charged_method(subscription, None)
    if method_id is None:
        customer = (await context.stripe.fetch("customer", subscription.customer_id)).snapshot
        method_id = charged_method(subscription, customer if isinstance(customer, Customer) else None)
    method_type = None if method_id is None else await _type_of(context, method_id)
    return WayOfPaying(subscription.collection_method, method_type)


async def _type_of(context: Context, method_id: str) -> str | None:
    async with context.database.connection() as connection:
        known = await customers.payment_method_type(connection, method_id)
    if known is not None:
        return known
    found = (await context.stripe.fetch("payment_method", method_id)).snapshot
    return found.type if isinstance(found, PaymentMethod) else None


async def _is_of_an_end_user(context: Context, operation_id: str) -> bool:
    """Return True for a person, and for a service key that acts for one."""
    async with context.database.connection() as connection:
        operation = await operations.operation(connection, operation_id)
    return operation is not None and operation.actor_id is not None


async def _invoices(context: Context, subscription: Subscription) -> list[Invoice]:
    """Return the open invoices, and those paid since the oldest running period began.

    Open ones are returned however old they are.
    """
    starts = [item.current_period_start for item in subscription.items if item.current_period_start]
    since = min(starts, default=subscription.created) - _DAY
    invoices_of = context.stripe.invoices_of
    subscription_id = SubscriptionId(subscription.id)
    return [
        *await invoices_of(subscription_id, status="open"),
        *await invoices_of(subscription_id, status="paid", created_from=since),
    ]
