"""`python -m benchmarks.ingest`: deliveries a second that are verified, deduplicated, guarded and durable.

Beside the service: a bare receiver (`bare_ingest`, one statement an event) and Supabase's engine from npm in one
Node process. One process each, one PostgreSQL with its default durability and a database each, rounds interleaved,
ratios taken within a round, every event another one and freshly signed; what was answered is looked for afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg
import orjson

from app.commands.child_processes import ChildProcesses
from app.settings import inherited_environment, load_settings
from benchmarks.memory import Watched
from benchmarks.rounds import in_turn
from benchmarks.verdicts import Bar, Part, print_verdicts
from testkit import deliveries, seeding, servers
from testkit.deliveries import STEP_SECONDS, Plan
from testkit.load import Measured
from testkit.ports import free_port
from testkit.seeding import HOT
from testkit.servers import CHECKOUT, Server

SECRET = "whsec_bench"
MOST_PER_SECOND = {1: 2_500}
MOST = 8_000
BARS = {"supabase": {1: 2.0, 16: 3.5, 64: 4.5}, "bare": {1: 0.8, 16: 1.1, 64: 1.3}}
P99_BAR = 1.5
"""The service's p99 against the bare receiver's, at most."""
SIZE_BAR = 0.9
"""The service with a million cached subscriptions against the service with a thousand, at least."""
LARGE = 1_000_000
CONNECTIONS = (1, 16, 64)
NEWEST_NAME = "select substring(name from '[0-9]+$')::bigint from customers where id = $1"
"""The second in which the cached name of a customer was set."""
NEWEST = "select (items->0->>'current_period_start')::bigint from subscriptions where id = $1"
"""The newest `current_period_start` that the service has cached of a subscription."""


class Lost(Exception):
    """An event was answered 2xx and is not in the database."""


@dataclass(slots=True)
class Target:
    """`found`: a query for the second that the newest event of an object ($1) has written. `kind`: the objects'."""

    name: str
    server: Server
    database_url: str
    found: str
    stride: int = 1
    kind: str = "subscription"
    sent: int = 0
    turns: dict[int, list[Measured]] = field(default_factory=dict)


@contextmanager
def targets(state: Path | None, *, supabase: bool, large: tuple[str, int] | None) -> Iterator[list[Target]]:
    """`large`: the URL of a filled database, and how many subscriptions are in it."""
    logs = servers.directory(state)
    with ExitStack() as stack:
        children = stack.enter_context(ChildProcesses())
        urls = {
            name: stack.enter_context(servers.database(f"bench_ingest_{name}", state))
            for name in ("service", "bare", *(["supabase"] if supabase else []))
        }
        seeding.fill(urls["service"], HOT, issuer=servers.ISSUER)
        found = [
            _service(children, "service", urls["service"], HOT, logs),
            _bare(children, urls["bare"], logs),
        ]
        if supabase:
            found.append(_supabase(children, urls["supabase"], logs))
        if large is not None:
            found.append(_service(children, "large", *large, logs))
        yield found


def _service(children: ChildProcesses, name: str, url: str, subscriptions: int, logs: Path) -> Target:
    port = free_port()
    environment = servers.service_environment(url, port)
    server = servers.start(
        children, f"ingest-{name}", ["app", "serve"], port=port, environment=environment, logs=logs
    )
    return Target(name, server, url, NEWEST, stride=seeding.hot_numbers(subscriptions).step)


def _bare(children: ChildProcesses, url: str, logs: Path) -> Target:
    port = free_port()
    pool = str(load_settings(servers.service_environment(url, port)).database_pool_size)
    module = ["benchmarks.bare_ingest", url, str(port), pool, SECRET]
    server = servers.start(children, "ingest-bare", module, port=port, environment={}, logs=logs)
    return Target(
        "bare", server, url, "select max(current_period_start) from bare.items where subscription = $1"
    )


