"""`python -m verification.convergence.bursts`: the fetches that events cost, and when the cache is current.

A burst: 5,000 events about one object, 200 a second, while a read at Stripe takes 200 ms. Calm: changes of each
object at least 8 s apart, delivered within a few seconds. The service's own code on PostgreSQL, in virtual time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import orjson

from app.commands.logs import configure_logs
from app.context import Context, Rules
from app.mirror import refreshing as sync
from app.mirror import webhooks
from app.mirror.ingest import Ingest
from app.mirror.store import refreshes
from app.settings import load_settings
from app.stripe import parsing
from app.stripe.client import API_VERSION
from app.stripe.gateway import Fetched
from testkit import servers
from verification.convergence import virtual_time
from verification.convergence.convergence import SECRET, signed
from verification.convergence.virtual_time import VirtualLoop

READ_SECONDS = 0.2
POLL_SECONDS = 0.2
"""As often as an idle worker looks."""
CALM_SECONDS = (8.0, 20.0)
DELIVERY_SECONDS = (0.1, 3.0)
BARS = {"fetches": 20, "current_after": 5.0, "fetches_an_event": 0.1}


@dataclass(frozen=True, slots=True)
class Burst:
    """`current_after`: virtual seconds from the last delivery until the cache shows the last version."""

    events: int
    fetches: int
    current_after: float


@dataclass(frozen=True, slots=True)
class Calm:
    events: int
    fetches: int

    @property
    def fetches_an_event(self) -> float:
        return self.fetches / self.events


class Stripe:
    """Customers whose name is the number of their version."""

    def __init__(self) -> None:
        self.versions: dict[str, int] = {}
        self.fetches = 0

    def change(self, object_id: str) -> dict[str, Any]:
        """The next version, as the event that tells of it."""
        self.versions[object_id] = self.versions.get(object_id, 0) + 1
        return {
            "id": f"evt_{object_id}_{self.versions[object_id]}",
            "object": "event",
            "type": "customer.updated",
            "created": math.floor(asyncio.get_running_loop().time()),
            "api_version": API_VERSION,
            "livemode": False,
            "data": {"object": self._payload(object_id)},
        }

    def _payload(self, object_id: str) -> dict[str, Any]:
        name = str(self.versions[object_id])
        return {"id": object_id, "object": "customer", "created": 1, "name": name, "metadata": {}}

    async def fetch(self, kind: str, object_id: str) -> Fetched:
        self.fetches += 1
        await asyncio.sleep(READ_SECONDS / 2)
        found = Fetched(
            parsing.PARSERS[kind](self._payload(object_id)), math.floor(asyncio.get_running_loop().time())
        )
        await asyncio.sleep(READ_SECONDS / 2)
        return found


@asynccontextmanager
async def _service(database_url: str, stripe: Stripe) -> AsyncIterator[Context]:
    """A context, and a worker that drains the refresh table as the service's does."""
    settings = load_settings(servers.service_environment(database_url, 8000))
    database = await virtual_time.connect(database_url, pool_size=8)
    gateway: Any = stripe
    context = Context(database, gateway, cast(Any, None), Rules.of(settings))
    under_way: set[asyncio.Task[Any]] = set()

    async def work() -> None:
        while True:
            async with database.connection() as connection:
                leases = await refreshes.due(connection, limit=8, lease_seconds=context.rules.operation_lease)
            for lease in leases:
                task = asyncio.create_task(sync.refresh(context, lease))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            await asyncio.sleep(POLL_SECONDS)

    worker = asyncio.create_task(work())
    try:
        yield context
    finally:
        worker.cancel()
        await asyncio.gather(worker, *under_way, return_exceptions=True)
        with virtual_time.virtual_loop().real_wait():
            await database.close()


