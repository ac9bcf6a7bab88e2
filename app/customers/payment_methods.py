"""List, attach, detach and choose payment methods.

Their owner is read from the object at Stripe. The id in a request says nothing about who owns the method.
"""

from __future__ import annotations

from app.context import Context
from app.customers.payment_details import attach_payment_method, fetch_free_or_own, fetch_own
from app.customers.store import customers
from app.customers.ways_of_paying import charged_method
from app.domain.ids import CustomerId, PaymentMethodId, SubscriptionId
from app.domain.payments import PaymentStep
from app.domain.snapshots import Customer, JsonObject
from app.errors import Conflict, NotFound
from app.mirror import refreshing as sync
from app.mirror.store import rows as mirror
from app.mirror.store import unreadable
from app.stripe.gateway import Fetched

Position = tuple[int, str]


async def list_payment_methods(
    context: Context, customer_id: CustomerId, *, kind: str | None, after: Position | None, limit: int
) -> list[JsonObject]:
    """Return the customer's payment methods, newest first. `kind` is Stripe's type.

    The first read of a customer fills the cache from Stripe. After that, webhooks keep it up to date.

    Raises:
        NotFound: There is no such customer.
    """
    async with context.database.reading() as connection:
        known = await customers.profile(connection, customer_id) is not None
        filled = await customers.payment_methods_filled(connection, customer_id)
    if not known:
        raise NotFound()
    if not filled:
        await _fill_payment_methods(context, customer_id)
    async with context.database.reading() as connection:
        return await customers.payment_methods(connection, customer_id, kind=kind, after=after, limit=limit)


async def _fill_payment_methods(context: Context, customer_id: CustomerId) -> None:
    page = await context.stripe.payment_methods(customer_id)
    async with context.database.transaction() as connection:
        await mirror.apply_page(connection, page.snapshots, marker=page.at)
        await unreadable.note_page(
            connection,
            "payment_method",
            read_well=[one.id for one in page.snapshots],
            reasons=page.unreadable,
        )
        await customers.note_payment_methods_filled(connection, customer_id)


async def attach(
    context: Context,
    customer_id: CustomerId,
    payment_method_id: PaymentMethodId,
    *,
    use_as_default: bool,
    operation_id: str,
) -> JsonObject:
    """Attach a payment method that no customer has yet, and return it.

    A method of this customer stays as it is.

    Raises:
        NotFound: There is no such customer or method, or the method belongs to another customer.
        PaymentRequired: The bank declined the card.
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
    """Detach a payment method, if the state at Stripe allows it now.

    Raises:
        NotFound: There is no such customer or method, or the method belongs to another customer.
        Conflict: `payment_method_in_use`: a live subscription is charged to the method, or it is the last method of a
            customer who has a live subscription.
    """
    method = await fetch_own(context, payment_method_id, customer_id)
    customer = await sync.read_through(context, "customer", customer_id)
    if not isinstance(customer, Customer) or customer.deleted:
        raise NotFound()
    live = await context.billing.live_subscriptions_of(customer_id)
    listed = await context.stripe.payment_methods(customer_id)
    charged = {charged_method(subscription, customer) for subscription in live}
    is_last = listed.ids.keys() | listed.unreadable.keys() <= {method.id}
    if live and (is_last or method.id in charged):
        raise Conflict(
            "A live subscription is charged to this payment method. Make another one the default first.",
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
    """Make a payment method the default, and return it.

    It becomes the default of the customer and of their live subscriptions. A subscription that has its own method or
    source is changed too, because Stripe would charge that one first. The subscriptions are listed by Stripe, so one
    whose webhook has not arrived yet is changed as well. An `incomplete` subscription is left out, because Stripe does
    not change its payment method.

    Raises:
        NotFound: There is no such method, or it belongs to another customer.
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
    """Create a SetupIntent, and return its id and what the page has to confirm.

    Raises NotFound.
    """
    await _known(context, customer_id)
    return await context.billing.create_setup_intent(customer_id, idempotency_key=f"{operation_id}/setup")


async def _known(context: Context, customer_id: CustomerId) -> None:
    async with context.database.connection() as connection:
        if await customers.profile(connection, customer_id) is None:
            raise NotFound()


async def _one(context: Context, customer_id: CustomerId, payment_method_id: PaymentMethodId) -> JsonObject:
    await list_payment_methods(context, customer_id, kind=None, after=None, limit=1)
    async with context.database.connection() as connection:
        found = await customers.payment_method(connection, customer_id, payment_method_id)
    if found is None:
        raise NotFound("There is no such payment method.")
    return found
