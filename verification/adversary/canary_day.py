"""The day that the canaries live through, and the search for them afterwards."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import asyncpg
import httpx

from app.settings import SettingsError, load_settings
from testkit import databases
from testkit.database_proxy import DatabaseProxy
from testkit.ports import free_port
from testkit.receiver import Receiver, receiving
from testkit.service import AUDIENCE, ISSUER, UNLIMITED, api_process, worker_process
from testkit.simulator import Simulator
from verification.adversary.canary_caller import Account, Caller, Diary
from verification.adversary.canary_events import Hooks, told_too_much, was_posted
from verification.adversary.canary_list import Canary

_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("migrate",),
    ("sync",),
    ("reconcile",),
    ("reconcile", "--json"),
    ("doctor",),
    ("doctor", "--json"),
    ("replay",),
)
_WITHOUT_DATABASE: tuple[tuple[str, ...], ...] = (("serve",), ("sync",), ("doctor", "--json"), ("migrate",))
_MISCONFIGURED = (
    "STRIPE_API_KEY",
    "STRIPE_WEBHOOK_SECRETS",
    "DATABASE_URL",
    "AUTH_JWT_SECRET",
    "SERVICE_KEYS",
    "INVITATION_SECRETS",
    "WEBHOOK_ENCRYPTION_KEYS",
)
_REFUSING = (
    "customers",
    "subscriptions",
    "operations",
    "idempotency_keys",
    "events",
    "webhook_endpoints",
    "webhook_deliveries",
)
"""Tables that take no row for a while."""

T = TypeVar("T")


@dataclass
class Found:
    """`hits`: canary and place; `kept`: the named columns in which each was found; `unseen`: in none of its columns,
    or in no posted invitation; `events`: how many of each type were posted, read and shown."""

    canaries: list[str]
    hits: list[str]
    kept: dict[str, list[str]]
    unseen: list[str]
    processes: int
    log_bytes: int
    error_answers: int
    metrics_bytes: int
    events: Mapping[str, int]
    columns: int
    rows: int


class Day:
    """`log`: the file that Postgres writes, None where it is not at hand. `short`: each kind of trouble once."""

    def __init__(self, simulator: str, server_url: str, log: Path | None, *, short: bool = False) -> None:
        self.diary = Diary(short)
        self._simulator = simulator
        self._server_url = server_url
        self._log = log
        self._log_start = log.stat().st_size if log is not None and log.exists() else 0

    def run(self) -> Found:
        """AssertionError where a step of the day does not go as it is meant to."""
        database = databases.clone(self._server_url, databases.ensure_template(self._server_url))
        role = f"canary_{os.getpid()}_{time.monotonic_ns()}"
        try:
            return asyncio.run(self._day(database, role))
        finally:
            databases.drop(self._server_url, database)
            asyncio.run(_execute(self._server_url, f'drop role if exists "{role}"'))

    async def _day(self, database: str, role: str) -> Found:
        password = self.diary.canaries.database_password.value
        await _execute(self._server_url, f"create role \"{role}\" superuser login password '{password}'")
        door = DatabaseProxy(database)
        await door.open()
        try:
            through = urlsplit(door.url)
            name = urlsplit(database).path
            url = f"postgresql://{role}:{password}@127.0.0.1:{through.port}{name}?sslmode=disable"
            key = self.diary.canaries.stripe_key.value
            async with Simulator(self._simulator, key) as stripe, receiving() as receiver:
                await self._live(stripe, receiver, url, database)
            await door.shut()
            await asyncio.to_thread(self._fail_to_start, self._environment(url, free_port()))
            return await self._search(database)
        finally:
            await door.shut()

    def _environment(self, database_url: str, port: int) -> dict[str, str]:
        chosen = self.diary.canaries
        digest = hashlib.sha256(chosen.service_key.value.encode()).hexdigest()
        keys = [{"name": "canary", "sha256": digest, "scopes": ["read", "write", "admin"]}]
        return {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ},
            **UNLIMITED,
            "DATABASE_URL": database_url,
            "STRIPE_API_KEY": chosen.stripe_key.value,
            "STRIPE_API_BASE": self._simulator,
            "STRIPE_WEBHOOK_SECRETS": chosen.webhook_secret.value,
            "STRIPE_RATE_LIMIT": "1000",
            "AUTH_JWT_SECRET": chosen.jwt_secret.value,
            "AUTH_ISSUER": ISSUER,
            "AUTH_AUDIENCE": AUDIENCE,
            "SERVICE_KEYS": json.dumps(keys),
            "INVITATION_SECRETS": chosen.invitation_secret.value,
            "WEBHOOK_ENCRYPTION_KEYS": chosen.encryption_key.value,
            "WEBHOOK_TIMEOUT": "2",
            "METRICS_TOKEN": chosen.metrics_token.value,
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "DRAIN_SECONDS": "0",
            "LOG_LEVEL": "debug",
            "STRIPE_LOG": "debug",
            "HTTPX_LOG_LEVEL": "debug",
        }

    async def _live(self, stripe: Simulator, receiver: Receiver, url: str, database: str) -> None:
        account = await Account.stocked(stripe, self.diary.canaries)
        port = free_port()
        environment = self._environment(url, port)
        for command in _COMMANDS[:2]:
            assert await asyncio.to_thread(self._command, environment, command) == 0, command
        secret = await stripe.add_webhook_endpoint(f"http://127.0.0.1:{port}/webhooks/stripe")
        self.diary.made.append(Canary("second webhook secret", secret, (secret,)))
        environment["STRIPE_WEBHOOK_SECRETS"] += f",{secret}"
        async with _off_loop() as first:
            base_url, api = await first(api_process(environment, port=port))
            worker = await first(worker_process(environment))
            self.diary.printed |= {"api": api.lines, "worker": worker.lines}
            async with httpx.AsyncClient(base_url=base_url, timeout=30.0) as client:
                caller = Caller(self.diary, client, account)
                hooks = Hooks(caller, receiver)
                await hooks.begin()
                await caller.whole_day(stripe)
                await self._refuse_rows(caller, hooks, stripe, database)
                await self._lose_connections(caller, database)
                # Killed in the middle of a request.
                await stripe.add_fault(latency_s=1.0, times=2)
                lost = asyncio.create_task(caller.change_name("the second"))
                await asyncio.sleep(0.3)
                api.process.kill()
                worker.process.kill()
                await asyncio.gather(lost, return_exceptions=True)
        await stripe.clear_faults()
        async with _off_loop() as second:
            base_url, api = await second(api_process(environment, port=port))
            worker = await second(worker_process(environment))
            self.diary.printed |= {"api again": api.lines, "worker again": worker.lines}
            async with httpx.AsyncClient(base_url=base_url, timeout=30.0) as client:
                caller = Caller(self.diary, client, account)
                await caller.reads()
                await caller.machines()
                event_id = await Hooks(caller, receiver).end()
            for shown in (("events", "list"), ("events", "show", event_id, "--json")):
                await asyncio.to_thread(self._command, environment, shown)
            for command in _COMMANDS[-2:] if self.diary.short else _COMMANDS[1:]:
                await asyncio.to_thread(self._command, environment, command)

    async def _refuse_rows(self, caller: Caller, hooks: Hooks, stripe: Simulator, database: str) -> None:
        """A constraint that the cache's rows break: Postgres names the whole row in what it answers."""
        for table in _REFUSING:
            await _execute(database, f"alter table {table} add constraint refused check (false) not valid")
        try:
            await caller.change_name("the third")
            await caller.writes("refused")
            await hooks.more()
            await stripe.post(f"/v1/customers/{caller.account.owner}", description="seen by the worker")
            await asyncio.sleep(1.0)
        finally:
            for table in _REFUSING:
                await _execute(database, f"alter table {table} drop constraint refused")

    async def _lose_connections(self, caller: Caller, database: str) -> None:
        name = urlsplit(database).path.strip("/")
        for _ in range(3):
            asked = asyncio.create_task(caller.reads())
            await _execute(
                self._server_url,
                f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'",
            )
            await asked

    def _command(self, environment: Mapping[str, str], command: tuple[str, ...]) -> int:
        done = subprocess.run(
            [sys.executable, "-m", "app", *command],
            env=dict(environment),
            cwd=databases.CHECKOUT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        lines = self.diary.printed.setdefault(f"{' '.join(command)} {len(self.diary.printed)}", [])
        lines += [*done.stdout.splitlines(), *done.stderr.splitlines()]
        return done.returncode

    def _fail_to_start(self, environment: Mapping[str, str]) -> None:
        """The database is away, and then each secret in turn is not what it should be."""
        for command in _WITHOUT_DATABASE[: 1 if self.diary.short else None]:
            assert self._command(environment, command) != 0, command
        settings = load_settings(environment, process="serve")
        self.diary.printed["settings"] = [repr(settings), str(settings), settings.model_dump_json()]
        for variable in _MISCONFIGURED:
            value = environment[variable]
            spoiled = value[:24] if variable == "AUTH_JWT_SECRET" else f"\u00e4 {value}"
            try:
                load_settings({**environment, variable: spoiled}, process="serve")
            except SettingsError as error:
                self.diary.printed[f"refusal of {variable}"] = [str(error), repr(error)]
            else:
                raise AssertionError(f"{variable} was taken as it should not be")
        spoiled = f"\u00e4 {environment['STRIPE_API_KEY']}"
        assert self._command({**environment, "STRIPE_API_KEY": spoiled}, ("serve",)) == 2

    # The search.

    async def _search(self, database: str) -> Found:
        everybody = [*self.diary.canaries.all(), *self.diary.made]
        log = b"" if self._log is None else self._log.read_bytes()[self._log_start :]
        printed = {name: "\n".join(lines) for name, lines in self.diary.printed.items()}
        printed["postgres"] = log.decode(errors="replace")
        hits: list[str] = []
        for canary in everybody:
            hits += [
                f"{canary.name}: printed by {name}" for name, text in printed.items() if _in(canary, text)
            ]
            hits += [f"{canary.name}: in the metrics" for text in self.diary.metrics if _in(canary, text)]
            if not canary.told:
                hits += [
                    f"{canary.name}: told by {what}" for what, text in self.diary.errors if _in(canary, text)
                ]
        columns, rows, places = await _places(database, everybody)
        kept: dict[str, list[str]] = {}
        for canary in everybody:
            for place in sorted(places.get(canary.name, ())):
                if place in canary.columns:
                    kept.setdefault(canary.name, []).append(".".join(place))
                else:
                    hits.append(f"{canary.name}: kept in {'.'.join(place)}")
        hits += told_too_much(self.diary, everybody)
        return Found(
            canaries=[canary.name for canary in everybody],
            hits=sorted(set(hits)),
            kept=kept,
            unseen=[
                canary.name
                for canary in everybody
                if canary.columns
                and (canary.name not in kept or (canary.posted and not was_posted(self.diary, canary)))
            ],
            processes=len(printed),
            log_bytes=sum(len(text.encode()) for text in printed.values()),
            error_answers=len(self.diary.errors),
            metrics_bytes=sum(len(text) for text in self.diary.metrics),
            events=Counter(what for what, _ in self.diary.told),
            columns=columns,
            rows=rows,
        )


@asynccontextmanager
async def _off_loop() -> AsyncIterator[Callable[[AbstractContextManager[T]], Awaitable[T]]]:
    """Enters context managers, and leaves them, in another thread: the door to the database must go on."""
    stack = ExitStack()

    async def enter(manager: AbstractContextManager[T]) -> T:
        return await asyncio.to_thread(stack.enter_context, manager)

    try:
        yield enter
    finally:
        await asyncio.to_thread(stack.close)


def _in(canary: Canary, text: str) -> bool:
    lowered = text.lower()
    return any(mark.lower() in lowered for mark in canary.marks)


async def _places(database: str, canaries: list[Canary]) -> tuple[int, int, dict[str, set[tuple[str, str]]]]:
    """Number of columns and rows looked through, and by canary the columns that hold it."""
    connection = await asyncpg.connect(database)
    try:
        tables = await connection.fetch("select tablename from pg_tables where schemaname = 'public'")
        columns = rows = 0
        places: dict[str, set[tuple[str, str]]] = {}
        for table in (row["tablename"] for row in tables):
            found = await connection.fetch(f'select * from "{table}"')
            columns += len(found[0]) if found else 0
            rows += len(found)
            for row in found:
                for column, value in row.items():
                    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
                    for canary in canaries:
                        if _in(canary, text):
                            places.setdefault(canary.name, set()).add((table, column))
    finally:
        await connection.close()
    return columns, rows, places


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
