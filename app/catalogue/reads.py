"""Read products and prices from the cache."""

from __future__ import annotations

from babel.numbers import get_territory_currencies

from app.catalogue import currencies
from app.catalogue import store as catalogue
from app.context import Context
from app.customers.store import customers
from app.domain.ids import CustomerId
from app.domain.snapshots import JsonObject

Position = tuple[int, str]


async def named_products(
    context: Context, ids: list[str], *, on_sale_only: bool
) -> tuple[list[JsonObject], list[str]]:
    """Return the products of `ids` with their active prices, and the unknown ids.

    The products are in the order of `ids`. With `on_sale_only`, products and prices that are not on sale are left out.
    """
    async with context.database.reading() as connection:
        found = await catalogue.named_products(
            connection, ids, open_catalogue=context.rules.open_catalogue, on_sale_only=on_sale_only
        )
    present = {product["id"] for product in found}
    return found, [product_id for product_id in ids if product_id not in present]


async def offered_products(context: Context, *, after: Position | None, limit: int) -> list[JsonObject]:
    """Return the products on sale, newest first, each with its prices on sale."""
    async with context.database.reading() as connection:
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
    """Return the currency in which to show these products, or None.

    `country` is an ISO 3166-1 code that the caller gave. It is never derived from an address.
    """
    profile = None
    if customer_id is not None:
        async with context.database.reading() as connection:
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
    """Return the current legal tender of a country, according to CLDR."""
    found = get_territory_currencies(country)
    return found[0].lower() if found else None
