"""The reference for reads: Starlette and asyncpg alone, one join, no authentication, no model, no metrics.

It answers the same JSON as `getSharedSubscription` answers to an owner, with the same server settings; whatever
the service needs beyond this is what its features cost.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.commands.child_processes import watch_parent
from app.settings import parent_pipe

JOIN = """
    select s.id, s.customer_id, s.status, s.currency, s.created, s.start_date, s.trial_start, s.trial_end,
        s.cancel_at, s.cancel_at_period_end, s.canceled_at, s.ended_at, s.billing_mode, s.latest_invoice_id,
        s.default_payment_method_id, s.collection_method, s.pause_collection, s.schedule_id, s.discount_details,
        s.synced_at, o.id as owner_id, o.email as owner_email, o.name as owner_name,
        (select count(*) from memberships m where m.subscription_id = s.id) as members,
        (select count(*) from reservations v where v.subscription_id = s.id and v.released_at is null) as reserved,
        i.id as item_id, i.quantity, i.current_period_start, i.current_period_end, i.price_id, i.product_id,
        p.name as product_name, p.supports_sharing, r.currency as price_currency, r.billing_scheme,
        r.recurring, r.unit_amount, r.unit_amount_decimal, r.tiers_mode, r.tiers, r.transform_quantity
    from subscriptions s
    left join customers o on o.id = s.owner_id
    cross join lateral jsonb_to_recordset(s.items) as i(id text, quantity bigint, price_id text, product_id text,
        current_period_start bigint, current_period_end bigint)
    join prices r on r.id = i.price_id
    join products p on p.id = i.product_id
    where s.id = $1"""


def _decode(data: bytes) -> Any:
    return orjson.loads(memoryview(data)[1:])


async def _prepare(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=lambda _: b"", decoder=_decode, format="binary"
    )


async def _keep_session(_: object) -> None:
    """No round trip for a reset, as in the service."""


def _instant(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _item(row: asyncpg.Record) -> dict[str, Any]:
    return {
        "id": row["item_id"],
        "price": {
            "id": row["price_id"],
            "currency": row["price_currency"],
            "billing_scheme": row["billing_scheme"],
            "recurring": row["recurring"],
            "unit_amount": row["unit_amount"],
            "unit_amount_decimal": row["unit_amount_decimal"],
            "tiers_mode": row["tiers_mode"],
            "tiers": row["tiers"],
            "transform_quantity": row["transform_quantity"],
        },
        "product": {
            "id": row["product_id"],
            "name": row["product_name"],
            "supports_shared_subscriptions": row["supports_sharing"],
        },
        "quantity": row["quantity"],
        "current_period_start": _instant(row["current_period_start"]),
        "current_period_end": _instant(row["current_period_end"]),
    }


def _subscription(rows: list[asyncpg.Record]) -> dict[str, Any]:
    first = rows[0]
    total = sum(row["quantity"] for row in rows if row["supports_sharing"])
    used, reserved = first["members"], first["reserved"]
    return {
        "id": first["id"],
        "customer_id": first["customer_id"],
        "status": first["status"],
        "role": "owner",
        "currency": first["currency"],
        "items": [_item(row) for row in rows],
        "shared": {
            "owner": {
                "customer_id": first["owner_id"],
                "email": first["owner_email"],
                "name": first["owner_name"],
            },
            "seats": {
                "total": total,
                "used": used,
                "reserved": reserved,
                "available": max(0, total - used - reserved),
                "over_allocated": max(0, used + reserved - total),
            },
            "owner_may_purchase": first["owner_id"] == first["customer_id"],
        },
        "created": _instant(first["created"]),
        "start_date": _instant(first["start_date"]),
        "trial_start": _instant(first["trial_start"]),
        "trial_end": _instant(first["trial_end"]),
        "cancel_at": _instant(first["cancel_at"]),
        "cancel_at_period_end": first["cancel_at_period_end"],
        "canceled_at": _instant(first["canceled_at"]),
        "ended_at": _instant(first["ended_at"]),
        "billing_mode": first["billing_mode"],
        "collection_method": first["collection_method"],
        "pause_collection": first["pause_collection"],
        "schedule_id": first["schedule_id"],
        "discounts": first["discount_details"] or [],
        "latest_invoice_id": first["latest_invoice_id"],
        "default_payment_method_id": first["default_payment_method_id"],
        "synced_at": first["synced_at"],
    }


async def shared_subscription(request: Request) -> Response:
    pool: asyncpg.Pool[asyncpg.Record] = request.app.state.pool
    async with pool.acquire() as connection:
        rows = await connection.fetch(JOIN, request.path_params["subscription_id"])
    if not rows:
        return Response(status_code=404)
    body = orjson.dumps({"subscription": _subscription(rows)}, option=orjson.OPT_UTC_Z)
    return Response(body, media_type="application/json")


async def healthz(_: Request) -> Response:
    return Response(b"ok")


def create(database_url: str, pool_size: int) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with asyncpg.create_pool(
            database_url,
            min_size=1,
            max_size=pool_size,
            init=_prepare,
            reset=_keep_session,
            server_settings={"jit": "off"},
        ) as pool:
            app.state.pool = pool
            yield

    routes = [
        Route("/healthz", healthz),
        Route("/v1/shared-subscriptions/{subscription_id}", shared_subscription),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


if __name__ == "__main__":
    watch_parent(parent_pipe())
    url, port, connections = sys.argv[1:4]
    uvicorn.run(
        create(url, int(connections)),
        host="127.0.0.1",
        port=int(port),
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=32 * 1024,
    )
