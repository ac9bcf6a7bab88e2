"""Reading a shared subscription from the cache: the service, signed-in and typed, beside the bare join."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from app.commands.child_processes import ChildProcesses
from app.settings import load_settings
from benchmarks import seeding, servers
from benchmarks.rounds import Comparison, compare, load
from benchmarks.servers import Server

SUBSCRIPTIONS = 1_000
CONNECTIONS = (1, 16)
BAR = 0.35
"""The least share of the bare join's rate that the service must reach."""


class DifferentAnswers(Exception):
    """The two targets do not say the same, so their rates cannot be compared."""


def run(*, rounds: int, seconds: float, state: Path | None) -> list[Comparison]:
    with servers.database("bench_reads", state) as url, ChildProcesses() as children:
        seeding.fill(url, SUBSCRIPTIONS, issuer=servers.ISSUER)
        service, bare, requests = start(children, url, servers.directory(state))
        _expect_same(service, bare, requests[0])
        for server in (service, bare):
            load(server.port, 4, max(1.0, seconds), requests)
        return [
            compare(service, bare, requests, connections=number, rounds=rounds, seconds=seconds)
            for number in CONNECTIONS
        ]


def start(children: ChildProcesses, url: str, logs: Path) -> tuple[Server, Server, list[tuple[str, str]]]:
    """One process each, with the same number of database connections; and every owner's own request."""
    port, bare_port = servers.free_port(), servers.free_port()
    environment = servers.service_environment(url, port)
    pool = str(load_settings(environment).database_pool_size)
    service = servers.start(
        children, "service", ["app", "serve"], port=port, environment=environment, logs=logs
    )
    bare = servers.start(
        children,
        "bare",
        ["benchmarks.bare", url, str(bare_port), pool],
        port=bare_port,
        environment={},
        logs=logs,
    )
    requests = [
        (
            f"/v1/shared-subscriptions/{seeding.subscription_id(number)}",
            servers.token(environment, seeding.owner_subject(number)),
        )
        for number in range(SUBSCRIPTIONS)
    ]
    return service, bare, requests


def _expect_same(service: Server, bare: Server, request: tuple[str, str]) -> None:
    ours, theirs = _answer(service, request), _answer(bare, request)
    if ours != theirs:
        raise DifferentAnswers(f"the service says {json.dumps(ours)}, the bare join {json.dumps(theirs)}")


def _answer(server: Server, request: tuple[str, str]) -> Any:
    path, token = request
    asked = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(asked, timeout=10) as response:
        return json.load(response)
