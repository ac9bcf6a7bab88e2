"""`python -m verification.kills.crashes`: SIGKILL for the API, the worker or PostgreSQL, every few seconds under load.

Changes of customers, 200 a second, are told of by signed deliveries that are repeated until they are answered 2xx,
as Stripe does. Afterwards every event that was acknowledged must be in the inbox, no refresh may be left over or
dead, and every row must show its customer's last change.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.commands.child_processes import ChildProcesses
from app.stripe.client import API_VERSION
from testkit import servers
from testkit.deliveries import delivery
from testkit.ports import free_port
from verification.kills.victims import Victims, empty_database

CUSTOMERS = 300
PER_SECOND = 200
SENDERS = 64
RETRY_SECONDS = 2.0
ANSWER_SECONDS = 10.0
SECRET = "whsec_bench"
REST_SECONDS = 60.0
READ_SECONDS = 0.1


@dataclass(slots=True)
class Tally:
    """`settled_after`: seconds from the last kill until nothing was left to do; None where that never came."""

    kills: dict[str, int] = field(default_factory=dict)
    events_a_second: float = 0.0
    sent: int = 0
    refused: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    dead: int = 0
    settled_after: float | None = None

    @property
    def is_met(self) -> bool:
        return not (self.lost or self.wrong or self.dead) and self.settled_after is not None


class Stripe:
    """Customers, and the reads that a refresh makes of them, over HTTP."""

    def __init__(self) -> None:
        self.versions: dict[str, int] = {f"cus_crash{number}": 0 for number in range(CUSTOMERS)}

    def change(self, object_id: str) -> dict[str, Any]:
        self.versions[object_id] += 1
        return {
            "id": f"evt_{object_id}_{self.versions[object_id]}",
            "object": "event",
            "type": "customer.updated",
            "created": int(time.time()),
            "api_version": API_VERSION,
            "livemode": False,
            "data": {"object": self._payload(object_id)},
        }

    def _payload(self, object_id: str) -> dict[str, Any]:
        name = str(self.versions[object_id])
        return {"id": object_id, "object": "customer", "created": 1, "name": name, "metadata": {}}

    async def customer(self, request: Request) -> Response:
        found = self._payload(request.path_params["object_id"])
        await asyncio.sleep(READ_SECONDS)
        return JSONResponse(found)

    async def account(self, _: Request) -> Response:
        return JSONResponse({"id": "acct_crash", "object": "account"})

    @asynccontextmanager
    async def served(self, port: int) -> AsyncIterator[None]:
        routes = [
            Route("/v1/account", self.account),
            Route("/v1/customers/{object_id}", self.customer),
        ]
        config = uvicorn.Config(Starlette(routes=routes), host="127.0.0.1", port=port, log_config=None)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve())
        try:
            yield
        finally:
            server.should_exit = True
            await task


async def _post(port: int, body: bytes) -> bool:
    """Whether the delivery was acknowledged; a connection that is refused or cut off says no."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(delivery(body, port=port, secret=SECRET))
            return b" 200 " in await reader.readline()
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.close()


async def _send(port: int, event: dict[str, Any], tally: Tally, limit: asyncio.Semaphore) -> None:
    """Until it is acknowledged."""
    body = orjson.dumps(event)
    while True:
        async with limit:
            tally.sent += 1
            acknowledged = await _post(port, body)
        if acknowledged:
            return
        tally.refused += 1
        await asyncio.sleep(RETRY_SECONDS)


async def _load(port: int, stripe: Stripe, stop: asyncio.Event, tally: Tally) -> set[str]:
    """200 changes a second; the ids of the events that were acknowledged, which in the end are all."""
    rng = random.Random(1)
    under_way: set[asyncio.Task[None]] = set()
    told: set[str] = set()
    limit = asyncio.Semaphore(SENDERS)
    object_ids = list(stripe.versions)
    started = time.monotonic()
    while not stop.is_set():
        await asyncio.sleep(max(0.0, started + len(told) / PER_SECOND - time.monotonic()))
        event = stripe.change(rng.choice(object_ids))
        told.add(event["id"])
        task = asyncio.create_task(_send(port, event, tally, limit))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    tally.events_a_second = round(len(told) / (time.monotonic() - started), 1)
    await asyncio.gather(*under_way)
    return told


async def _unsettled(url: str, stripe: Stripe) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        names = {row["id"]: row["name"] for row in await connection.fetch("select id, name from customers")}
        wanted = await connection.fetchval("select count(*) from refreshes where notifications > 0")
    finally:
        await connection.close()
    wrong = [
        f"{object_id} shows {names.get(object_id)} and is at {version}"
        for object_id, version in stripe.versions.items()
        if version and names.get(object_id) != str(version)
    ]
    return [*wrong, *([f"{wanted} refreshes are wanted"] if wanted else [])]


async def _judge(url: str, stripe: Stripe, told: set[str], tally: Tally) -> None:
    started = time.monotonic()
    while left := await _unsettled(url, stripe):
        if time.monotonic() - started > REST_SECONDS:
            tally.wrong = left
            break
        await asyncio.sleep(0.5)
    else:
        tally.settled_after = round(time.monotonic() - started, 1)
    connection = await asyncpg.connect(url)
    try:
        kept = {row["id"] for row in await connection.fetch("select id from webhook_events")}
        tally.dead = await connection.fetchval("select count(*) from refreshes where dead_at is not null")
    finally:
        await connection.close()
    tally.lost = sorted(told - kept)


async def run(
    victims: Victims, environment: Mapping[str, str], stripe_port: int, given: argparse.Namespace
) -> Tally:
    tally, stripe = Tally(), Stripe()
    async with stripe.served(stripe_port), victims.kept_running():
        await asyncio.sleep(3)
        stop = asyncio.Event()
        load = asyncio.create_task(_load(int(environment["PORT"]), stripe, stop, tally))
        await victims.kill_often(given.kills, given.every, given.seed)
        tally.kills = dict(victims.kills)
        stop.set()
        told = await load
        await _judge(environment["DATABASE_URL"], stripe, told, tally)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(prog="verification.kills.crashes", description=__doc__)
    parser.add_argument("--kills", type=int, default=30, help="default 30")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two kills (default 5)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--state", type=Path, help="keep the benchmarks' PostgreSQL in this directory")
    given = parser.parse_args()
    logs = servers.directory(given.state)
    port, stripe_port = free_port(), free_port()
    with empty_database(logs) as (postgres, url), ChildProcesses() as children:
        environment = servers.service_environment(
            url, port, STRIPE_API_BASE=f"http://127.0.0.1:{stripe_port}", STRIPE_RATE_LIMIT="100"
        )
        victims = Victims(children, postgres, logs, environment)
        tally = asyncio.run(run(victims, environment, stripe_port, given))
    killed = ", ".join(f"{name} {number}" for name, number in sorted(tally.kills.items()))
    print(f"killed: {killed}; {tally.events_a_second:g} events a second")
    print(f"{tally.sent} deliveries, {tally.refused} of them refused or cut off")
    print(f"{len(tally.lost)} acknowledged and lost, {len(tally.wrong)} wrong, {tally.dead} dead")
    print(f"settled {tally.settled_after} s after the last: {'met' if tally.is_met else 'MISSED'}")
    for line in [*tally.lost[:3], *tally.wrong[:3]]:
        print(f"    {line}")
    print(json.dumps({"benchmark": "crashes", "met": tally.is_met, **asdict(tally)}))
    return 0 if tally.is_met else 1


if __name__ == "__main__":
    sys.exit(main())
