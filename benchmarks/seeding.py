"""A cache full of shared subscriptions, written by the service's own parser and statements."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from itertools import islice
from typing import Any

from app.cache import identities, mirror
from app.cache.database import Database
from app.domain.ids import CustomerId
from app.stripe_gateway.parsing import PARSERS

MEMBERS = 3
CHUNK = 1_000
MONTH = 30 * 86_400
Json = dict[str, Any]

_PLANS = (("team", "Team plan", 1200, 5), ("analytics", "Analytics", 900, 1), ("support", "Support", 2500, 1))


def subscription_id(number: int) -> str:
    return f"sub_bench{number:07}"


def owner_id(number: int) -> CustomerId:
    return CustomerId(f"cus_bench{number:07}")


def owner_subject(number: int) -> str:
    return f"bench-owner-{number:07}"


def fill(database_url: str, subscriptions: int, *, issuer: str) -> None:
    """`subscriptions` plans of three items, each with an owner, who is linked to his login, and `MEMBERS` members."""
    asyncio.run(_fill(database_url, subscriptions, issuer))


async def _fill(database_url: str, subscriptions: int, issuer: str) -> None:
    database = await Database.connect(database_url, pool_size=1)
    now = int(time.time())
    kinds = {
        "product": (_product(plan, now) for plan in _PLANS),
        "price": (_price(plan, now) for plan in _PLANS),
        "customer": (customer for number in range(subscriptions) for customer in _people(number, now)),
        "subscription": (_subscription(number, now) for number in range(subscriptions)),
    }
    try:
        for kind, sources in kinds.items():
            await _write(database, kind, sources, now)
        async with database.transaction() as connection:
            for number in range(subscriptions):
                await identities.link(connection, issuer, owner_subject(number), owner_id(number))
        async with database.connection() as connection:
            await connection.execute("vacuum analyze")
    finally:
        await database.close()


async def _write(database: Database, kind: str, sources: Iterable[Json], marker: int) -> None:
    parse = PARSERS[kind]
    for chunk in chunks(sources):
        async with database.transaction() as connection:
            await mirror.apply_page(connection, [parse(source) for source in chunk], marker=marker)


def chunks(sources: Iterable[Json]) -> Iterable[tuple[Json, ...]]:
    rows = iter(sources)
    while chunk := tuple(islice(rows, CHUNK)):
        yield chunk


def _product(plan: tuple[str, str, int, int], now: int) -> Json:
    name, title, _, _ = plan
    marks = {"billing_sellable": "true"}
    if name == "team":
        marks["billing_supports_shared_subscriptions"] = "true"
    return {"id": f"prod_{name}", "created": now, "name": title, "metadata": marks}


def _price(plan: tuple[str, str, int, int], now: int) -> Json:
    name, title, amount, _ = plan
    return {
        "id": f"price_{name}",
        "created": now,
        "product": f"prod_{name}",
        "currency": "usd",
        "type": "recurring",
        "unit_amount": amount,
        "unit_amount_decimal": str(amount),
        "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed"},
        "nickname": f"{title} monthly",
    }


def _people(number: int, now: int) -> Iterable[Json]:
    yield {
        "id": owner_id(number),
        "created": now,
        "name": f"Owner {number}",
        "email": f"owner{number}@example.com",
        "metadata": {"billing_user_id": owner_subject(number)},
    }
    for position in range(MEMBERS):
        yield {
            "id": f"cus_bench{number:07}m{position}",
            "created": now,
            "name": f"Member {position} of {number}",
            "email": f"member{position}.{number}@example.com",
            "metadata": {
                "billing_shared_subscription_id": subscription_id(number),
                "billing_shared_subscription_role": "manager" if position == 0 else "user",
            },
        }


def _subscription(number: int, now: int) -> Json:
    return {
        "id": subscription_id(number),
        "created": now,
        "customer": owner_id(number),
        "status": "active",
        "currency": "usd",
        "start_date": now,
        "billing_cycle_anchor": now,
        "billing_mode": {"type": "flexible"},
        "collection_method": "charge_automatically",
        "latest_invoice": f"in_bench{number:07}",
        "metadata": {"billing_shared_subscription_owner": owner_id(number)},
        "items": {
            "has_more": False,
            "data": [
                {
                    "id": f"si_bench{number:07}{name}",
                    "price": {"id": f"price_{name}", "product": f"prod_{name}"},
                    "quantity": quantity,
                    "current_period_start": now,
                    "current_period_end": now + MONTH,
                }
                for name, _, _, quantity in _PLANS
            ],
        },
    }