def _supabase(children: ChildProcesses, url: str, logs: Path) -> Target:
    home = install_supabase(logs)
    port = free_port()
    log = logs / "supabase.log"
    command = f'exec node server.mjs "$1" {port} {SECRET} >"{log}" 2>&1'
    child = children.spawn(
        "supabase",
        ["/bin/sh", "-c", f'cd "$0" && {command}', str(home), url],
        environment=inherited_environment(),
    )
    servers.wait_for(port, child, log)
    asyncio.run(_execute(url, SEED_SUPABASE, HOT))
    newest = "select max(current_period_start) from stripe.subscription_items where subscription = $1"
    return Target("supabase", Server("supabase", port, child.pid), url, newest)


def install_supabase(folder: Path) -> Path:
    """Its packages in a folder beside the benchmarks' PostgreSQL, from npm the first time."""
    home = folder / "supabase"
    home.mkdir(exist_ok=True)
    for name in ("package.json", "server.mjs"):
        shutil.copyfile(Path(__file__).parent / "supabase" / name, home / name)
    if not (home / "node_modules" / "@supabase").exists():
        subprocess.run(["npm", "install", "--no-audit", "--no-fund"], cwd=home, check=True, stdout=sys.stderr)
    return home


SEED_SUPABASE = """
    insert into stripe.customers (id, object, created)
    select 'cus_bench' || to_char(n, 'FM0000000'), 'customer', 1700000000 from generate_series(0, $1::bigint - 1) n"""


async def _execute(url: str, statement: str, number: int) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement, number)
        await connection.execute("vacuum analyze")
    finally:
        await connection.close()


def turn(target: Target, connections: int, seconds: float) -> Measured:
    """One target's turn. Raises Lost when an event that was answered cannot be found."""
    events = int(seconds * MOST_PER_SECOND.get(connections, MOST))
    started = 1_800_000_000
    plan = Plan(
        target.server.port,
        connections,
        seconds,
        SECRET,
        target.sent,
        events,
        started,
        target.stride,
        target.kind,
    )
    target.sent += events
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(orjson.dumps(asdict(plan)))
        file.flush()
        command = [sys.executable, "-m", "testkit.deliveries", file.name]
        ran = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, check=True)
    sent: dict[str, Any] = orjson.loads(ran.stdout)
    measured = Measured(**sent["measured"])
    if not measured.failed:
        asyncio.run(_check(target, sent["last"], started))
        asyncio.run(_check_count(target, plan, measured))
    return measured


