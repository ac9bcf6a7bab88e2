"""`python -m benchmarks.endpoints`: the API's rate with two webhook endpoints, against its rate without one.

One API process and one worker. A round has a turn with two endpoints, whose receivers answer at once, and one without
an endpoint; what counts is the median of the ratios within the rounds. A turn ends only when every fact has become an
event and every event has arrived once, so no turn pays for the one before.

`renewals` are deliveries of Stripe of which no event is made. `seats` are deliveries that change a number of seats: two
events each, so four requests to the endpoints. The API, its database sessions and the load are kept to one half of the
cores; the worker, its sessions and the receivers to the other, where they have enough to do for the whole turn. So
their processor time is not measured, and the database, its locks and the disk are. `members` are additions and removals
while each answer of Stripe takes 0.3 s; they leave enough processor time for all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import asyncpg
import httpx

from app.commands.child_processes import ChildProcesses
from app.mirror.store import fills
from app.postgres.database import Database
from benchmarks import cores, ingest
from benchmarks.rounds import in_turn
from benchmarks.teams import until
from benchmarks.verdicts import Bar, Part, print_verdicts
from testkit import seat_world, seeding, servers
from testkit.company import Company, Person
from testkit.ports import free_port
from testkit.receiver import Receiver, receiving
from testkit.seat_world import Json, World
from testkit.service import as_service, service_environment

BAR = 0.92
"""The least share of the rate without an endpoint."""
ROUNDS = 9
"""The fewest that give an interval of 95 % without the two outermost values."""
INGESTED = {"renewals": (16, 1), "seats": (16, 1)}
"""Kinds of deliveries, and the numbers of connections over which they come.

The first delivery about a subscription changes its items. So 16 connections come first, whose first turns are not
counted and reach all subscriptions.
"""
KINDS = (*INGESTED, "members")
ROLE = "coseat_bench_worker"
WRITERS = 8
LATENCY_SECONDS = 0.3
WITH, WITHOUT = "with", "without"
ADMIN = as_service("admin")
Act = Callable[[], Awaitable[float]]
"""What is measured; returns its rate."""


@dataclass(frozen=True, slots=True)
class Asked:
    """`seconds` are of a turn of ingest; a turn of `members` takes twice as long."""

    rounds: int = ROUNDS
    seconds: float = 3.0
    state: Path | None = None
    only: tuple[str, ...] = KINDS


class NotDelivered(Exception):
    """An event did not arrive exactly once at an endpoint."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The API's rate, how many requests to endpoints were made in the turn, and the events that were made of it."""

    rate: float
    delivered: int
    events: int


@dataclass
class Consumers:
    """Two receivers, and the service that may send events to them."""

    client: httpx.AsyncClient
    database_url: str
    receivers: Sequence[Receiver]

    async def turn(self, side: str, act: Act) -> Turn:
        """Let `act` run with or without the endpoints, until everything is at rest. Raises NotDelivered."""
        made = [await self._register(receiver) for receiver in self.receivers] if side == WITH else []
        [before] = await self.fetch("select position from event_log")
        rate = await act()
        [row] = await self.fetch(
            "select count(*) as delivered from webhook_deliveries where state = 'delivered'"
        )
        took = await until("events and deliveries", self._progress)
        rows = await self.fetch("select id from events where position > $1 order by 1", before["position"])
        if made:
            self._check([one["id"] for one in rows])
        for endpoint_id in made:
            path = f"/v1/webhook-endpoints/{endpoint_id}"
            (await self.client.delete(path, headers=ADMIN)).raise_for_status()
        delivered = row["delivered"]
        told = f"{len(rows):,} events, {delivered:,} delivered in the turn, at rest {took:.0f} s after it"
        seat_world.progress(f"{side:<8} {rate:,.1f}/s, {told}")
        return Turn(rate, delivered, len(rows))

    async def _register(self, receiver: Receiver) -> str:
        answer = await self.client.post("/v1/webhook-endpoints", headers=ADMIN, json={"url": receiver.url})
        return str(answer.raise_for_status().json()["webhook_endpoint"]["id"])

    def _check(self, expected: list[str]) -> None:
        for receiver in self.receivers:
            arrived = sorted(one.headers["webhook-id"] for one in receiver.received)
            receiver.received.clear()
            if arrived != expected:
                raise NotDelivered(
                    f"{len(arrived)} deliveries of {len(set(arrived))} events, not {len(expected)}"
                )

    async def _progress(self) -> tuple[bool, object]:
        [row] = await self.fetch(
            """select (select count(*) from event_facts) + (select count(*) from event_expansions)
                + (select count(*) from webhook_queues where next_position is not null)
                + (select count(*) from webhook_endpoints e, event_log l where e.queued_to < l.position) as waiting,
            (select count(*) from webhook_deliveries) as delivered, l.position from event_log l"""
        )
        return row["waiting"] == 0, tuple(row.values())

    async def fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.database_url)
        try:
            return await connection.fetch(statement, *values)
        finally:
            await connection.close()


