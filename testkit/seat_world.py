"""A shared subscription under load: the stand-in, several API processes and workers as real processes beside it.

The account is set up as in the Dashboard; what the stand-in says of a customer or a quantity is the truth that every
answer is judged by.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx

from app.commands.child_processes import ChildProcesses
from testkit import servers
from testkit.company import Company, Person, Service, running_service
from testkit.database_proxy import DatabaseProxy
from testkit.logs import quiet_logs
from testkit.ports import free_port
from testkit.service import service_environment
from testkit.simulator import Simulator, new_account_key, running_simulator

Json = dict[str, Any]


@dataclass
class World:
    """`service` works in this process and only sets up; `clients` reach the API processes, one each."""

    stripe: Simulator
    service: Service
    environment: Mapping[str, str]
    children: ChildProcesses
    logs: Path
    proxy: DatabaseProxy | None = None
    clients: list[httpx.AsyncClient] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def start_api(self, name: str, port: int) -> servers.Server:
        return servers.start(
            self.children,
            name,
            ["app", "serve"],
            port=port,
            environment={**self.environment, "PORT": str(port)},
            logs=self.logs,
        )

    def start_worker(self, name: str) -> int:
        return servers.start_worker(self.children, name, environment=self.environment, logs=self.logs).pid

    async def call(
        self, api: int, method: str, path: str, who: Mapping[str, str], body: Any = None, **headers: str
    ) -> httpx.Response:
        """One request to API process number `api`, its seconds noted."""
        client = self.clients[api % len(self.clients)]
        extra = {name.replace("_", "-"): value for name, value in headers.items()}
        started = time.monotonic()
        answer = await client.request(method, path, headers={**who, **extra}, json=body)
        self.seconds.append(time.monotonic() - started)
        return answer

    async def settled(self, operation_id: str, who: Mapping[str, str], *, within: float) -> Json | None:
        """The operation's answer once it is terminal, None if it is not within so many seconds."""
        give_up = time.monotonic() + within
        while time.monotonic() < give_up:
            answer = await self.clients[0].get(f"/v1/operations/{operation_id}", headers=dict(who))
            if answer.status_code == httpx.codes.OK and answer.json()["state"] == "settled":
                found: Json = answer.json()
                return found
            await asyncio.sleep(0.2)
        return None

    async def customers(self) -> dict[str, Json]:
        return {one["id"]: one for one in await self.stripe.state("customer")}

    async def quantity(self, company: Company) -> int:
        found = await self.stripe.get(f"/v1/subscriptions/{company.subscription_id}")
        return int(found["items"]["data"][0]["quantity"])

    async def live_reservations(self) -> int:
        found = await self.service.fetch("select count(*) as n from reservations where released_at is null")
        return int(found[0]["n"])


def role_on(customer: Json | None, subscription_id: str) -> str | None:
    """The role that a customer's metadata gives him on a subscription, None for nobody."""
    marks = {} if customer is None or customer.get("deleted") else customer.get("metadata") or {}
    if marks.get("billing_shared_subscription_id") != subscription_id:
        further = marks.get(f"billing_{subscription_id}")
        return None if further is None else str(further)
    return str(marks.get("billing_shared_subscription_role", ""))


def run(
    name: str,
    state: Path | None,
    play: Callable[[World], Awaitable[Json]],
    *,
    apis: int = 1,
    workers: int = 1,
    proxied: bool = False,
    **overrides: str,
) -> Json:
    """`play` in a fresh world, which ends with it; `overrides` are variables of the environment.

    `proxied`: the processes reach PostgreSQL through the world's `proxy`.
    """

    async def whole(url: str) -> Json:
        async with AsyncExitStack() as stack:
            proxy = DatabaseProxy(url) if proxied else None
            if proxy is not None:
                await proxy.open()
                stack.push_async_callback(proxy.shut)
            made = running_world(
                name, state, url, apis=apis, workers=workers, proxy=proxy, overrides=overrides
            )
            return await play(await stack.enter_async_context(made))

    # Ended from outside, too, the servers stop and the database is dropped.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with servers.database(name, state, fast=True) as url:
        return asyncio.run(whole(url))


@asynccontextmanager
async def running_world(
    name: str,
    state: Path | None,
    url: str,
    *,
    apis: int = 1,
    workers: int = 1,
    proxy: DatabaseProxy | None = None,
    overrides: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[World]:
    """A stand-in, API processes and workers over a migrated database; all end with the block."""
    ports = [free_port() for _ in range(apis)]
    async with AsyncExitStack() as stack:
        stack.enter_context(quiet_logs())
        base = stack.enter_context(running_simulator())
        stripe = await stack.enter_async_context(Simulator(base, new_account_key()))
        secrets = [await stripe.add_webhook_endpoint(f"http://127.0.0.1:{ports[0]}/webhooks/stripe")]
        environment = service_environment(
            database_url=url if proxy is None else proxy.url,
            stripe_base=base,
            stripe_key=stripe.api_key,
            STRIPE_WEBHOOK_SECRETS=",".join(secrets),
            # To make the document takes 0.6 s of each start.
            **{"DOCS": "false", **overrides},
        )
        service = await stack.enter_async_context(running_service(stripe, url, **overrides))
        children = stack.enter_context(ChildProcesses())
        made = World(stripe, service, environment, children, servers.directory(state), proxy)
        for number, port in enumerate(ports):
            # In a thread, because the proxy of the database runs in this loop.
            await asyncio.to_thread(made.start_api, f"{name}-api{number}", port)
            # Shorter than the server's own, so that no request goes out on a connection that it is closing.
            limits = httpx.Limits(max_connections=64, max_keepalive_connections=64, keepalive_expiry=2.0)
            client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=60.0)
            made.clients.append(await stack.enter_async_context(client))
        for number in range(workers):
            made.start_worker(f"{name}-worker{number}")
        yield made


async def known_people(world: World, number: int, label: str) -> list[Person]:
    """New customers with an e-mail each, in the stand-in and in the cache."""
    return [await world.service.person(f"{label}{index}") for index in range(number)]


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def progress(text: str) -> None:
    """For whoever waits; the one line of figures is on standard output."""
    print(text, file=sys.stderr, flush=True)


def load_average() -> float:
    """Of the machine over the last minute: figures of time mean little without it."""
    return round(os.getloadavg()[0], 1)


def state_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", type=Path, help="keep the benchmarks' PostgreSQL in this directory")
