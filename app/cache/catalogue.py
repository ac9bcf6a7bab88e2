"""Reads of products with their active prices."""

from __future__ import annotations

from app.cache.database import Connection, Record
from app.domain.ids import PriceId
from app.domain.plan_changes import OfferedPrice
from app.domain.snapshots import JsonObject

_PRODUCTS = """
    select p.id, p.name, p.description, p.active, p.images, p.unit_label, p.default_price_id, p.created,
        p.supports_sharing as supports_shared_subscriptions, p.sellable, p.synced_at,
        coalesce((select jsonb_agg(jsonb_build_object(
                'id', r.id, 'currency', r.currency, 'type', r.type, 'billing_scheme', r.billing_scheme,
                'unit_amount', r.unit_amount, 'unit_amount_decimal', r.unit_amount_decimal,
                'recurring', r.recurring, 'tiers_mode', r.tiers_mode, 'tiers', r.tiers,
                'transform_quantity', r.transform_quantity, 'currency_options', r.currency_options,
                'tax_behavior', r.tax_behavior, 'lookup_key', r.lookup_key, 'nickname', r.nickname)
                order by r.created, r.id)
            from prices r where r.product_id = p.id and r.active and r.presence = 'present'), '[]') as prices
    from products p
    where p.presence = 'present' and """

_NAMED = _PRODUCTS + "p.id = any($1) order by array_position($1, p.id)"
_OFFERED = (
    _PRODUCTS
    + """p.active and (p.sellable or $1) and ($2::bigint is null or (p.created, p.id) < ($2, $3))
    order by p.created desc, p.id desc limit $4"""
)


async def named_products(connection: Connection, ids: list[str]) -> list[JsonObject]:
    """In the asked order; ids that name nothing are simply not there."""
    return [dict(row) for row in await connection.fetch(_NAMED, ids)]


async def offered_products(
    connection: Connection, *, unlisted_too: bool, after: tuple[int, str] | None, limit: int
) -> list[JsonObject]:
    """Active products, newest first: those marked sellable, or all in an open catalogue."""
    created, product_id = after or (None, None)
    return [dict(row) for row in await connection.fetch(_OFFERED, unlisted_too, created, product_id, limit)]


_PRICES = """
    select r.id, r.active, r.currency, r.recurring, r.currency_options, r.type,
        coalesce(p.active and p.presence = 'present', false) as product_active,
        coalesce(p.sellable, false) as sellable, coalesce(p.supports_sharing, false) as shareable,
        p.owner_uses_seat
    from prices r left join products p on p.id = r.product_id
    where r.id = any($1) and r.presence = 'present'"""


async def prices_for_purchase(connection: Connection, ids: list[str]) -> dict[PriceId, OfferedPrice]:
    """The prices that exist, each with what of its product decides whether it may be bought."""
    return {PriceId(row["id"]): _offered(row) for row in await connection.fetch(_PRICES, ids)}


def _offered(row: Record) -> OfferedPrice:
    recurring = row["recurring"] or {}
    return OfferedPrice(
        id=PriceId(row["id"]),
        active=row["active"],
        product_active=row["product_active"],
        sellable=row["sellable"],
        recurring=bool(recurring),
        metered=recurring.get("usage_type") == "metered",
        interval=(recurring["interval"], recurring["interval_count"]) if recurring else None,
        currency=row["currency"],
        currencies=frozenset({row["currency"], *(row["currency_options"] or {})}),
        shareable=row["shareable"],
        owner_uses_seat=row["owner_uses_seat"],
    )