@asynccontextmanager
async def consumers(base_url: str, database_url: str) -> AsyncIterator[Consumers]:
    # Shorter than the server's own, so that no request goes out on a connection that it is closing.
    limits = httpx.Limits(keepalive_expiry=2.0)
    async with (
        receiving() as first,
        receiving() as second,
        httpx.AsyncClient(base_url=base_url, limits=limits, timeout=60.0) as client,
    ):
        yield Consumers(client, database_url, [first, second])


async def compared(part: Part, consumers: Consumers, what: str, act: Act, rounds: int) -> None:
    """Add the ratio of the rates with and without endpoints to the part."""
    found: dict[str, list[Turn]] = {WITH: [], WITHOUT: []}
    for side in (WITH, WITHOUT):
        await consumers.turn(side, act)
    for side in in_turn((WITH, WITHOUT), rounds):
        found[side].append(await consumers.turn(side, act))
    ratios = [ours.rate / theirs.rate for ours, theirs in zip(found[WITH], found[WITHOUT], strict=True)]
    part.bars.append(Bar(f"endpoints: {what}, of the rate without", ratios, BAR))
    rates = {side: round(median(turn.rate for turn in turns), 1) for side, turns in found.items()}
    print(f"{what:<32} {'  '.join(f'{side}: {rate:,.1f}/s' for side, rate in rates.items())}", flush=True)
    delivered = median(turn.delivered for turn in found[WITH])
    events = median(turn.events for turn in found[WITH])
    part.figures.append(
        {"what": what, "rates": rates, "events_of_a_turn": events, "delivered_in_a_turn": delivered}
    )


@dataclass(frozen=True)
class IngestWorld:
    """An API and a worker on halves of the cores. The worker has a role of its own, by which its sessions are found."""

    consumers: Consumers
    target: ingest.Target
    worker: int
    halves: cores.Halves

    async def arrange(self) -> None:
        """Keep the processes and their sessions to their halves."""
        rows = await self.consumers.fetch(
            """select pid, usename = $1 as is_worker from pg_stat_activity
            where datname = current_database() and backend_type = 'client backend'""",
            ROLE,
        )
        cores.keep([row["pid"] for row in rows if row["is_worker"]] + [self.worker], self.halves.second)
        others = [row["pid"] for row in rows if not row["is_worker"]]
        cores.keep([*others, self.target.server.pid], self.halves.first)

    async def opened(self) -> tuple[bool, object]:
        [row] = await self.consumers.fetch("select opened_at is not null as opened, opened_to from event_log")
        return row["opened"], row["opened_to"]

    async def deliver(self, connections: int, seconds: float, part: Part) -> float:
        await self.arrange()
        turn = partial(ingest.turn, self.target, connections, seconds)
        measured = await asyncio.to_thread(cores.run, self.halves.first, turn)
        part.failed += measured.failed
        return measured.rate


