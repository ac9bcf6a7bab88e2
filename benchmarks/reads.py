"""Reading a shared subscription from the cache: the service, signed-in and typed, beside its neighbours.

These are a bare join (`bare`), and an ordinary FastAPI service over SQLAlchemy's ORM (`orm`); neither asks who calls.
And the service once more, with many times as many subscriptions in its cache.
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg

from app.commands.child_processes import ChildProcesses
from app.settings import load_settings
from benchmarks import orm
from benchmarks.memory import Watched
from benchmarks.rounds import Round, Target, Turns, interleave, load, ratios
from benchmarks.verdicts import Bar, Part
from testkit import seeding, servers
from testkit.ports import free_port
from testkit.seeding import HOT
from testkit.servers import Server

CONNECTIONS = (1, 16)
BARE_BARS = {1: 0.75, 16: 0.5}
"""The least share of the bare join's rate that the service must reach."""
ORM_BAR = 3.0
SIZE_BAR = 0.9
"""With a million subscriptions in the cache against a thousand."""


class DifferentAnswers(Exception):
    """Two targets do not say the same, so their rates cannot be compared."""


def measure(*, rounds: int, seconds: float, state: Path | None, large: tuple[str, int] | None) -> Part:
    """`large`: the URL of a filled database, and how many subscriptions are in it."""
    with ExitStack() as stack:
        url = stack.enter_context(servers.database("bench_reads", state))
        children = stack.enter_context(ChildProcesses())
        seeding.fill(url, HOT, issuer=servers.ISSUER)
        asyncio.run(_execute(url, orm.FILL))
        logs = servers.directory(state)
        targets = [_service(children, "service", url, HOT, logs)]
        requests = targets[0].requests
        for name in ("bare", "orm"):
            neighbour = Target(_neighbour(children, name, url, logs), requests)
            _expect_same(targets[0], neighbour)
            targets.append(neighbour)
        if large is not None:
            targets.append(_service(children, "large", *large, logs))
        return _measure(targets, rounds, seconds, large)


def _measure(targets: list[Target], rounds: int, seconds: float, large: tuple[str, int] | None) -> Part:
    part = Part("reads")
    watched = Watched("the API process", targets[0].server.pid)
    watched.note("at its start")
    for target in targets:
        load(target.server.port, 4, max(1.0, seconds), target.requests)
    watched.note("when warm")
    print(f"{'target':<8} {'c':>3} {'requests/s':>11} {'p50 ms':>8} {'p99 ms':>8} {'CPU us':>7}")
    for connections in CONNECTIONS:
        turns = interleave(targets, connections=connections, rounds=rounds, seconds=seconds)
        watched.note(f"after c={connections}")
        part.bars += _bars(turns, connections, large)
        for name, own in turns.items():
            part.failed += sum(one.measured.failed for one in own)
            part.figures.append(figures(name, connections, own))
    part.notes.append(watched.line())
    part.figures.append({"memory": watched.figures()})
    return part


def _bars(turns: Turns, connections: int, large: tuple[str, int] | None) -> list[Bar]:
    against_bare = ratios(turns, "service", "bare")
    found = [
        Bar(f"reads c={connections}: of a bare join's rate", against_bare, BARE_BARS[connections]),
        Bar(f"reads c={connections}: times the ORM's rate", ratios(turns, "service", "orm"), ORM_BAR),
    ]
    if large is not None:
        what = f"reads c={connections}: {large[1]:,} subscriptions against {HOT:,}"
        found.append(Bar(what, ratios(turns, "large", "service"), SIZE_BAR))
    return found


def figures(name: str, connections: int, turns: list[Round]) -> dict[str, Any]:
    """Prints the target's line."""
    rate, p50, p99 = (median(getattr(one.measured, what) for one in turns) for what in ("rate", "p50", "p99"))
    cpu = [one.cpu for one in turns if one.cpu is not None]
    used = f"{median(cpu):.0f}" if cpu else "-"
    print(f"{name:<8} {connections:>3} {rate:>11.0f} {p50:>8.2f} {p99:>8.2f} {used:>7}", flush=True)
    return {
        "target": name,
        "c": connections,
        "rate": round(rate, 1),
        "p50_ms": round(p50, 2),
        "p99_ms": round(p99, 2),
    }


def _service(children: ChildProcesses, name: str, url: str, subscriptions: int, logs: Path) -> Target:
    """The service, and every hot owner's own request."""
    port = free_port()
    environment = servers.service_environment(url, port)
    server = servers.start(
        children, f"reads-{name}", ["app", "serve"], port=port, environment=environment, logs=logs
    )
    requests = [
        (
            f"/v1/shared-subscriptions/{seeding.subscription_id(number)}",
            servers.token(environment, seeding.owner_subject(number)),
        )
        for number in seeding.hot_numbers(subscriptions)
    ]
    return Target(Server(name, server.port, server.pid), requests)


def _neighbour(children: ChildProcesses, name: str, url: str, logs: Path) -> Server:
    """One process, with as many database connections as the service has."""
    port = free_port()
    pool = str(load_settings(servers.service_environment(url, port)).database_pool_size)
    module = [f"benchmarks.{name}", url, str(port), pool]
    return servers.start(children, name, module, port=port, environment={}, logs=logs)


async def _execute(url: str, statements: tuple[str, ...]) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def _expect_same(service: Target, neighbour: Target) -> None:
    ours, theirs = (_answer(target.server, service.requests[0]) for target in (service, neighbour))
    if ours != theirs:
        raise DifferentAnswers(f"the service says {json.dumps(ours)}, {neighbour.name} {json.dumps(theirs)}")


def _answer(server: Server, request: tuple[str, str]) -> Any:
    path, token = request
    asked = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(asked, timeout=10) as response:
        return json.load(response)
