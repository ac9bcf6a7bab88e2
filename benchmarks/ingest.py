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
import time
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
from benchmarks import deliveries, servers
from benchmarks.deliveries import HOT, STEP_SECONDS, Plan
from benchmarks.load import Measured
from benchmarks.servers import CHECKOUT, Server

SECRET = "whsec_bench"
MOST_PER_SECOND = {1: 2_500, 16: 4_000}
MOST = 5_000
BARS = {"supabase": {1: 2.0, 16: 3.5, 64: 4.5}, "bare": {1: 0.8, 16: 1.1, 64: 1.3}}
P99_BAR = 1.5
"""The service's p99 against the bare receiver's, at most."""
SIZE_BAR = 0.9
"""The service with a million cached subscriptions against the service with a thousand, at least."""
LARGE = 1_000_000


class Lost(Exception):
    """An event was answered 2xx and is not in the database."""


@dataclass(slots=True)
class Target:
    """`found`: a query for the newest `current_period_start` cached of a subscription ($1)."""

    name: str
    server: Server
    database_url: str
    found: str
    stride: int = 1
    sent: int = 0
    turns: dict[int, list[Measured]] = field(default_factory=dict)


@contextmanager
def targets(state: Path | None, *, supabase: bool, large: bool) -> Iterator[list[Target]]:
    logs = servers.directory(state)
    with ExitStack() as stack:
        children = stack.enter_context(ChildProcesses())
        urls = {
            name: stack.enter_context(servers.database(f"bench_ingest_{name}", state))
            for name in (
                "service",
                "bare",
                *(["supabase"] if supabase else []),
                *(["large"] if large else []),
            )
        }
        found = [
            _service(children, "service", urls["service"], logs, HOT),
            _bare(children, urls["bare"], logs),
        ]
        if supabase:
            found.append(_supabase(children, urls["supabase"], logs))
        if large:
            found.append(_service(children, "large", urls["large"], logs, LARGE))
        yield found


