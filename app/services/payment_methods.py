"""Payment methods: whose they are is judged on the object that Stripe has, never on the id that a caller sent."""

from __future__ import annotations

from app.cache import customers, subscriptions
from app.domain.ids import CustomerId, PaymentMethodId, SubscriptionId
from app.domain.payments import PaymentStep
from app.domain.snapshots import JsonObject
from app.domain.statuses import is_live
from app.errors import Conflict, NotFound
from app.services import sync
from app.services.context import Context
from app.services.payment_details import check_payment_method, fetch_payment_method
from app.services.reads import payment_methods
from app.stripe_gateway.gateway import Fetched


async def attach(
    context: Context,
    customer_id: CustomerId,
    payment_method_id: PaymentMethodId,
    *,
    use_as_default: bool,
    operation_id: str,
) -> JsonObject:
    """Raises NotFound for one that is another customer's, PaymentRequired where the bank declines it."""
    await _known(context, customer_id)
    method = await fetch_payment_method(context, payment_method_id)
    if method.customer_id not in (None, customer_id):
        raise NotFound("There is no such payment method.")
    attached = method.id
    if method.customer_id is None:
        fetched = await context.billing.attach_payment_method(
            payment_method_id, customer_id, idempotency_key=f"{operation_id}/attach"
        )
        if fetched.snapshot is None:
            raise NotFound("There is no such payment method.")
        attached = PaymentMethodId(fetched.snapshot.id)
        await _land(context, "payment_method", attached, fetched)
    if use_as_default:
        await set_default(context, customer_id, attached, operation_id=operation_id)
    return await _one(context, customer_id, attached)


async def detach(
    context: Context, customer_id: CustomerId, payment_method_id: PaymentMethodId, *, operation_id: str
) -> None:
    """Raises Conflict `payment_method_in_use` while a live subscription is charged to it, or would be left bare."""
    await check_payment_method(context, payment_method_id, customer_id)
    others = await payment_methods(context, customer_id, kind=None, after=None, limit=2)
    async with context.database.connection() as connection:
        profile = await customers.profile(connection, customer_id)
        live = [
            view
            for view in await subscriptions.customer_subscriptions(connection, customer_id, statuses=None)
            if view.customer_id == customer_id and is_live(view.status)
        ]
    default = None if profile is None else profile["default_payment_method_id"]
    charged = {view.default_payment_method_id or default for view in live}
    is_last = all(method["id"] == payment_method_id for method in others)
    if live and (is_last or payment_method_id in charged):
        raise Conflict(
            "A live subscription is charged to it: make another one the default first.",
            code="payment_method_in_use",
        )
    lease = await sync.take_lease(context, "payment_method", payment_method_id)

    async def call() -> Fetched:
        return await context.billing.detach_payment_method(
            payment_method_id, idempotency_key=f"{operation_id}/detach"
        )

    await sync.land(context, lease, call)


async def set_default(
    context: Context, customer_id: CustomerId, payment_method_id: PaymentMethodId, *, operation_id: str
) -> JsonObject:
    """For the customer, and for each live subscription that carries a default of its own, which would win else."""
    await check_payment_method(context, payment_method_id, customer_id)
    lease = await sync.take_lease(context, "customer", customer_id)

    async def customer_default() -> Fetched:
        return await context.billing.update_customer(
            customer_id,
            {"invoice_settings": {"default_payment_method": payment_method_id}},
            idempotency_key=f"{operation_id}/default",
        )

    await sync.land(context, lease, customer_default)
    async with context.database.connection() as connection:
        views = await subscriptions.customer_subscriptions(connection, customer_id, statuses=None)
    for view in views:
        own = view.default_payment_method_id
        if view.customer_id == customer_id and is_live(view.status) and own not in (None, payment_method_id):
            await _set_on_subscription(context, view.id, payment_method_id, operation_id)
    return await _one(context, customer_id, payment_method_id)


async def _set_on_subscription(
    context: Context, subscription_id: SubscriptionId, payment_method_id: PaymentMethodId, operation_id: str
) -> None:
    lease = await sync.take_lease(context, "subscription", subscription_id)

    async def call() -> Fetched:
        changed = await context.billing.update_subscription(
            subscription_id,
            {"default_payment_method": payment_method_id},
            idempotency_key=f"{operation_id}/default/{subscription_id}",
        )
        return changed.fetched

    await sync.land(context, lease, call)


async def begin_setup(
    context: Context, customer_id: CustomerId, *, operation_id: str
) -> tuple[str, PaymentStep]:
    await _known(context, customer_id)
    return await context.billing.create_setup_intent(customer_id, idempotency_key=f"{operation_id}/setup")


async def _known(context: Context, customer_id: CustomerId) -> None:
    async with context.database.connection() as connection:
        if await customers.profile(connection, customer_id) is None:
            raise NotFound()


async def _land(context: Context, kind: str, object_id: str, fetched: Fetched) -> None:
    lease = await sync.take_lease(context, kind, object_id)
    await sync.land(context, lease, fetched)


async def _one(context: Context, customer_id: CustomerId, payment_method_id: PaymentMethodId) -> JsonObject:
    await payment_methods(context, customer_id, kind=None, after=None, limit=1)
    async with context.database.connection() as connection:
        found = await customers.payment_method(connection, customer_id, payment_method_id)
    if found is None:
        raise NotFound("There is no such payment method.")
    return found
