"""Teams whose subscription ends, or whose product loses its seats, in a running service of `benchmarks.expansion`."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.commands.child_processes import ChildProcesses
from app.mirror.store import fills
from app.mirror.store import rows as mirror
from app.postgres.database import Connection, Database
from app.stripe.parsing import PARSERS
from testkit import deliveries, growth, seeding, servers
from testkit.company import event_of, signed
from testkit.ports import free_port
from testkit.service import service_environment

TEN = 10
CREATED = 1_700_000_000
PATIENCE_SECONDS = 60.0
"""Time in which a worker has to get further."""
ACCOUNT = "acct_expansion"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Team:
    """One subscription of one product, with so many members beside its owner."""

    name: str
    members: int

    @property
    def product_id(self) -> str:
        return f"prod_{self.name}"

    @property
    def subscription_id(self) -> str:
        return f"sub_{self.name}"

    @property
    def owner_id(self) -> str:
        return f"cus_{self.name}owner"

    def product(self, *, shared: bool) -> Json:
        marks = {"billing_supports_shared_subscriptions": "true"} if shared else {}
        found = {"id": self.product_id, "object": "product", "created": CREATED, "name": "Team plan"}
        return {**found, "active": True, "metadata": marks}

    def subscription(self, status: str = "active") -> Json:
        """A whole object of Stripe's."""
        whole: Json = deliveries.subscription(0, CREATED)
        [item, *_] = whole["items"]["data"]
        price = {**item["price"], "id": f"price_{self.name}", "product": self.product_id}
        own = {**item, "id": f"si_{self.name}", "price": price, "quantity": self.members + 10}
        return {
            **whole,
            "id": self.subscription_id,
            "customer": self.owner_id,
            "status": status,
            "ended_at": CREATED if status == "canceled" else None,
            "metadata": {"billing_shared_subscription_owner": self.owner_id},
            "items": {**whole["items"], "data": [own], "total_count": 1},
        }

    def everybody(self) -> set[str]:
        return {growth.member_id(self.name, number) for number in range(self.members)}

    async def seed(self, connection: Connection) -> None:
        price = {
            "id": f"price_{self.name}",
            "product": self.product_id,
            "currency": "usd",
            "unit_amount": 1200,
        }
        owner = {"id": self.owner_id, "created": CREATED, "metadata": {}}
        for kind, source in (
            ("product", self.product(shared=True)),
            ("price", price),
            ("customer", owner),
            ("subscription", self.subscription()),
        ):
            await mirror.apply_page(connection, [PARSERS[kind](source)], marker=0)
        await growth.add_members(connection, self.subscription_id, self.name, self.members)


@dataclass(frozen=True, slots=True)
class Teams:
    """Two of each size: one whose subscription ends, and one whose product loses its seats."""

    ended: Sequence[Team]
    switched: Sequence[Team]

    @classmethod
    def of(cls, members: int) -> Teams:
        sizes = {"ten": TEN, "large": members}
        ended, switched = (
            [Team(f"{what}{name}", size) for name, size in sizes.items()] for what in ("ended", "switched")
        )
        return cls(ended, switched)

    def losing(self) -> Counter[tuple[str, str]]:
        """Subscription and customer of every `access.changed` that is to be made. An owner keeps the product."""
        found = [(team, {*team.everybody(), team.owner_id}) for team in self.ended]
        found += [(team, team.everybody()) for team in self.switched]
        return Counter(
            (team.subscription_id, customer_id) for team, several in found for customer_id in several
        )


