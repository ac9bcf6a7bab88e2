"""A cache full of shared subscriptions: one is written by the service's own parser, and Postgres copies its rows.

So a million take a minute, and every row is what the service itself would have written.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.domain.ids import CustomerId
from app.identity import store as identities
from app.mirror.store import rows as mirror
from app.postgres.database import Connection, Database
from app.stripe.parsing import PARSERS
from testkit import servers

HOT = 1_000
"""Subscriptions that a load is about, spread evenly over all that are cached."""
MEMBERS = 3
"""Of each hot subscription; the others have their owner alone."""
MONTH = 30 * 86_400
TEMPLATE = 8_191_919
"""The number of the plan whose rows are copied: seven digits that nothing else in them repeats."""
Json = dict[str, Any]

_PLANS = (("team", "Team plan", 1200, 5), ("analytics", "Analytics", 900, 1), ("support", "Support", 2500, 1))


def subscription_id(number: int) -> str:
    return f"sub_bench{number:07}"


def owner_id(number: int) -> CustomerId:
    return CustomerId(f"cus_bench{number:07}")


def owner_subject(number: int) -> str:
    return f"bench-owner-{number:07}"


def hot_numbers(subscriptions: int) -> range:
    return range(0, subscriptions, subscriptions // HOT)


def fill(database_url: str, subscriptions: int, *, issuer: str) -> None:
    """`subscriptions` (a multiple of HOT) plans of three items, each with an owner who is linked to his login."""
    asyncio.run(_fill(database_url, subscriptions, issuer))


@contextmanager
def filled(subscriptions: int, state: Path | None) -> Iterator[tuple[str, int]]:
    """A database with so many subscriptions, for several parts of a benchmark; dropped afterwards."""
    with servers.database("bench_large", state) as url:
        print(f"A cache of {subscriptions:,} subscriptions is made…", file=sys.stderr)
        fill(url, subscriptions, issuer=servers.ISSUER)
        yield url, subscriptions


async def _fill(database_url: str, subscriptions: int, issuer: str) -> None:
    database = await Database.connect(database_url, pool_size=1)
    now = int(time.time())
    owner, *members = _people(TEMPLATE, now)
    templates: dict[str, list[Json]] = {
        "product": [_product(plan, now) for plan in _PLANS],
        "price": [_price(plan, now) for plan in _PLANS],
        "customer": [owner, *members],
        "subscription": [_subscription(TEMPLATE, now)],
    }
    try:
        async with database.unhurried() as connection:
            await connection.execute("set synchronous_commit = off; set statement_timeout = 0")
            for kind, sources in templates.items():
                # As if nothing had been heard since the beginning: any event is newer.
                await mirror.apply_page(connection, [PARSERS[kind](one) for one in sources], marker=0)
            await identities.link(
                connection, issuer, owner_subject(TEMPLATE), owner_id(TEMPLATE), by="user_id"
            )
            everyone, hot = range(subscriptions), hot_numbers(subscriptions)
            await _copy(connection, "subscriptions", "id", subscription_id(TEMPLATE), everyone)
            await _copy(connection, "customers", "id", owner["id"], everyone)
            for member in members:
                await _copy(connection, "customers", "id", member["id"], hot)
            await _copy(connection, "identities", "customer_id", owner_id(TEMPLATE), everyone)
            await _remove_template(connection)
            await connection.execute("vacuum analyze", timeout=600)
            # What was written here must not be flushed during a measurement.
            await connection.execute("checkpoint", timeout=600)
    finally:
        await database.close()


async def _copy(connection: Connection, table: str, key: str, template: str, numbers: range) -> None:
    await connection.execute(
        f"""insert into {table} select copied.* from (select to_jsonb(t)::text as row from {table} t where {key} = $1) t
        cross join generate_series($2::int, $3::int, $4::int) n
        cross join jsonb_populate_record(null::{table}, replace(t.row, $5, to_char(n, 'FM0000000'))::jsonb) copied""",
        template,
        numbers.start,
        numbers.stop - 1,
        numbers.step,
        str(TEMPLATE),
        timeout=1_800,
    )


async def _remove_template(connection: Connection) -> None:
    for table, key in (("identities", "customer_id"), ("customers", "id"), ("subscriptions", "id")):
        await connection.execute(f"delete from {table} where {key} like '%' || $1 || '%'", str(TEMPLATE))


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
        "metadata": {"billing_sellable": "true"},
    }


def _people(number: int, now: int) -> list[Json]:
    owner = {
        "id": owner_id(number),
        "created": now,
        "name": f"Owner {number:07}",
        "email": f"owner{number:07}@example.com",
        "metadata": {"billing_user_id": owner_subject(number)},
    }
    members = [
        {
            "id": f"cus_bench{number:07}m{position}",
            "created": now,
            "name": f"Member {position} of {number:07}",
            "email": f"member{position}.{number:07}@example.com",
            "metadata": {
                "billing_shared_subscription_id": subscription_id(number),
                "billing_shared_subscription_role": "manager" if position == 0 else "user",
            },
        }
        for position in range(MEMBERS)
    ]
    return [owner, *members]


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
