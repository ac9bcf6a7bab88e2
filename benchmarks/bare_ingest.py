"""The reference for ingest: Starlette and asyncpg alone, and one statement for everything an event does.

It checks the signature, claims the event's id, guards against older news, and writes the subscription, with its
object as JSON, and its items. No refetch, no other kind of event, no record of what was done.
"""

from __future__ import annotations

import hashlib
import hmac
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

SCHEMA = """
    create schema if not exists bare;
    create table if not exists events (
        id text primary key, type text not null, received_at timestamptz not null default now());
    create table if not exists subscriptions (
        id text primary key, customer text, status text, currency text, cancel_at_period_end boolean,
        start_date bigint, latest_invoice text, object jsonb, event_created bigint not null);
    create index if not exists subscriptions_customer on subscriptions (customer);
    create table if not exists items (
        id text primary key, subscription text not null, price text, product text, quantity bigint,
        current_period_start bigint, current_period_end bigint);
    create index if not exists items_subscription on items (subscription);"""

STATEMENT = """
    with claimed as (
        insert into events (id, type) values ($1, $2) on conflict do nothing returning id
    ), written as (
        insert into subscriptions as s (id, customer, status, currency, cancel_at_period_end, start_date,
            latest_invoice, object, event_created)
        select $3, $4, $5, $6, $7, $8, $9, $10, $11 from claimed
        on conflict (id) do update set customer = excluded.customer, status = excluded.status,
            currency = excluded.currency, cancel_at_period_end = excluded.cancel_at_period_end,
            start_date = excluded.start_date, latest_invoice = excluded.latest_invoice, object = excluded.object,
            event_created = excluded.event_created
        where s.event_created <= excluded.event_created
        returning id
    )
    insert into items (subscription, id, price, product, quantity, current_period_start, current_period_end)
    select w.id, i.id, i.price, i.product, i.quantity, i.starts, i.ends
    from written w, unnest($12::text[], $13::text[], $14::text[], $15::bigint[], $16::bigint[], $17::bigint[])
        as i(id, price, product, quantity, starts, ends)
    on conflict (id) do update set price = excluded.price, product = excluded.product,
        quantity = excluded.quantity, current_period_start = excluded.current_period_start,
        current_period_end = excluded.current_period_end"""


TOLERANCE_SECONDS = 300


def is_signed(body: bytes, header: str, secret: bytes) -> bool:
    parts = dict(part.partition("=")[::2] for part in header.split(","))
    expected = hmac.new(secret, parts["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
    return (
        hmac.compare_digest(expected, parts["v1"]) and abs(time.time() - int(parts["t"])) < TOLERANCE_SECONDS
    )


async def receive(request: Request) -> Response:
    body = await request.body()
    if not is_signed(body, request.headers["stripe-signature"], request.app.state.secret):
        return Response(status_code=400)
    event = orjson.loads(body)
    found = event["data"]["object"]
    items = found["items"]["data"]
    pool: asyncpg.Pool[asyncpg.Record] = request.app.state.pool
    async with pool.acquire() as connection:
        await connection.execute(
            STATEMENT,
            event["id"],
            event["type"],
            found["id"],
            found["customer"],
            found["status"],
            found["currency"],
            found["cancel_at_period_end"],
            found["start_date"],
            found["latest_invoice"],
            orjson.dumps(found).decode(),
            event["created"],
            [item["id"] for item in items],
            [item["price"]["id"] for item in items],
            [item["price"]["product"] for item in items],
            [item["quantity"] for item in items],
            [item["current_period_start"] for item in items],
            [item["current_period_end"] for item in items],
        )
    return Response(b'{"received":true}', media_type="application/json")


async def healthz(_: Request) -> Response:
    return Response(b"ok")


async def _keep_session(_: object) -> None:
    """No round trip for a reset, as in the service."""


def create(database_url: str, pool_size: int, secret: str) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.secret = secret.encode()
        async with asyncpg.create_pool(
            database_url,
            min_size=1,
            max_size=pool_size,
            reset=_keep_session,
            server_settings={"jit": "off", "search_path": "bare"},
        ) as pool:
            await pool.execute(SCHEMA)
            app.state.pool = pool
            yield

    routes = [Route("/healthz", healthz), Route("/webhooks/stripe", receive, methods=["POST"])]
    return Starlette(routes=routes, lifespan=lifespan)


if __name__ == "__main__":
    url, port, connections, signing_secret = sys.argv[1:5]
    uvicorn.run(
        create(url, int(connections), signing_secret),
        host="127.0.0.1",
        port=int(port),
        log_config=None,
        access_log=False,
        server_header=False,
    )
