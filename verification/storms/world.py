"""The world of a storm: PostgreSQL of its own, the stand-in, an API process and a worker, and a load that is judged.

Reads, member changes and signed deliveries go on all the time. Every answer is noted: a read, a write or a delivery
that fails must be 503 with Retry-After. What was acknowledged is looked for at the end.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx

from testkit.company import Company, event_of, new_email, running_service, signed
from testkit.processes import RunningProcess
from testkit.service import api_process, service_environment, worker_process
from testkit.simulator import Simulator, new_account_key, running_simulator

SETTLED_WITHIN = 60.0
SENDERS = 32
READ_EVERY = 0.05
CHANGE_EVERY = 0.5
HTTP_TIMEOUT = 30.0
_GOOD = (httpx.codes.OK, httpx.codes.ACCEPTED)


@dataclass
class Tally:
    """What callers were answered.

    `failed_reads`: reads that were not answered 200. `bad`: answers that no caller may get: 500, or 503 without
    Retry-After, or a connection that was cut. `added` and `accepted`: e-mails and events that were acknowledged.
    """

    answers: Counter[str] = field(default_factory=Counter)
    failed_reads: int = 0
    bad: list[str] = field(default_factory=list)
    added: set[str] = field(default_factory=set)
    accepted: set[str] = field(default_factory=set)

    def note(self, what: str, answer: httpx.Response | None) -> int:
        """Note an answer, None for a connection that was cut. Return its status, 0 for none."""
        status = 0 if answer is None else answer.status_code
        self.answers[f"{what} {status}"] += 1
        if what == "read" and status != httpx.codes.OK:
            self.failed_reads += 1
        is_good = status < 500 and status != 0
        if not is_good and (answer is None or status != 503 or "retry-after" not in answer.headers):
            self.bad.append(f"{what} {status} {'' if answer is None else answer.text[:200]}")
        return status


@dataclass
class World:
    """`url` leads to the database directly, whatever the processes use.

    The load changes the members of `company`. `other` is not under load: no change of it is in flight in a storm.
    """

    url: str
    stripe: Simulator
    company: Company
    other: Company
    client: httpx.AsyncClient
    api: RunningProcess
    worker: RunningProcess
    tally: Tally = field(default_factory=Tally)
    version: int = 0

    async def ask(self, what: str, send: Callable[[], Awaitable[httpx.Response]]) -> int:
        try:
            return self.tally.note(what, await send())
        except httpx.TransportError:
            return self.tally.note(what, None)

    async def read(self) -> int:
        headers = dict(self.company.owner.headers)
        return await self.ask("read", lambda: self.client.get(self.company.path, headers=headers))

    async def add(self, company: Company, email: str, key: str) -> int:
        """Add a member once, however often it is asked with one key."""
        headers = {**company.owner.headers, "Idempotency-Key": key}
        body = {"add": [{"email": email}]}
        path = f"{company.path}/users"
        return await self.ask("write", lambda: self.client.patch(path, headers=headers, json=body))

    async def add_until_accepted(self, *, pause: float = 0.2) -> None:
        email, key = new_email("storm"), secrets.token_hex(8)
        status = 0
        while status not in _GOOD:
            status = await self.add(self.company, email, key)
            await asyncio.sleep(pause)
        self.tally.added.add(email)

    async def deliver(self, state: dict[str, Any]) -> int:
        """Deliver one change of the customer, again until it is accepted."""
        self.version += 1
        event = event_of("customer.updated", {**state, "name": f"Version {self.version}"})
        body = httpx.Request("POST", "http://storm", json=event).content

        async def send() -> httpx.Response:
            headers = {"content-type": "application/json", **signed(body)}
            return await self.client.post("/webhooks/stripe", content=body, headers=headers)

        while True:
            if (status := await self.ask("delivery", send)) == httpx.codes.OK:
                self.tally.accepted.add(event["id"])
                return status
            await asyncio.sleep(0.5)

    async def until_healthy(self) -> float:
        """Seconds until a read, and a change of a subscription that nothing was in flight on, succeed."""
        began = time.monotonic()
        for send in (self.read, lambda: self.add(self.other, new_email("calm"), secrets.token_hex(8))):
            status = 0
            while status not in _GOOD:
                status = await send()
                await asyncio.sleep(0.1)
        return time.monotonic() - began

    def ended(self) -> list[str]:
        """The processes that are no more."""
        both = (("api", self.api), ("worker", self.worker))
        return [name for name, one in both if one.process.poll() is not None]


@asynccontextmanager
async def storm_world(url: str, *, configured: str = "", **overrides: str) -> AsyncIterator[World]:
    """`configured`: the URL that the processes use, if it is another one."""
    with ExitStack() as started:
        base = started.enter_context(running_simulator())
        async with (
            Simulator(base, new_account_key()) as stripe,
            running_service(stripe, url) as service,
        ):
            company, other = await service.company(seats=20_000), await service.company(seats=1_000)
            environment = service_environment(
                database_url=configured or url,
                stripe_base=stripe.base_url,
                stripe_key=stripe.api_key,
                **overrides,
            )
            api_url, api = await asyncio.to_thread(started.enter_context, api_process(environment))
            worker = await asyncio.to_thread(
                started.enter_context, worker_process({**environment, "LOG_LEVEL": "info"})
            )
            await asyncio.to_thread(worker.wait_for_line, "worker_started")
            limits = httpx.Limits(max_connections=200, keepalive_expiry=2.0)
            async with httpx.AsyncClient(base_url=api_url, timeout=HTTP_TIMEOUT, limits=limits) as client:
                try:
                    yield World(url, stripe, company, other, client, api, worker)
                finally:
                    await asyncio.to_thread(started.close)


@asynccontextmanager
async def under_load(world: World, *, events: float) -> AsyncIterator[None]:
    """Read, change members and deliver so many events a second, until the block ends."""
    stop, limit = asyncio.Event(), asyncio.Semaphore(SENDERS)
    customers = await world.stripe.state("customer")
    under_way: set[asyncio.Task[int]] = set()

    async def deliver(state: dict[str, Any]) -> int:
        async with limit:
            return await world.deliver(state)

    async def deliveries() -> None:
        began, sent = time.monotonic(), 0
        while not stop.is_set():
            await asyncio.sleep(max(0.0, began + sent / events - time.monotonic()))
            task = asyncio.create_task(deliver(customers[sent % len(customers)]))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            sent += 1

    async def reads() -> None:
        while not stop.is_set():
            await world.read()
            await asyncio.sleep(READ_EVERY)

    async def changes() -> None:
        while not stop.is_set():
            await world.add_until_accepted()
            await asyncio.sleep(CHANGE_EVERY)

    running = [asyncio.create_task(one) for one in (deliveries(), reads(), changes())]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*running)
        await asyncio.gather(*under_way)


async def lost(world: World) -> dict[str, int]:
    """What was acknowledged and is not there, and what is there twice, once nothing is left to do."""
    connection = await asyncpg.connect(world.url)
    try:
        left = 0
        for _ in range(int(SETTLED_WITHIN / 0.5)):
            left = await connection.fetchval("select count(*) from operations where settled_at is null")
            if not left:
                break
            await asyncio.sleep(0.5)
        kept = {row["id"] for row in await connection.fetch("select id from webhook_events")}
    finally:
        await connection.close()
    at_stripe = Counter(one["email"] for one in await world.stripe.state("customer") if one.get("email"))
    members = await world.company.member_emails()
    return {
        "unsettled": int(left),
        "events_lost": len(world.tally.accepted - kept),
        "members_lost": len(world.tally.added - members),
        "created_twice": sum(at_stripe[email] > 1 for email in world.tally.added),
    }
