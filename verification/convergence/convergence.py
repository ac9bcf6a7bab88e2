"""`python -m verification.convergence`: random schedules of news about one object, through the service's own code.

Real: PostgreSQL, the webhook route and its service, group commit, refreshes, own writes, pages, leases. Modelled:
Stripe (`stripe_model`) and the passing of time (`virtual_time`). Bursts and calm, duplicates, late and reordered
deliveries, lists cut short, payloads of another version, lost and repeated answers, reads that outlast their lease,
ids used again.
A trigger notes every step of a row to an older version; at rest every row must be the newest one, field for field.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import asyncpg
import httpx
import orjson

from app.commands.logs import configure_logs
from app.context import Context, Rules
from app.errors import ServiceUnavailable
from app.main import create_app
from app.mirror import refreshing as sync
from app.mirror import webhooks
from app.mirror.ingest import Ingest
from app.mirror.store import refreshes
from app.mirror.store import rows as mirror
from app.mirror.store.rows import MIRRORS
from app.settings import Settings, load_settings
from testkit import servers
from testkit.memberships import membership_mismatches
from verification.convergence import virtual_time
from verification.convergence.defects import DEFECTS, planted
from verification.convergence.stripe_model import Clocks, Json, StandIn, StripeObject
from verification.convergence.virtual_time import VirtualDatabase, VirtualLoop

KINDS = ("customer", "subscription", "product")
AT_ONCE = 2_000
ROUTE_SHARE = 0.05
"""Of the deliveries, through the application's HTTP route; the others begin at the service behind it."""
GIVE_UP_SECONDS = 3_600.0
SECRET = "whsec_bench"
OVER = 1_000_000

WATCH = f"""
    create table bench.steps_back (id text, version bigint, after bigint);
    create function bench.version(r jsonb) returns bigint immutable language sql as $$
        select case when r->>'existence' <> 'present' then {OVER}
            else coalesce(nullif(ltrim(r->>'name', 'v'), '')::bigint, (r#>>'{{items,0,quantity}}')::bigint, 0) end $$;
    create function bench.watch() returns trigger language plpgsql as $$
        begin
            if (new.created, bench.version(to_jsonb(new))) < (old.created, bench.version(to_jsonb(old))) then
                insert into bench.steps_back
                values (new.id, bench.version(to_jsonb(new)), bench.version(to_jsonb(old)));
            end if;
            return null;
        end $$;"""


@dataclass(slots=True)
class Tally:
    schedules: int = 0
    versions: int = 0
    deliveries: int = 0
    fetches: int = 0
    own_writes: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    steps_back: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    overlapping: list[str] = field(default_factory=list)
    """Objects that two refreshes fetched at a time within one lease."""

    @property
    def is_clean(self) -> bool:
        return not (self.violations or self.refused)

    @property
    def violations(self) -> list[str]:
        return [*self.wrong, *self.steps_back, *self.stuck, *self.overlapping]


