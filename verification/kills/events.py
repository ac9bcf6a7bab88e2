"""`python -m verification.kills.events`: SIGKILL for the API, the worker or PostgreSQL, while seats change.

Members are added, changed and removed by the API, with an Idempotency-Key that is sent again until it is answered.
Members, roles, quantities, owners and a product's flag are edited in the Dashboard. An endpoint and a reader of the
feed take every event.

Afterwards the log must be complete at both of them, in order and without a gap, and must hold all that has reached
them, and every addition that was acknowledged. The events, folded by each of them, must give the members, roles, seats,
owners and access of the copy, and the copy must be what the stand-in has. One JSON line; the exit code is 1 on a miss.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from app.commands.child_processes import ChildProcesses
from app.commands.local_postgres import LocalPostgres
from testkit import seat_world, servers
from testkit.company import Company, new_email, running_service
from testkit.consumers import LEFT_OVER, Endpoint, FeedReader, until
from testkit.event_fold import Folded, begun, mismatches, state_now
from testkit.logs import quiet_logs
from testkit.ports import free_port
from testkit.receiver import receiving
from testkit.seat_world import Json, progress
from testkit.service import as_service, service_environment
from testkit.simulator import Simulator, new_account_key, running_simulator
from testkit.truth import at_rest
from verification.kills.victims import Victims, empty_database

WRITE = as_service("admin")
REST_SECONDS = 180.0
AGAIN_SECONDS, SOON_SECONDS = 0.5, 1.5
SEATS = 10_000
BULK = 3
FLAG = "billing_supports_shared_subscriptions"


@dataclass
class Writer:
    """Changes one subscription again and again. `seated` are the members that it has added by the API.

    `added` are the people who have a seat, as far as it was told.
    """

    company: Company
    stripe: Simulator
    api: httpx.AsyncClient
    rng: random.Random
    seated: list[str] = field(default_factory=list)
    added: set[str] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)
    edits: int = 0

    async def run(self, pause: float, stop: asyncio.Event) -> None:
        """Change something, with a pause after each change, until `stop` is set.

        What is not answered soon is waited for beside the next changes: a key whose process was killed is held for a
        minute.
        """
        acts: dict[Callable[[], Awaitable[None]], int] = {
            self._add: 3,
            self._promote: 2,
            self._remove: 3,
            self._edit_member: 4,
            self._edit_quantity: 3,
            self._edit_owner: 1,
            self._edit_flag: 1,
        }
        under_way: set[asyncio.Future[None]] = set()
        while not stop.is_set():
            [act] = self.rng.choices(list(acts), list(acts.values()))
            newest = asyncio.ensure_future(act())
            under_way.add(newest)
            await asyncio.wait({newest}, timeout=SOON_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await stop.wait()
        await asyncio.gather(*under_way)

    async def _add(self) -> None:
        results = await self._change({"add": [{"email": new_email("kill")} for _ in range(BULK)]})
        applied = [one["customer_id"] for one in results if one["outcome"] == "applied"]
        self.seated += applied
        self.added |= set(applied)

    async def _promote(self) -> None:
        if self.seated:
            one = {"customer_id": self.rng.choice(self.seated), "role": self.rng.choice(("user", "manager"))}
            await self._change({"update": [one]})

    async def _remove(self) -> None:
        if self.seated:
            gone, self.seated = self.seated[:BULK], self.seated[BULK:]
            await self._change({"remove": gone})

    async def _change(self, body: Json) -> list[Json]:
        """Send one change until it is answered; its results, none if it was refused."""
        headers = {**WRITE, "Idempotency-Key": secrets.token_hex(12)}
        while True:
            try:
                answer = await self.api.patch(f"{self.company.path}/users", json=body, headers=headers)
            except httpx.TransportError:
                self.answers["cut off"] += 1
            else:
                self.answers[str(answer.status_code)] += 1
                if not answer.is_server_error and "retry-after" not in answer.headers:
                    return list(answer.json().get("results", ()))
                if answer.status_code == httpx.codes.ACCEPTED:
                    return []
            await asyncio.sleep(AGAIN_SECONDS)

    async def _edit_member(self) -> None:
        """Give a member the other role, or take the seat away, or give it back."""
        member = self.rng.choice(self.company.users)
        role = self.rng.choice(("user", "manager", ""))
        plan = self.company.subscription_id if role else ""
        marks = {"billing_shared_subscription_id": plan, "billing_shared_subscription_role": role}
        await self._edit(f"/v1/customers/{member.customer_id}", metadata=marks)

    async def _edit_quantity(self) -> None:
        item = (await self.company.state())["items"]["data"][0]
        await self._edit(f"/v1/subscription_items/{item['id']}", quantity=SEATS + self.rng.randrange(100))

    async def _edit_owner(self) -> None:
        owner = self.rng.choice((self.company.owner, self.company.stranger))
        marks = {"billing_shared_subscription_owner": owner.customer_id}
        await self._edit(f"/v1/subscriptions/{self.company.subscription_id}", metadata=marks)

    async def _edit_flag(self) -> None:
        for value in ("false", "true"):
            await self._edit(f"/v1/products/{self.company.product_id}", metadata={FLAG: value})
            await asyncio.sleep(AGAIN_SECONDS)

    async def _edit(self, path: str, **fields: Any) -> None:
        self.edits += 1
        await self.stripe.post(path, **fields)


@dataclass
class Consumers:
    """Those who take the events, each with its own fold onto what was `known` before the first one."""

    url: str
    known: Mapping[str, Any]
    endpoint: Endpoint
    feed: FeedReader
    of_feed: Folded

    async def has_all(self) -> bool:
        """Return True if the log is complete, and all of it has arrived."""
        if await self._ask_one(LEFT_OVER):
            return False
        log = await self.log()
        return len(self.endpoint.arrived) >= len(log) and len(self.feed.order) >= len(log)

    async def log(self) -> list[Json]:
        """Return the events as the database has them."""
        rows = await self._ask("select id, type, customer_id from events order by position")
        return [dict(row) for row in rows]

    async def _ask_one(self, statement: str) -> int:
        [row] = await self._ask(statement)
        return int(row[0])

    async def _ask(self, statement: str, *values: object) -> list[Any]:
        connection = await asyncpg.connect(self.url)
        try:
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()

    async def judged(self, added: set[str]) -> Json:
        """Return what is missing, and where the folds are not the state of the copy."""
        log = await self.log()
        order = [event["id"] for event in log]
        known = set(order)
        expected = await state_now(self._ask)
        of_endpoint = begun(self.known)
        for event in self.endpoint.order:
            of_endpoint.take(event)
        assigned = {one["customer_id"] for one in log if one["type"] == "seat.assigned"}
        return {
            "events": len(log),
            "types": dict(Counter(one["type"] for one in log)),
            "deliveries": len(self.endpoint.receiver.received),
            "not_delivered": sum(one not in self.endpoint.arrived for one in order),
            "feed_is_the_log": self.feed.order == order,
            "feed_refusals": dict(self.feed.refusals),
            "not_in_the_log": len((self.endpoint.arrived.keys() | set(self.feed.order)) - known),
            "acknowledged_and_lost": len(added - assigned),
            "sequence_fell": self.endpoint.falls,
            "refused_signatures": self.endpoint.refused,
            "misses": [
                *(f"endpoint: {one}" for one in mismatches(of_endpoint, expected)),
                *(f"feed: {one}" for one in mismatches(self.of_feed, expected)),
            ],
        }


async def settle_in(stripe: Simulator, url: str, number: int) -> tuple[list[Company], Json]:
    """Make so many subscriptions, and open the log; return them, and the state on which the events build."""
    async with running_service(stripe, url) as service:
        companies = [await service.company(seats=SEATS, users=3) for _ in range(number)]
        await service.fill()
        await service.announce()
        async with service.context.database.connection() as connection:
            return companies, await state_now(connection.fetch)


async def answers(api: httpx.AsyncClient) -> bool:
    """Return True if the API process answers."""
    try:
        return (await api.get("/healthz")).is_success
    except httpx.TransportError:
        return False


async def play(
    parts: tuple[ChildProcesses, LocalPostgres, Path], base: str, url: str, given: argparse.Namespace
) -> Json:
    """Kill, let everything come to rest, and judge."""
    async with AsyncExitStack() as stack:
        stripe = await stack.enter_async_context(Simulator(base, new_account_key()))
        port = free_port()
        # What is set up is delivered as soon as the API process answers.
        victims = Victims(*parts, await environment_of(stripe, url, port))
        companies, known = await settle_in(stripe, url, given.subscriptions)
        progress(f"{len(companies)} subscriptions")
        await stack.enter_async_context(victims.kept_running())
        limits = httpx.Limits(max_connections=None, keepalive_expiry=2.0)
        client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=30.0)
        api = await stack.enter_async_context(client)
        await until("the API", lambda: answers(api), within=REST_SECONDS)
        receiver = await stack.enter_async_context(receiving())
        of_feed = begun(known)
        endpoint = await Endpoint.registered(api, receiver, after="pl_0")
        consumers = Consumers(url, known, endpoint, FeedReader(take=of_feed.take), of_feed)
        reading = asyncio.create_task(consumers.feed.follow(api))
        writers = [
            Writer(one, stripe, api, random.Random(f"{given.seed}/{number}"))
            for number, one in enumerate(companies)
        ]
        stop = asyncio.Event()
        writing = asyncio.gather(*(one.run(len(companies) / given.rate, stop) for one in writers))
        await victims.kill_often(given.kills, given.every, given.seed)
        progress(f"killed {dict(victims.kills)}")
        stop.set()
        began = time.monotonic()
        async with asyncio.timeout(REST_SECONDS):
            await writing
        unrest = await rest(stripe, url, consumers)
        settled = time.monotonic() - began
        found = await consumers.judged(set().union(*(one.added for one in writers)))
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    found["misses"] = [*unrest, *found["misses"]]
    return {
        "met": is_met(found),
        "kills": dict(victims.kills),
        "calls": dict(sum((one.answers for one in writers), Counter[str]())),
        "edits": sum(one.edits for one in writers),
        **found,
        "misses": found["misses"][:10],
        "settled_after_s": round(settled, 1),
        "load_average": seat_world.load_average(),
    }


async def environment_of(stripe: Simulator, url: str, port: int) -> dict[str, str]:
    """Return the processes' variables. From now on the stand-in delivers to the API process, when there is one."""
    return service_environment(
        database_url=url,
        stripe_base=stripe.base_url,
        stripe_key=stripe.api_key,
        STRIPE_WEBHOOK_SECRETS=await stripe.add_webhook_endpoint(f"http://127.0.0.1:{port}/webhooks/stripe"),
        PORT=str(port),
        # What a killed process has leased is taken up soon.
        OPERATION_LEASE="3",
        WEBHOOK_TIMEOUT="3",
    )