async def _check(target: Target, last: list[int], started: int) -> None:
    connection = await asyncpg.connect(target.database_url)
    try:
        for number in last:
            name = deliveries.customer_id if target.kind == "customer" else deliveries.subscription_id
            object_id = name(number % HOT * target.stride)
            found = await connection.fetchval(target.found, object_id)
            if found is None or found < started + STEP_SECONDS * (number // HOT):
                raise Lost(f"{target.name}: event {number} of {object_id} was answered and not written")
    finally:
        await connection.close()


async def _check_count(target: Target, plan: Plan, measured: Measured) -> None:
    """Every event that was answered 2xx is in the inbox, and the service applied each."""
    query = {
        "bare": "select count(*) from bare.events where id between $1 and $2",
        "supabase": None,
    }.get(
        target.name, "select count(*) from webhook_events where outcome = 'applied' and id between $1 and $2"
    )
    if query is None:
        return
    connection = await asyncpg.connect(target.database_url)
    try:
        bounds = [deliveries.event_id(number) for number in (plan.first, plan.first + plan.events)]
        count = await connection.fetchval(query, *bounds)
    finally:
        await connection.close()
    if count < measured.answered - measured.failed:
        raise Lost(f"{target.name}: {measured.answered} were answered and {count} written")


def ratios(target: Target, reference: Target, connections: int) -> list[float]:
    pairs = zip(target.turns[connections], reference.turns[connections], strict=True)
    return [ours.rate / theirs.rate for ours, theirs in pairs]


def measure(
    *,
    state: Path | None,
    supabase: bool,
    large: tuple[str, int] | None,
    connections: list[int],
    rounds: int,
    seconds: float,
) -> Part:
    with targets(state, supabase=supabase, large=large) as found:
        watched = Watched("the API process", found[0].server.pid)
        watched.note("at its start")
        for target in found:
            turn(target, 8, min(2.0, seconds))
        watched.note("when warm")
        part = Part("ingest")
        print(f"{'target':<9} {'c':>3} {'events/s':>9} {'p50 ms':>8} {'p99 ms':>8}")
        for number in connections:
            interleave(found, connections=number, rounds=rounds, seconds=seconds)
            watched.note(f"after c={number}")
            for target in found:
                part.failed += sum(one.failed for one in target.turns[number])
                part.figures.append(figures(target, number))
            part.bars += _bars(found, number, large)
        part.notes.append(watched.line())
        part.figures.append({"memory": watched.figures()})
    return part


def interleave(targets: list[Target], *, connections: int, rounds: int, seconds: float) -> None:
    """Notes each target's turns in it."""
    for target in in_turn(targets, rounds):
        target.turns.setdefault(connections, []).append(turn(target, connections, seconds))


def figures(target: Target, connections: int) -> dict[str, Any]:
    """Prints the target's line."""
    turns = target.turns[connections]
    rate, p50, p99 = (median(getattr(one, name) for one in turns) for name in ("rate", "p50", "p99"))
    print(f"{target.name:<9} {connections:>3} {rate:>9.0f} {p50:>8.2f} {p99:>8.2f}", flush=True)
    return {
        "target": target.name,
        "c": connections,
        "rate": round(rate, 1),
        "p50_ms": round(p50, 2),
        "p99_ms": round(p99, 2),
    }


def _bars(found: list[Target], connections: int, large: tuple[str, int] | None) -> list[Bar]:
    by_name = {target.name: target for target in found}
    service, bare = by_name["service"], by_name["bare"]
    what = f"ingest c={connections}: "
    bars = []
    if "supabase" in by_name:
        against = ratios(service, by_name["supabase"], connections)
        bars.append(Bar(f"{what}times the rate of Supabase's engine", against, BARS["supabase"][connections]))
    pairs = zip(service.turns[connections], bare.turns[connections], strict=True)
    slower = [ours.p99 / theirs.p99 for ours, theirs in pairs]
    bars += [
        Bar(
            f"{what}of a bare receiver's rate",
            ratios(service, bare, connections),
            BARS["bare"][connections],
        ),
        Bar(f"{what}p99 against the bare receiver's", slower, P99_BAR, at_most=True),
    ]
    if large is not None:
        bars.append(
            Bar(
                f"{what}{large[1]:,} subscriptions against {HOT:,}",
                ratios(by_name["large"], service, connections),
                SIZE_BAR,
            )
        )
    return bars


def has_npm() -> bool:
    """Says so where Supabase's engine has to be left out."""
    found = bool(shutil.which("npm") and shutil.which("node"))
    if not found:
        print("Supabase's engine is left out: there is no npm on this machine.", file=sys.stderr)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.ingest", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds a concurrency (default 3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds a target and round (default 3)")
    parser.add_argument("--connections", type=int, nargs="+", default=[*CONNECTIONS], choices=CONNECTIONS)
    parser.add_argument("--no-supabase", action="store_true", help="leave Supabase's engine out")
    parser.add_argument(
        "--large", action="store_true", help=f"also with {LARGE:,} subscriptions in the cache"
    )
    parser.add_argument("--state", type=Path, help="keep the benchmarks' PostgreSQL in this directory")
    given = parser.parse_args()
    with ExitStack() as stack:
        large = stack.enter_context(seeding.filled(LARGE, given.state)) if given.large else None
        part = measure(
            state=given.state,
            supabase=not given.no_supabase and has_npm(),
            large=large,
            connections=given.connections,
            rounds=given.rounds,
            seconds=given.seconds,
        )
    print_verdicts([part])
    print(json.dumps({"benchmark": "ingest", **part.dumped()}))
    return 0 if part.met else 1


if __name__ == "__main__":
    sys.exit(main())