async def _deliver(context: Context, ingest: Ingest, event: dict[str, Any], delay: float) -> None:
    await asyncio.sleep(delay)
    body = orjson.dumps(event)
    await webhooks.receive(
        context, ingest, body=body, signature=signed(body), secrets=[SECRET], livemode=False
    )


async def _shown(context: Context, object_id: str) -> str | None:
    async with context.database.connection() as connection:
        name: str | None = await connection.fetchval("select name from customers where id = $1", object_id)
        return name


async def burst(database_url: str, *, events: int, per_second: int) -> Burst:
    stripe = Stripe()
    loop = asyncio.get_running_loop()
    ingest = Ingest()
    async with _service(database_url, stripe) as context:
        deliveries = []
        started = loop.time()
        for number in range(events):
            await asyncio.sleep(max(0.0, started + number / per_second - loop.time()))
            deliveries.append(asyncio.create_task(_deliver(context, ingest, stripe.change("cus_burst"), 0.0)))
        await asyncio.gather(*deliveries)
        last = loop.time()
        async with asyncio.timeout(60):
            while await _shown(context, "cus_burst") != str(events):  # noqa: ASYNC110  # a row tells nobody
                await asyncio.sleep(0.05)
        current_after = loop.time() - last
        await asyncio.sleep(10.0)
    return Burst(events, stripe.fetches, round(current_after, 2))


async def calm(database_url: str, *, objects: int, changes: int, seed: int = 1) -> Calm:
    """Raises AssertionError when an object is not current in the end."""
    stripe = Stripe()
    rng = random.Random(seed)
    ingest = Ingest()
    async with _service(database_url, stripe) as context:

        async def life(object_id: str) -> None:
            for _ in range(changes):
                event = stripe.change(object_id)
                await asyncio.gather(
                    _deliver(context, ingest, event, rng.uniform(*DELIVERY_SECONDS)),
                    asyncio.sleep(rng.uniform(*CALM_SECONDS)),
                )

        await asyncio.gather(*(life(f"cus_calm{number}") for number in range(objects)))
        await asyncio.sleep(10.0)
        for object_id, version in stripe.versions.items():
            shown = await _shown(context, object_id)
            if shown != str(version):
                raise AssertionError(f"{object_id} shows {shown} and is at {version}")
    return Calm(objects * changes, stripe.fetches)


async def both(database_url: str, *, events: int, objects: int) -> tuple[Burst, Calm]:
    await virtual_time.install_clock(database_url)
    return (
        await burst(database_url, events=events, per_second=200),
        await calm(database_url, objects=objects, changes=10),
    )


def run(database_url: str, *, events: int, objects: int) -> tuple[Burst, Calm]:
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(tick=0.005)) as runner:
        return runner.run(both(database_url, events=events, objects=objects))


def main() -> int:
    parser = argparse.ArgumentParser(prog="verification.convergence.bursts", description=__doc__)
    parser.add_argument("--events", type=int, default=5_000, help="events of the burst (default 5000)")
    parser.add_argument("--objects", type=int, default=300, help="objects of the calm part, ten changes each")
    parser.add_argument("--state", type=Path, help="keep the benchmarks' PostgreSQL in this directory")
    given = parser.parse_args()
    configure_logs("critical")
    started = time.monotonic()
    with servers.database("bench_bursts", given.state, fast=True) as url:
        one, other = run(url, events=given.events, objects=given.objects)
    met = (
        one.fetches <= BARS["fetches"]
        and one.current_after <= BARS["current_after"]
        and other.fetches_an_event <= BARS["fetches_an_event"]
    )
    print(
        f"burst: {one.events} events, {one.fetches} fetches, current {one.current_after:g} s after the last"
    )
    print(f"calm: {other.events} events, {other.fetches_an_event:.3f} fetches an event")
    print(f"{time.monotonic() - started:.0f} s: {'met' if met else 'MISSED'}")
    print(json.dumps({"benchmark": "bursts", "met": met, "burst": asdict(one), "calm": asdict(other)}))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