async def rest(stripe: Simulator, url: str, consumers: Consumers) -> list[str]:
    """Wait until the copy is the truth and the consumers have the log; return what is not so."""
    try:
        await at_rest(stripe, url, within=REST_SECONDS)
        await until("the consumers have the log", consumers.has_all, within=REST_SECONDS)
    except (AssertionError, TimeoutError) as error:
        return str(error).splitlines()
    return []


def is_met(found: Json) -> bool:
    """Return True if nothing is missing and something has happened."""
    nothing = (
        "not_delivered",
        "feed_refusals",
        "not_in_the_log",
        "acknowledged_and_lost",
        "sequence_fell",
        "refused_signatures",
        "misses",
    )
    return found["events"] > 1 and found["feed_is_the_log"] and not any(found[name] for name in nothing)


def main() -> int:
    parser = argparse.ArgumentParser(prog="verification.kills.events", description=__doc__)
    parser.add_argument("--kills", type=int, default=300, help="default 300")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two kills (default 5)")
    parser.add_argument("--rate", type=float, default=8.0, help="changes a second (default 8)")
    parser.add_argument("--subscriptions", type=int, default=8, help="each with a writer (default 8)")
    parser.add_argument("--seed", type=int, default=1)
    seat_world.state_option(parser)
    given = parser.parse_args()
    # Ended from outside, too, PostgreSQL and the processes stop.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    logs = servers.directory(given.state)
    with (
        quiet_logs(),
        empty_database(logs) as (postgres, url),
        running_simulator() as base,
        ChildProcesses() as children,
    ):
        found = asyncio.run(play((children, postgres, logs), base, url, given))
    print(json.dumps({"benchmark": "kills.events", **found}))
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
