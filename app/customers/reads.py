"""Reads of invoices and payment methods from the cache."""

from __future__ import annotations

from app.context import Context
from app.customers.store import customers, invoices
from app.domain.ids import CustomerId, InvoiceId, SubscriptionId
from app.domain.roles import Permission
from app.domain.snapshots import JsonObject
from app.errors import NotFound
from app.identity import store as identities
from app.identity.actors import Actor
from app.mirror.store import rows as mirror
from app.mirror.store import subscriptions
from app.mirror.visibility import see

Position = tuple[int, str]


async def customer_invoices(
    context: Context,
    customer_id: CustomerId,
    *,
    subscription_id: SubscriptionId | None,
    status: str | None,
    after: Position | None,
    limit: int,
) -> list[JsonObject]:
    """Newest first. Raises NotFound for a customer who is not there."""
    async with context.database.connection() as connection:
        found = await invoices.customer_invoices(
            connection, customer_id, subscription_id=subscription_id, status=status, after=after, limit=limit
        )
        if not found and not await identities.is_present(connection, customer_id):
            raise NotFound()
    return found


async def invoice(context: Context, actor: Actor, invoice_id: InvoiceId) -> JsonObject:
    """Its payer sees an invoice, and whoever may see the amounts of the subscription that it bills."""
    async with context.database.connection() as connection:
        found = await invoices.invoice(connection, invoice_id)
        if found is not None and (
            actor.is_service or (actor.customer_id is not None and found["customer_id"] == actor.customer_id)
        ):
            return found
        # Looked for with an absent invoice too: the time of the answer must tell no more than its bytes.
        billed = SubscriptionId((found or {}).get("subscription_id") or "")
        view = await subscriptions.subscription_view(connection, billed, asker=actor.customer_id)
    seen = None if view is None else see(view, actor, context.rules)
    if found is None or seen is None or Permission.SEE_AMOUNTS not in seen.granted:
        raise NotFound()
    return found


async def payment_methods(
    context: Context, customer_id: CustomerId, *, kind: str | None, after: Position | None, limit: int
) -> list[JsonObject]:
    """Filled from Stripe at a customer's first read, kept by webhooks from then on."""
    async with context.database.connection() as connection:
        known = await customers.profile(connection, customer_id) is not None
        filled = await customers.payment_methods_filled(connection, customer_id)
    if not known:
        raise NotFound()
    if not filled:
        await _fill_payment_methods(context, customer_id)
    async with context.database.connection() as connection:
        return await customers.payment_methods(connection, customer_id, kind=kind, after=after, limit=limit)


async def _fill_payment_methods(context: Context, customer_id: CustomerId) -> None:
    found, at = await context.stripe.payment_methods(customer_id)
    async with context.database.transaction() as connection:
        await mirror.apply_page(connection, found, marker=at)
        await customers.note_payment_methods_filled(connection, customer_id)