@asynccontextmanager
async def _ingest_world(url: str, logs: Path) -> AsyncIterator[IngestWorld]:
    await asyncio.to_thread(seeding.fill, url, seeding.HOT, issuer=servers.ISSUER)
    port, halves = free_port(), cores.Halves.of_machine()
    environment = service_environment(
        database_url=url,
        stripe_base="http://127.0.0.1:9",
        stripe_key="sk_test_bench",
        STRIPE_WEBHOOK_SECRETS=ingest.SECRET,
        PORT=str(port),
    )
    as_worker = {**environment, "DATABASE_URL": re.sub("//[^@/]*@", f"//{ROLE}@", url)}
    async with _role(url):
        with ChildProcesses() as children, cores.kept(halves.second):
            module = ["app", "serve"]
            api = servers.start(children, "endpoints", module, port=port, environment=environment, logs=logs)
            worker = servers.start_worker(children, "endpoints-worker", environment=as_worker, logs=logs)
            async with consumers(f"http://127.0.0.1:{port}", url) as found:
                target = ingest.Target("service", api, url, ingest.NEWEST)
                yield IngestWorld(found, target, worker.pid, halves)


@asynccontextmanager
async def _role(url: str) -> AsyncIterator[None]:
    """The worker's role, and an account whose first fill has ended."""
    database = await Database.connect(url, pool_size=1)
    try:
        async with database.connection() as connection:
            await connection.execute(f"drop role if exists {ROLE}")
            await connection.execute(f"create role {ROLE} superuser login")
            await fills.remember_account(connection, "acct_endpoints", livemode=False)
            await fills.note_filled(connection)
        yield
        async with database.connection() as connection:
            await connection.execute(f"drop role {ROLE}")
    finally:
        await database.close()


async def _ingest(part: Part, url: str, given: Asked, kinds: Sequence[str]) -> None:
    async with _ingest_world(url, servers.directory(given.state)) as world:
        await until("the opening of the log", world.opened)
        if not world.halves.are_apart:
            part.notes.append("the worker and the receivers shared the API's cores")
        for kind in kinds:
            world.target.kind = {"renewals": "subscription"}.get(kind, kind)
            for connections in INGESTED[kind]:
                act = partial(world.deliver, connections, given.seconds, part)
                await compared(part, world.consumers, f"{kind}, c={connections}", act, given.rounds)


async def _members(world: World, part: Part, given: Asked) -> Json:
    companies = [await world.service.company(seats=10, users=0) for _ in range(WRITERS)]
    people = await seat_world.known_people(world, WRITERS, "changing")
    await world.service.fill()
    await world.stripe.settings(latency_s=LATENCY_SECONDS)

    async def write(company: Company, person: Person) -> float:
        """Add a person and remove them again until the time is over; return the changes a second."""
        done, added, started = 0, False, time.monotonic()
        while added or time.monotonic() - started < 2 * given.seconds:
            one = [person.customer_id] if added else [{"customer_id": person.customer_id}]
            body: Json = {"remove" if added else "add": one}
            answer = await world.call(0, "PATCH", f"{company.path}/users", as_service("write"), body)
            outcomes = [result["outcome"] for result in answer.json().get("results", [])]
            part.failed += outcomes != ["applied"]
            added = not added
            done += 1
        return done / (time.monotonic() - started)

    async def act() -> float:
        return sum(await asyncio.gather(*(write(*pair) for pair in zip(companies, people, strict=True))))

    async with consumers(str(world.clients[0].base_url), world.service.database_url) as found:
        await compared(part, found, "members", act, given.rounds)
    return {}


def measure(given: Asked) -> Part:
    part = Part("endpoints")
    if ingested := [kind for kind in given.only if kind in INGESTED]:
        with servers.database("bench_endpoints", given.state) as url:
            asyncio.run(_ingest(part, url, given, ingested))
    if "members" in given.only:
        seat_world.run(
            "bench_members",
            given.state,
            lambda world: _members(world, part, given),
            STRIPE_RATE_LIMIT="10000",
        )
    return part


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.endpoints", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default {ROUNDS}")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a turn of ingest (default 3)")
    seat_world.state_option(parser)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, help="these parts alone")
    given = parser.parse_args()
    # Ended from outside, too, the servers stop and the databases are dropped.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    part = measure(Asked(given.rounds, given.seconds, given.state, tuple(given.only)))
    print_verdicts([part])
    print(json.dumps({"benchmark": "endpoints", "load_average": seat_world.load_average(), **part.dumped()}))
    return 0 if part.met else 1


if __name__ == "__main__":
    sys.exit(main())
