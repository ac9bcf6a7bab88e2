"""What the cache must hold once it has come to rest: the stand-in's objects, read by GETs and parsed as ever."""

import asyncio
from collections.abc import Iterable
from typing import Any

import asyncpg
import orjson

from app.mirror.store.rows import MIRRORS
from app.stripe import parsing
from app.stripe.gateway import DISCOUNT_EXPANDS
from testkit.simulator import Simulator

PLURALS = {
    "product": "products",
    "price": "prices",
    "customer": "customers",
    "subscription": "subscriptions",
    "payment_method": "payment_methods",
    "invoice": "invoices",
}
DELETED = {"existence": "deleted", "terminal": True}


async def whole_list(simulator: Simulator, path: str, **fields: Any) -> list[Any]:
    """Every object of a list, newest first."""
    found: list[Any] = []
    while True:
        after = {"starting_after": found[-1]["id"]} if found else {}
        page = await simulator.get(path, limit=100, **fields, **after)
        found += page["data"]
        if not page["has_more"]:
            return found


async def expected_row(simulator: Simulator, kind: str, state: Any) -> dict[str, Any]:
    """The columns that the row of an object must have, apart from those of the sync rule."""
    object_id = state["id"]
    path = f"/v1/{PLURALS[kind]}/{object_id}"
    if state.get("deleted"):
        return {"id": object_id, **DELETED}
    snapshot: Any
    if kind == "subscription":
        discounts = [*DISCOUNT_EXPANDS, "discounts.source.coupon.currency_options"]
        items = await whole_list(simulator, "/v1/subscription_items", subscription=object_id)
        snapshot = parsing.subscription(await simulator.get(path, expand=discounts), items)
    elif kind == "invoice":
        snapshot = parsing.invoice(await simulator.get(path), await whole_list(simulator, f"{path}/lines"))
    elif kind == "price":
        options = (await simulator.get(path, expand=["currency_options"]))["currency_options"]
        tiers = [f"currency_options.{currency}.tiers" for currency in options]
        shown = await simulator.get(path, expand=["tiers", "currency_options", *tiers])
        snapshot = parsing.price(shown)
    else:
        snapshot = parsing.PARSERS[kind](state)
    row = MIRRORS[kind].row(snapshot, 0)
    del row["marker"]
    # Through JSON, as the cache stores it: snapshots hold dataclasses inside.
    plain: dict[str, Any] = orjson.loads(orjson.dumps(row))
    return plain


async def cached_rows(
    database_url: str, kind: str, ids: Iterable[str] | None = None
) -> dict[str, dict[str, Any]]:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=str, decoder=orjson.loads)
        wanted = None if ids is None else sorted(ids)
        rows = await connection.fetch(
            f"select * from {MIRRORS[kind].table} where $1::text[] is null or id = any($1)", wanted
        )
    finally:
        await connection.close()
    return {row["id"]: dict(row) for row in rows}


async def differences(simulator: Simulator, database_url: str) -> list[str]:
    """In words, where the cache differs from the account: missing and superfluous rows, and columns that differ."""
    found: list[str] = []
    for kind in MIRRORS:
        truth = {source["id"]: source for source in await simulator.state(kind)}
        cached = await cached_rows(database_url, kind)
        for object_id in truth.keys() - cached.keys():
            source = truth[object_id]
            # An object that is gone needs no row, and a card that was never attached is nobody's.
            if not source.get("deleted") and not (kind == "payment_method" and source["customer"] is None):
                found.append(f"{kind} {object_id} is not cached")
        found += [
            f"{kind} {object_id} is cached and does not exist"
            for object_id in cached.keys() - truth.keys()
            if cached[object_id]["existence"] == "present"
        ]
        for object_id in truth.keys() & cached.keys():
            row = cached[object_id]
            expected = await expected_row(simulator, kind, truth[object_id])
            found += [
                f"{kind} {object_id} {name}: {_told_apart(row[name], value)}"
                for name, value in expected.items()
                if row[name] != value
            ]
    return found


def _told_apart(cached: Any, true: Any) -> str:
    if isinstance(cached, list) and isinstance(true, list):
        only_cached = [entry for entry in cached if entry not in true]
        only_true = [entry for entry in true if entry not in cached]
        if only_cached or only_true:
            cached, true = only_cached, only_true
    return f"cached {cached!r}, true {true!r}"


async def at_rest(simulator: Simulator, database_url: str, *, within: float = 20.0) -> None:
    """Return once every delivery has arrived, no refresh is wanted and the cache is the truth, row for row.

    Raises AssertionError with the differences if that is not so `within` seconds.
    """
    deadline = asyncio.get_running_loop().time() + within
    while True:
        waiting = [f"{n} deliveries" for n in [(await simulator.deliveries())["pending"]] if n]
        waiting += [f"refresh of {name}" for name in await wanted_refreshes(database_url)]
        if not waiting and not (waiting := await differences(simulator, database_url)):
            return
        assert asyncio.get_running_loop().time() < deadline, "\n".join(waiting[:20])
        await asyncio.sleep(0.1)


async def wanted_refreshes(database_url: str) -> list[str]:
    """Objects that are to be fetched, and those that somebody holds. What a killed process held is free by itself."""
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            "select id from refreshes where notifications > 0 or lease_until > clock_timestamp() order by id"
        )
    finally:
        await connection.close()
    return [row["id"] for row in rows]