class Bench:
    """Two API processes' worth of contexts, workers, and the schedules that run among them."""

    def __init__(self, database: VirtualDatabase, settings: Settings) -> None:
        self.database = database
        self.stripe = StandIn()
        self.tally = Tally()
        self.apis = [self._context(settings) for _ in range(2)]
        self.ingests = [Ingest() for _ in self.apis]
        self._work: set[asyncio.Task[None]] = set()
        self._refreshing: dict[str, set[tuple[str, float]]] = {}
        app = create_app(settings)
        app.state.context = self.apis[0]
        self._route = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bench")

    def _context(self, settings: Settings) -> Context:
        stripe: Any = self.stripe
        return Context(self.database, stripe, cast(Any, None), Rules.of(settings))

    async def aclose(self) -> None:
        await self._route.aclose()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def settle(self) -> None:
        """Until everything that was started has ended, what it started as well."""
        while self._work:
            for task in asyncio.as_completed(list(self._work)):
                await task

    def emit(self, source: StripeObject, event: Json) -> None:
        rng = source.rng
        for _ in range(1 if rng.random() < 0.85 else rng.randint(2, 3)):
            late = rng.random()
            delay = rng.uniform(*((0.1, 1.0) if late < 0.6 else (1.0, 8.0) if late < 0.85 else (8.0, 60.0)))
            self.spawn(self._deliver(event, delay, rng.random()))

    async def _deliver(self, event: Json, delay: float, where: float) -> None:
        await asyncio.sleep(delay)
        body = orjson.dumps(event)
        signature = signed(body)
        self.tally.deliveries += 1
        if where < ROUTE_SHARE:
            answer = await self._route.post(
                "/webhooks/stripe", content=body, headers={"Stripe-Signature": signature}
            )
            self.tally.refused += answer.status_code != httpx.codes.OK
            return
        context, ingest = self.apis[where < 0.5], self.ingests[where < 0.5]
        await webhooks.receive(
            context, ingest, body=body, signature=signature, secrets=[SECRET], livemode=False
        )

    async def worker(self, context: Context, every: float) -> None:
        """As the service's own: due leases are taken, each is refreshed; here without a limit to their number."""
        while True:
            async with self.database.connection() as connection:
                leases = await refreshes.due(
                    connection, limit=100, lease_seconds=context.rules.operation_lease
                )
            for lease in leases:
                self.spawn(self._refresh(context, lease))
            await asyncio.sleep(every)

    async def _refresh(self, context: Context, lease: refreshes.Lease) -> None:
        now = asyncio.get_running_loop().time()
        running = self._refreshing.setdefault(lease.id, set())
        if any(now - since < context.rules.operation_lease for _, since in running):
            self.tally.overlapping.append(lease.id)
        running.add((str(lease.token), now))
        await sync.refresh(context, lease)
        running.discard((str(lease.token), now))

    async def schedule(self, seed: str, number: int) -> None:
        """The life of one object: who writes it, who looks at it, and how fast."""
        rng = random.Random(seed)
        kind = rng.choice(KINDS)
        one = StripeObject(kind, f"{kind[:3]}_{number}", rng, Clocks.some(rng), self.emit)
        self.stripe.objects[one.id] = one
        await asyncio.sleep(rng.uniform(0, 20))
        one.write()
        if rng.random() < 0.3:
            self.spawn(self._land_creation(one))
        pace = rng.choice(((0.0, 0.3), (0.0, 1.5), (0.5, 6.0)))
        for _ in range(rng.randint(1, 7)):
            await asyncio.sleep(rng.uniform(*pace))
            what = rng.random()
            if what < 0.6:
                one.write()
            elif what < 0.85:
                self.spawn(self._own_write(one))
            elif what < 0.93:
                self.spawn(self._page(one))
            else:
                self.spawn(self._own_write(one, reads_only=True))
        if rng.random() < 0.35:
            await asyncio.sleep(rng.uniform(*pace))
            one.end()
            if one.kind == "product" and rng.random() < 0.5:
                await one.use_id_again(pace)

    async def _land_creation(self, one: StripeObject) -> None:
        found = one.seen()
        await one.wait()
        lease = await self._lease(one)
        if lease is not None:
            await self._landed(lease, found)

    async def _own_write(self, one: StripeObject, *, reads_only: bool = False) -> None:
        lease = await self._lease(one)
        if lease is None:
            return
        self.tally.own_writes += not reads_only
        await self._landed(lease, lambda: one.answer(None if reads_only else one.write))

    async def _lease(self, one: StripeObject) -> refreshes.Lease | None:
        try:
            return await sync.take_lease(self.apis[0], one.kind, one.id)
        except ServiceUnavailable:
            return None

    async def _landed(self, lease: refreshes.Lease, call: Any) -> None:
        try:
            await sync.apply(self.apis[1], lease, call)
        except ServiceUnavailable:
            return

    async def _page(self, one: StripeObject) -> None:
        """A list that was read now, and reaches the cache later."""
        found = one.seen()
        await one.wait()
        if found.snapshot is not None and not found.snapshot.deleted:
            async with self.database.transaction() as connection:
                await mirror.apply_page(connection, [found.snapshot], marker=found.at)

    async def at_rest(self) -> None:
        """Until no refresh is wanted; what is never done is stuck."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + GIVE_UP_SECONDS
        query = "select id from refreshes where notifications > 0 or lease_until > clock_timestamp()"
        while True:
            await self.settle()
            async with self.database.connection() as connection:
                waiting = [row["id"] for row in await connection.fetch(query)]
            if not waiting:
                return
            if loop.time() > give_up:
                self.tally.stuck += waiting
                return
            await asyncio.sleep(3.0)

    async def judge(self) -> None:
        for kind in KINDS:
            one = MIRRORS[kind]
            names = [*one.fields, "existence", "terminal"]
            async with self.database.connection() as connection:
                rows = await connection.fetch(f"select {', '.join(names)} from {one.table}")
            found = {row["id"]: dict(row) for row in rows}
            for source in self.stripe.objects.values():
                if source.kind == kind:
                    self._compare(source, found.get(source.id))
        async with self.database.connection() as connection:
            for row in await connection.fetch("select * from bench.steps_back"):
                self.tally.steps_back.append(f"{row['id']}: {row['version']} after {row['after']}")
            self.tally.wrong += [
                f"memberships: {one['problem']} {one['row']}"
                for one in await membership_mismatches(connection)
            ]
            await connection.execute(
                "truncate bench.steps_back, webhook_events, refreshes, customers, subscriptions, products, "
                "memberships, membership_counts"
            )
        self.tally.versions += sum(len(one.versions) for one in self.stripe.objects.values())
        self.tally.schedules += len(self.stripe.objects)
        self.tally.fetches = self.stripe.fetches
        self.stripe.objects.clear()

    def _compare(self, source: StripeObject, row: dict[str, Any] | None) -> None:
        snapshot = source.snapshot(len(source.versions))
        expected = orjson.loads(orjson.dumps(MIRRORS[source.kind].row(snapshot, 0)))
        del expected["marker"]
        if row is None:
            self.tally.wrong.append(f"{source.id}: no row")
            return
        if source.ended and source.kind == "product" and row["existence"] in ("absent", "deleted"):
            # What is gone is gone: the last state of its fields is nobody's business any more.
            return
        differing = [name for name, value in expected.items() if row[name] != value]
        if differing:
            self.tally.wrong.append(f"{source.id}: {', '.join(differing)} of version {len(source.versions)}")


def signed(body: bytes) -> str:
    at = int(time.time())
    digest = hmac.new(SECRET.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


async def prepare(database_url: str) -> None:
    """The clock and the watch over every row, in a migrated database that nobody else uses."""
    await virtual_time.install_clock(database_url)
    with virtual_time.virtual_loop().real_wait():
        watched = " ".join(
            f"create trigger watch after update on {MIRRORS[kind].table} for each row execute function bench.watch();"
            for kind in KINDS
        )
        await _execute(database_url, WATCH + watched)


async def _execute(database_url: str, statements: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


@asynccontextmanager
async def bench(database_url: str) -> AsyncIterator[Bench]:
    settings = load_settings(servers.service_environment(database_url, 8000, LOG_LEVEL="critical"))
    database = await virtual_time.connect(database_url, pool_size=12)
    found = Bench(database, settings)
    try:
        yield found
    finally:
        await found.aclose()
        with virtual_time.virtual_loop().real_wait():
            await database.close()


async def run(database_url: str, *, schedules: int, seed: int, defect: str | None = None) -> Tally:
    """`database_url` has been prepared; it is emptied after every two thousand schedules."""
    with planted(defect):
        async with bench(database_url) as found:
            workers = [asyncio.create_task(found.worker(found.apis[n % 2], 0.4 + 0.2 * n)) for n in range(3)]
            try:
                for first in range(0, schedules, AT_ONCE):
                    for number in range(first, min(schedules, first + AT_ONCE)):
                        found.spawn(found.schedule(f"{seed}/{number}", number))
                    await found.at_rest()
                    await found.judge()
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
            return found.tally


def in_virtual_time(work: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


def _report(name: str, tally: Tally, seconds: float) -> None:
    print(
        f"{name:<22} {tally.schedules:>6} schedules {tally.versions:>7} versions {tally.deliveries:>7} deliveries"
        f" {tally.fetches / max(1, tally.deliveries):.2f} fetches an event:"
        f" {len(tally.wrong)} wrong at rest, {len(tally.steps_back)} steps back, {len(tally.stuck)} stuck,"
        f" {len(tally.overlapping)} overlapping, {tally.refused} refused ({seconds:.0f} s)"
    )
    for line in tally.violations[:5]:
        print(f"    {line}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="verification.convergence", description=__doc__)
    parser.add_argument("--schedules", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    parser.add_argument(
        "--defects", action="store_true", help="run every planted defect as well; each must be caught"
    )
    parser.add_argument(
        "--defect-schedules", type=int, default=2_000, help="schedules a defect (default 2000)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON line instead of the table")
    parser.add_argument("--state", type=Path, help="keep the benchmarks' PostgreSQL in this directory")
    given = parser.parse_args()
    configure_logs("critical")
    plan: list[tuple[str | None, int]] = [(None, given.schedules)]
    if given.defects:
        plan += [(name, given.defect_schedules) for name in DEFECTS]
    found: dict[str, Tally] = {}
    with servers.database("bench_convergence", given.state, fast=True) as url:
        in_virtual_time(prepare(url))
        for defect, schedules in plan:
            started = time.monotonic()
            name = defect or "the rule"
            found[name] = in_virtual_time(run(url, schedules=schedules, seed=given.seed, defect=defect))
            if not given.json:
                _report(name, found[name], time.monotonic() - started)
    caught = [name for name in found if name != "the rule" and found[name].violations]
    met = found["the rule"].is_clean and len(caught) == len(plan) - 1
    if given.json:
        results = {name: asdict(tally) for name, tally in found.items()}
        print(json.dumps({"benchmark": "convergence", "seed": given.seed, "met": met, "results": results}))
    else:
        print(
            f"seed {given.seed}; {len(caught)} of {len(plan) - 1} defects caught: {'met' if met else 'MISSED'}"
        )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
