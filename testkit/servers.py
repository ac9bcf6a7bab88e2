"""The processes under load: PostgreSQL with its default durability, and HTTP servers beside it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from app.commands.child_processes import ChildProcesses
from app.commands.local_postgres import LocalPostgres, state_directory
from app.commands.migrations import upgrade
from app.identity.development_tokens import sign_development_token
from app.settings import Settings, inherited_environment, load_settings

CHECKOUT = Path(__file__).resolve().parents[1]
ISSUER = "https://auth.bench.localhost"
START_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Server:
    name: str
    port: int
    pid: int


class NotStarted(Exception):
    """A server did not come up; the message names its log."""


def directory(state: Path | None) -> Path:
    """Where the benchmarks' PostgreSQL and the servers' logs are, apart from the demo's."""
    found = state_directory(CHECKOUT, state) / "bench"
    found.mkdir(parents=True, exist_ok=True)
    return found


@contextmanager
def database(name: str, state: Path | None, *, fast: bool = False) -> Iterator[str]:
    """The URL of a fresh, migrated database, on a server whose commits are synced to the disk; dropped afterwards.

    `fast` gives up durability: for what asks whether the result is right, and not how soon.
    """
    postgres = LocalPostgres(directory(state) / ("postgres-fast" if fast else "postgres"), fast=fast)
    postgres.start()
    own = f"{name}_{secrets.token_hex(4)}"
    try:
        postgres.ensure_database(own)
        url = postgres.url(own)
        upgrade(load_settings({"DATABASE_URL": url}, process="migrate"))
        yield url
    finally:
        asyncio.run(_drop(postgres.url("postgres"), own))
        postgres.stop()


async def _drop(server_url: str, name: str) -> None:
    connection = await asyncpg.connect(server_url)
    try:
        await connection.execute(f'drop database if exists "{name}" with (force)')
    finally:
        await connection.close()


def service_environment(database_url: str, port: int, **overrides: str) -> dict[str, str]:
    """A production-like configuration; Stripe's address answers nobody, because a cached read never asks it."""
    return {
        "DATABASE_URL": database_url,
        "STRIPE_API_KEY": "sk_test_bench",
        "STRIPE_API_BASE": "http://127.0.0.1:9",
        "STRIPE_WEBHOOK_SECRETS": "whsec_bench",
        "AUTH_JWT_SECRET": hashlib.sha256(b"benchmarks").hexdigest(),
        "AUTH_ISSUER": ISSUER,
        "AUTH_AUDIENCE": "coseat-bench",
        "SERVICE_KEYS": json.dumps([]),
        # A load comes from few callers; the limits themselves stay on the path that is measured.
        "READ_RATE_LIMIT": "1000000",
        "WRITE_RATE_LIMIT": "1000000",
        "USER_IN_FLIGHT": "10000",
        "ANONYMOUS_RATE_LIMIT": "1000000",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "DRAIN_SECONDS": "0",
        # To make the document takes 0.6 s of each start.
        "DOCS": "false",
        **overrides,
    }


def token(environment: Mapping[str, str], subject: str) -> str:
    settings: Settings = load_settings(environment, process="token")
    return sign_development_token(settings, subject=subject)


def start(
    children: ChildProcesses,
    name: str,
    module: list[str],
    *,
    port: int,
    environment: Mapping[str, str],
    logs: Path,
) -> Server:
    """`python -m module…`, its output in a file of `logs`, waited for until /healthz answers."""
    process, log = _spawn(children, name, module, environment, logs)
    wait_for(port, process, log)
    return Server(name, port, process.pid)


def start_worker(
    children: ChildProcesses, name: str, *, environment: Mapping[str, str], logs: Path
) -> subprocess.Popen[str]:
    """A worker, its output in a file of `logs`. Nothing shows when it has begun."""
    return _spawn(children, name, ["app", "worker"], environment, logs)[0]


def _spawn(
    children: ChildProcesses, name: str, module: list[str], environment: Mapping[str, str], logs: Path
) -> tuple[subprocess.Popen[str], Path]:
    log = logs / f"{name}.log"
    shell = ["/bin/sh", "-c", 'log=$1; shift; exec "$@" >"$log" 2>&1', "sh", str(log)]
    process = children.spawn(
        name,
        [*shell, sys.executable, "-m", *module],
        environment={**inherited_environment(), **environment},
    )
    return process, log


def wait_for(port: int, process: subprocess.Popen[str], log: Path) -> None:
    """Until /healthz answers. Raises NotStarted with the end of the log."""
    give_up = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if process.poll() is not None or time.monotonic() > give_up:
                raise NotStarted(f"it did not come up: {log.read_text()[-2000:]}") from None
            time.sleep(0.05)