def _service(children: ChildProcesses, name: str, url: str, logs: Path, subscriptions: int) -> Target:
    asyncio.run(_execute(url, SEED, subscriptions))
    port = servers.free_port()
    environment = servers.service_environment(url, port)
    server = servers.start(
        children, f"ingest-{name}", ["app", "serve"], port=port, environment=environment, logs=logs
    )
    newest = "select (items->0->>'current_period_start')::bigint from subscriptions where id = $1"
    return Target(name, server, url, newest, stride=subscriptions // HOT)


def _bare(children: ChildProcesses, url: str, logs: Path) -> Target:
    port = servers.free_port()
    pool = str(load_settings(servers.service_environment(url, port)).database_pool_size)
    module = ["benchmarks.bare_ingest", url, str(port), pool, SECRET]
    server = servers.start(children, "ingest-bare", module, port=port, environment={}, logs=logs)
    return Target(
        "bare", server, url, "select max(current_period_start) from bare.items where subscription = $1"
    )


def _supabase(children: ChildProcesses, url: str, logs: Path) -> Target:
    home = install_supabase(logs)
    port = servers.free_port()
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


SEED = """
    insert into subscriptions (id, created, customer_id, status, currency, items, owner_id, cancel_at_period_end,
        start_date, billing_cycle_anchor, billing_mode, collection_method, latest_invoice_id, discounts, oddities,
        marker, serial, presence, final)
    select 'sub_bench' || to_char(n, 'FM0000000'), 1700000000, 'cus_bench' || to_char(n, 'FM0000000'), 'active', 'usd',
        (select jsonb_agg(jsonb_build_object('id', 'si_sub_bench' || to_char(n, 'FM0000000') || '_' || p, 'price_id',
            'price_bench' || p, 'product_id', 'prod_bench' || p, 'quantity', 5, 'metered', false,
            'current_period_start', 1, 'current_period_end', 2)) from generate_series(0, 2) p),
        'cus_bench' || to_char(n, 'FM0000000'), false, 1700000000, 1700000000, 'flexible', 'charge_automatically',
        'in_bench' || to_char(n, 'FM0000000'), '[]', '{}', 0, 1, 'present', false
    from generate_series(0, $1::bigint - 1) n"""
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
    plan = Plan(target.server.port, connections, seconds, SECRET, target.sent, events, started, target.stride)
    target.sent += events
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(orjson.dumps(asdict(plan)))
        file.flush()
        command = [sys.executable, "-m", "benchmarks.deliveries", file.name]
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
            object_id = deliveries.subscription_id(number % HOT * target.stride)
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


def run(found: list[Target], *, connections: list[int], rounds: int, seconds: float) -> None:
    for target in found:
        turn(target, 8, min(2.0, seconds))
    for number in connections:
        for step in range(rounds):
            order = found[step % len(found) :] + found[: step % len(found)]
            for target in order:
                target.turns.setdefault(number, []).append(turn(target, number, seconds))


def ratios(target: Target, reference: Target, connections: int) -> list[float]:
    pairs = zip(target.turns[connections], reference.turns[connections], strict=True)
    return [ours.rate / theirs.rate for ours, theirs in pairs]


def report(found: list[Target], connections: list[int]) -> tuple[bool, list[dict[str, Any]]]:
    """Prints the table; whether every bar is met, and the figures."""
    by_name = {target.name: target for target in found}
    service, met, figures = by_name["service"], True, []
    print(
        f"{'target':<9} {'c':>3} {'events/s':>9} {'p50 ms':>8} {'p99 ms':>8}  the service against it (min..max)"
    )
    for number in connections:
        for target in found:
            turns = target.turns[number]
            rate, p50, p99 = (median(getattr(one, name) for one in turns) for name in ("rate", "p50", "p99"))
            line = f"{target.name:<9} {number:>3} {rate:>9.0f} {p50:>8.2f} {p99:>8.2f}"
            entry: dict[str, Any] = {"target": target.name, "c": number, "rate": rate, "p50": p50, "p99": p99}
            if target is not service:
                large = target.name == "large"
                ratio = ratios(target, service, number) if large else ratios(service, target, number)
                entry["ratio"], bar = median(ratio), SIZE_BAR if large else BARS[target.name][number]
                met &= entry["ratio"] >= bar
                what = "it against the service " if large else ""
                line += f"  {what}{entry['ratio']:.2f} ({min(ratio):.2f}..{max(ratio):.2f}), bar {bar}"
            if target.name == "bare":
                slower = median(
                    ours.p99 / theirs.p99 for ours, theirs in zip(service.turns[number], turns, strict=True)
                )
                entry["p99_ratio"] = slower
                met &= slower <= P99_BAR
                line += f"; p99 {slower:.2f}, bar {P99_BAR}"
            failed = sum(one.failed for one in turns)
            met &= failed == 0
            print(line + (f"  {failed} FAILED" if failed else ""))
            figures.append(entry)
    return met, figures


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.ingest", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds a concurrency (default 3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds a target and round (default 3)")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64], choices=[1, 16, 64])
    parser.add_argument("--no-supabase", action="store_true", help="leave Supabase's engine out")
    parser.add_argument("--large", action="store_true", help=f"also with {LARGE} subscriptions in the cache")
    parser.add_argument("--state", type=Path, help="keep the benchmarks' PostgreSQL in this directory")
    given = parser.parse_args()
    supabase = not given.no_supabase
    if supabase and not (shutil.which("npm") and shutil.which("node")):
        print("Supabase's engine is left out: there is no npm on this machine.", file=sys.stderr)
        supabase = False
    started = time.monotonic()
    with targets(given.state, supabase=supabase, large=given.large) as found:
        run(found, connections=given.connections, rounds=given.rounds, seconds=given.seconds)
    met, figures = report(found, given.connections)
    print(f"{time.monotonic() - started:.0f} s: {'met' if met else 'MISSED'}")
    print(json.dumps({"benchmark": "ingest", "met": met, "results": figures}))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
