"""SQL statements that read products with their prices, and those on sale."""

from __future__ import annotations

from app.catalogue.offers import OfferedPrice
from app.domain.ids import PriceId
from app.domain.snapshots import JsonObject
from app.postgres.database import Connection, Record

# A price is on sale if its own metadata says so, or if it is the default price of a product whose metadata says so
# (docs/reference/metadata.md). In an open catalogue every active price is on sale, unless its metadata says no.
# `{open}` is a boolean expression of the statement.
_ON_SALE = """(r.active and r.existence = 'present' and p.active and p.existence = 'present'
    and coalesce(r.sellable, {open} or (p.sellable and p.default_price_id = r.id), false))"""

# $1: the catalogue is open. $2: leave out products and prices that are not on sale.
_ON_SALE_HERE = _ON_SALE.format(open="$1::boolean")
_PRODUCTS = f"""
    select p.id, p.name, p.description, p.active, p.images, p.unit_label, p.default_price_id, p.created,
        p.supports_sharing as supports_shared_subscriptions, p.sellable, p.synced_at,
        coalesce((select jsonb_agg(jsonb_build_object(
                'id', r.id, 'currency', r.currency, 'type', r.type, 'billing_scheme', r.billing_scheme,
                'unit_amount', r.unit_amount, 'unit_amount_decimal', r.unit_amount_decimal,
                'recurring', r.recurring, 'tiers_mode', r.tiers_mode, 'tiers', r.tiers,
                'transform_quantity', r.transform_quantity, 'currency_options', r.currency_options,
                'tax_behavior', r.tax_behavior, 'lookup_key', r.lookup_key, 'nickname', r.nickname)
                order by r.created, r.id)
            from prices r where r.product_id = p.id and r.active and r.existence = 'present'
                and (not $2::boolean or {_ON_SALE_HERE})), '[]') as prices
    from products p
    where p.existence = 'present'
        and (not $2::boolean or exists (select from prices r where r.product_id = p.id and {_ON_SALE_HERE})) and """

_NAMED = _PRODUCTS + "p.id = any($3) order by array_position($3, p.id)"
_OFFERED = (
    _PRODUCTS
    + """($3::bigint is null or (p.created, p.id) < ($3, $4)) order by p.created desc, p.id desc limit $5"""
)


async def named_products(
    connection: Connection, ids: list[str], *, open_catalogue: bool, on_sale_only: bool
) -> list[JsonObject]:
    """Return products in the order of `ids`, without those that do not exist.

    With `on_sale_only`, products and prices that are not on sale are left out.
    """
    rows = await connection.fetch(_NAMED, open_catalogue, on_sale_only, ids)
    return [dict(row) for row in rows]


async def offered_products(
    connection: Connection, *, open_catalogue: bool, after: tuple[int, str] | None, limit: int
) -> list[JsonObject]:
    """Return the products with prices on sale, newest first, and these prices."""
    created, product_id = after or (None, None)
    rows = await connection.fetch(_OFFERED, open_catalogue, True, created, product_id, limit)
    return [dict(row) for row in rows]


_PRICES = f"""
    select r.id, r.active, r.currency, r.recurring, r.currency_options, r.type,
        coalesce(p.active and p.existence = 'present', false) as product_active,
        coalesce({_ON_SALE.format(open="$2::boolean")}, false) as on_sale,
        coalesce(p.supports_sharing, false) as shareable,
        p.owner_uses_seat
    from prices r left join products p on p.id = r.product_id
    where r.id = any($1) and r.existence = 'present'"""


async def prices_for_purchase(
    connection: Connection, ids: list[str], *, open_catalogue: bool
) -> dict[PriceId, OfferedPrice]:
    """Return existing prices with the facts that decide whether each may be bought."""
    rows = await connection.fetch(_PRICES, ids, open_catalogue)
    return {PriceId(row["id"]): _offered(row) for row in rows}


_SAME_TERMS = f"""
    select p.id, c.currency, r.recurring ->> 'interval' as interval,
        coalesce(r.recurring ->> 'interval_count', '1') as count, array_agg(r.id order by r.id) as prices
    from products p join prices r on r.product_id = p.id
    cross join lateral (
        select r.currency union select jsonb_object_keys(coalesce(r.currency_options, '{{}}'))) c(currency)
    where r.recurring is not null and {_ON_SALE_HERE}
    group by 1, 2, 3, 4, r.recurring ->> 'usage_type' having count(*) > 1 order by 1, 3, 4, 2 limit $2"""

_NO_DEFAULT = """
    select p.id, exists (select from prices r where r.product_id = p.id and r.active and r.sellable
        and r.existence = 'present') as has_marked
    from products p
    where p.existence = 'present' and p.active and p.sellable and not exists (
        select from prices r where r.id = p.default_price_id and r.active and r.existence = 'present')
    order by p.id limit $1"""


async def same_terms(connection: Connection, *, open_catalogue: bool, limit: int) -> list[JsonObject]:
    """Return products that sell several prices for one interval and currency.

    Each row has these prices.
    """
    return [dict(row) for row in await connection.fetch(_SAME_TERMS, open_catalogue, limit)]


async def without_default(connection: Connection, *, limit: int) -> list[JsonObject]:
    """Return the products marked for sale whose default price is missing or archived."""
    return [dict(row) for row in await connection.fetch(_NO_DEFAULT, limit)]


def _offered(row: Record) -> OfferedPrice:
    recurring = row["recurring"] or {}
    return OfferedPrice(
        id=PriceId(row["id"]),
        active=row["active"],
        product_active=row["product_active"],
        on_sale=row["on_sale"],
        recurring=bool(recurring),
        metered=recurring.get("usage_type") == "metered",
        interval=(recurring["interval"], recurring["interval_count"]) if recurring else None,
        currency=row["currency"],
        currencies=frozenset({row["currency"], *(row["currency_options"] or {})}),
        shareable=row["shareable"],
        owner_uses_seat=row["owner_uses_seat"],
    )
