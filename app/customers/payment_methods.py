"""Payment methods: whose they are is judged on the object that Stripe has, never on the id that a caller sent."""

from __future__ import annotations

from app.context import Context
from app.customers.payment_details import attach_payment_method, fetch_free_or_own, fetch_own
from app.customers.reads import payment_methods
from app.customers.store import customers
from app.customers.ways_of_paying import charged_method
from app.domain.ids import CustomerId, PaymentMethodId, SubscriptionId
from app.domain.payments import PaymentStep
from app.domain.snapshots import Customer, JsonObject
from app.errors import Conflict, NotFound
from app.mirror import refreshing as sync
from app.stripe.gateway import Fetched


async def attach(
    context: Context,
    customer_id: CustomerId,
    payment_method_id: PaymentMethodId,
    *,
    use_as_default: bool,
    operation_id: str,
) -> JsonObject:
    """Attach a payment method that belongs to nobody yet; one of this customer's is answered as it is.

    Raises NotFound for one that is another customer's, PaymentRequired where the bank declines it.
    """
    await _known(context, customer_id)
    method = await fetch_free_or_own(context, payment_method_id, customer_id)
    attached = method.id
    if method.customer_id is None:
        attached = await attach_payment_method(
            context, customer_id, payment_method_id, operation_id=operation_id
        )
    if use_as_default:
        await set_default(context, customer_id, attached, operation_id=operation_id)
    return await _one(context, customer_id, attached)


async def detach(
    context: Context, customer_id: CustomerId, payment_method_id: PaymentMethodId, *, operation_id: str
) -> None:
    """Detach a payment method, judged on the customer, methods and subscriptions as Stripe has them now.

    Raises Conflict `payment_method_in_use` while a live subscription is charged to it, or would be left bare.
    """
    method = await fetch_own(context, payment_method_id, customer_id)
    customer = await sync.read_through(context, "customer", customer_id)
    if not isinstance(customer, Customer) or customer.deleted:
        raise NotFound()
    live = await context.billing.live_subscriptions_of(customer_id)
    others, _ = await context.stripe.payment_methods(customer_id)
    charged = {charged_method(subscription, customer) for subscription in live}
    is_last = all(one.id == method.id for one in others)
    if live and (is_last or method.id in charged):
        raise Conflict(
            "A live subscription is charged to it: make another one the default first.",
            code="payment_method_in_use",
        )
    lease = await sync.take_lease(context, "payment_method", payment_method_id)

    async def call() -> Fetched:
        return await context.billing.detach_payment_method(
            payment_method_id, idempotency_key=f"{operation_id}/detach"
        )

    await sync.apply(context, lease, call)


async def set_default(
    context: Context, customer_id: CustomerId, payment_method_id: PaymentMethodId, *, operation_id: str
) -> JsonObject:
    """Make it the default of the customer, and of each live subscription that has a default of its own.

    Such a subscription's own method or source would win otherwise. The subscriptions are those that Stripe lists:
    one whose webhook has not come yet is reached too. Stripe changes no payment method of an `incomplete` one.
    """
    await fetch_own(context, payment_method_id, customer_id)
    live = await context.billing.live_subscriptions_of(customer_id)
    lease = await sync.take_lease(context, "customer", customer_id)

    async def customer_default() -> Fetched:
        return await context.billing.update_customer(
            customer_id,
            {"invoice_settings": {"default_payment_method": payment_method_id}},
            idempotency_key=f"{operation_id}/default",
        )

    await sync.apply(context, lease, customer_default)
    for subscription in live:
        own = subscription.default_payment_method_id or subscription.default_source_id
        if subscription.status != "incomplete" and own not in (None, payment_method_id):
            await _set_on_subscription(context, subscription.id, payment_method_id, operation_id)
    return await _one(context, customer_id, payment_method_id)


async def _set_on_subscription(
    context: Context, subscription_id: SubscriptionId, payment_method_id: PaymentMethodId, operation_id: str
) -> None:
    lease = await sync.take_lease(context, "subscription", subscription_id)

    async def call() -> Fetched:
        write = context.billing.subscription_update(
            subscription_id, {"default_payment_method": payment_method_id}
        )
        return (await write.now(f"{operation_id}/default/{subscription_id}")).fetched

    await sync.apply(context, lease, call)


async def begin_setup(
    context: Context, customer_id: CustomerId, *, operation_id: str
) -> tuple[str, PaymentStep]:
    await _known(context, customer_id)
    return await context.billing.create_setup_intent(customer_id, idempotency_key=f"{operation_id}/setup")


async def _known(context: Context, customer_id: CustomerId) -> None:
    async with context.database.connection() as connection:
        if await customers.profile(connection, customer_id) is None:
            raise NotFound()


async def _one(context: Context, customer_id: CustomerId, payment_method_id: PaymentMethodId) -> JsonObject:
    await payment_methods(context, customer_id, kind=None, after=None, limit=1)
    async with context.database.connection() as connection:
        found = await customers.payment_method(connection, customer_id, payment_method_id)
    if found is None:
        raise NotFound("There is no such payment method.")
    return found