@dataclass
class Ground:
    """The teams in a database, an API process over it, and a connection that undoes changes."""

    teams: Teams
    database: Database
    environment: Mapping[str, str]
    logs: Path
    port: int
    undoing: Connection
    client: http.client.HTTPConnection

    def deliver(self, event_type: str, state: Mapping[str, Any]) -> float:
        """Post one signed event, and return the milliseconds until its answer, which has to be 200."""
        body = json.dumps(event_of(event_type, state)).encode()
        headers = signed(body)
        started = time.perf_counter()
        self.client.request("POST", "/webhooks/stripe", body, headers)
        answer = self.client.getresponse()
        answer.read()
        milliseconds = (time.perf_counter() - started) * 1e3
        assert answer.status == http.client.OK, f"a delivery was answered {answer.status}"
        return milliseconds

    def end(self, team: Team) -> float:
        return self.deliver("customer.subscription.deleted", team.subscription("canceled"))

    def switch(self, team: Team) -> float:
        return self.deliver("product.updated", team.product(shared=False))

    async def apply_end(self, team: Team) -> float:
        """Apply an ended subscription as if it had been fetched, and return the milliseconds of the transaction."""
        snapshot = PARSERS["subscription"](team.subscription("canceled"))
        started = time.perf_counter()
        async with self.database.transaction() as connection:
            serial = await mirror.serial_of(connection, "subscription", team.subscription_id)
            applied = await mirror.apply_fetched(connection, snapshot, serial=serial, marker=int(time.time()))
        milliseconds = (time.perf_counter() - started) * 1e3
        assert applied, f"{team.subscription_id} was not applied"
        return milliseconds

    @asynccontextmanager
    async def undone(self, table: str, object_id: str) -> AsyncIterator[None]:
        """Put a row back after the block, which has to note a fact of it, and drop the facts of both."""
        row = await self.undoing.fetchval(f"select to_jsonb(t) from {table} t where id = $1", object_id)
        yield
        facts = await self.undoing.fetchval("select count(*) from event_facts")
        assert facts, f"nothing was changed of {object_id}"
        async with self.undoing.transaction():
            await self.undoing.execute(f"delete from {table} where id = $1", object_id)
            await self.undoing.execute(
                f"insert into {table} select * from jsonb_populate_record(null::{table}, $1)", row
            )
            await self.undoing.execute("delete from event_facts")

    async def fetch(self, statement: str, *values: object) -> list[Any]:
        async with self.database.connection() as connection:
            return await connection.fetch(statement, *values)

    async def position(self) -> int:
        """The position of the newest event."""
        [row] = await self.fetch("select position from event_log")
        return int(row["position"])

    async def left_over(self) -> tuple[int, str]:
        """The number of facts and expansions that wait, and how far the log and the expansions have come."""
        [row] = await self.fetch(
            """select (select count(*) from event_facts) + (select count(*) from event_expansions)
                + (select count(*) from event_log where opened_at is null) as waiting,
            l.position || coalesce(l.opened_to, '') || coalesce((
                select string_agg(reached, ' ' order by number) from event_expansions), '') as reached
            from event_log l"""
        )
        return int(row["waiting"]), str(row["reached"])

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        """A worker process. Stripe answers nobody, so it makes and delivers events, and does nothing else."""
        with ChildProcesses() as children:
            servers.start_worker(children, "expansion-worker", environment=self.environment, logs=self.logs)
            yield

    async def rest(self) -> None:
        """Wait until every fact is an event. Raises TimeoutError."""

        async def progress() -> tuple[bool, object]:
            waiting, reached = await self.left_over()
            return waiting == 0, (waiting, reached)

        await until("the events of all facts", progress)


async def until(what: str, progress: Callable[[], Awaitable[tuple[bool, object]]]) -> float:
    """Wait until `progress` says that it is done, and return the seconds. Raises TimeoutError when nothing moves."""
    started = moved_at = time.monotonic()
    before: object = None
    while True:
        done, now = await progress()
        if done:
            return time.monotonic() - started
        if now != before:
            before, moved_at = now, time.monotonic()
        if time.monotonic() - moved_at > PATIENCE_SECONDS:
            raise TimeoutError(f"{what}: no progress for {PATIENCE_SECONDS:g} s at {now}")
        await asyncio.sleep(0.1)


@asynccontextmanager
async def seeded(url: str, members: int, others: int, logs: Path) -> AsyncIterator[Ground]:
    """The teams among `others` subscriptions, whose log is open, and an API process."""
    if others:
        await asyncio.to_thread(seeding.fill, url, others, issuer=servers.ISSUER)
    port, teams = free_port(), Teams.of(members)
    environment = service_environment(
        database_url=url, stripe_base="http://127.0.0.1:9", stripe_key="sk_test_bench", PORT=str(port)
    )
    database = await Database.connect(url, pool_size=2)
    try:
        async with database.unhurried() as connection:
            await connection.execute("set statement_timeout = 0")
            for team in (*teams.ended, *teams.switched):
                await team.seed(connection)
            await fills.remember_account(connection, ACCOUNT, livemode=False)
            await fills.note_filled(connection)
            await connection.execute("vacuum analyze", timeout=600)
            with ChildProcesses() as children, closing(_client(port)) as client:
                module = ["app", "serve"]
                servers.start(children, "expansion", module, port=port, environment=environment, logs=logs)
                ground = Ground(teams, database, environment, logs, port, connection, client)
                async with ground.worker():
                    await ground.rest()
                await connection.execute("vacuum analyze", timeout=600)
                await connection.execute("checkpoint", timeout=600)
                yield ground
    finally:
        await database.close()


def _client(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=60)
