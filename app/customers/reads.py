"""Reads that need no more than one look into the cache: products, invoices, payment methods."""

from __future__ import annotations

from babel.numbers import get_territory_currencies

from app.cache import catalogue, customers, identities, invoices, mirror, subscriptions
from app.domain import currencies
from app.domain.ids import CustomerId, InvoiceId, SubscriptionId
from app.domain.roles import Permission
from app.domain.snapshots import JsonObject
from app.errors import NotFound
from app.services.actors import Actor
from app.services.context import Context
from app.services.subscriptions import see

Position = tuple[int, str]


async def named_products(
    context: Context, ids: list[str], *, on_sale_only: bool
) -> tuple[list[JsonObject], list[str]]:
    """Return products in the asked order with their active prices, and the ids that name none.

    `on_sale_only`: show what is on sale, and nothing else.
    """
    async with context.database.connection() as connection:
        found = await catalogue.named_products(
            connection, ids, open_catalogue=context.rules.open_catalogue, on_sale_only=on_sale_only
        )
    present = {product["id"] for product in found}
    return found, [product_id for product_id in ids if product_id not in present]


async def offered_products(context: Context, *, after: Position | None, limit: int) -> list[JsonObject]:
    async with context.database.connection() as connection:
        return await catalogue.offered_products(
            connection, open_catalogue=context.rules.open_catalogue, after=after, limit=limit
        )


async def local_currency(
    context: Context,
    customer_id: CustomerId | None,
    *,
    chosen: str | None,
    country: str | None,
    products: list[JsonObject],
) -> str | None:
    """The currency to show these products in; `country` is the caller's word, nothing is guessed from addresses."""
    profile = None
    if customer_id is not None:
        async with context.database.connection() as connection:
            profile = await customers.profile(connection, customer_id)
    prices = [price for product in products for price in product["prices"]]
    return currencies.local_currency(
        fixed=None if profile is None else profile["fixed_currency"],
        chosen=chosen,
        of_country=None if country is None else _currency_of(country),
        offered={
            currency
            for price in prices
            for currency in (price["currency"], *(price["currency_options"] or {}))
        },
    )


def _currency_of(country: str) -> str | None:
    """The legal tender of today, from CLDR."""
    found = get_territory_currencies(country)
    return found[0].lower() if found else None


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
