"""An API process and a worker over a PostgreSQL of their own; each can be killed, and is started again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg

from app.commands.child_processes import ChildProcesses
from app.commands.local_postgres import LocalPostgres
from app.commands.migrations import upgrade
from app.settings import inherited_environment, load_settings

COMMANDS = {"api": "serve", "worker": "worker"}
POSTGRES = "postgres"
NAMES = (*COMMANDS, POSTGRES)
LOOK_SECONDS = 0.2


@contextmanager
def empty_database(logs: Path) -> Iterator[tuple[LocalPostgres, str]]:
    """A PostgreSQL that syncs its commits to the disk, and the URL of a migrated database without rows."""
    postgres = LocalPostgres(logs / "postgres-crashes")
    postgres.start()
    try:
        postgres.ensure_database("crashes")
        url = postgres.url("crashes")
        asyncio.run(_emptied(url))
        upgrade(load_settings({"DATABASE_URL": url}, process="migrate"))
        yield postgres, url
    finally:
        postgres.stop()


async def _emptied(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("drop schema public cascade; create schema public")
    finally:
        await connection.close()


class Victims:
    """`environment` has the processes' variables. `kills` counts by name.

    A process that ends is started again, as a supervisor would: those that were killed, and those that found
    PostgreSQL starting when they started themselves.
    """

    def __init__(
        self, children: ChildProcesses, postgres: LocalPostgres, logs: Path, environment: Mapping[str, str]
    ) -> None:
        self.kills: Counter[str] = Counter()
        self._children = children
        self._postgres = postgres
        self._logs = logs
        self._environment = environment
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._started = 0

    @asynccontextmanager
    async def kept_running(self) -> AsyncIterator[None]:
        """Start the API process and the worker, and start them again during the block."""
        keeping = asyncio.create_task(self._keep_running())
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _keep_running(self) -> None:
        while True:
            for name in COMMANDS:
                child = self._running.get(name)
                if child is None or child.poll() is not None:
                    self._start(name)
            await asyncio.sleep(LOOK_SECONDS)

    def _start(self, name: str) -> None:
        self._started += 1
        log = self._logs / f"crashes-{name}.log"
        self._running[name] = self._children.spawn(
            f"{name}-{self._started}",
            ["/bin/sh", "-c", f'exec "$0" -m app {COMMANDS[name]} >>"$1" 2>&1', sys.executable, str(log)],
            environment={**inherited_environment(), **self._environment},
        )

    async def kill_often(self, kills: int, every: float, seed: int) -> None:
        """Kill each once, and then whichever the seed draws, with `every` seconds before each."""
        rng = random.Random(seed)
        for number in range(kills):
            await asyncio.sleep(every)
            name = NAMES[number] if number < len(NAMES) else rng.choice(NAMES)
            self.kills[name] += 1
            if name == POSTGRES:
                await asyncio.to_thread(self._crash_postgres)
            else:
                self._running[name].kill()

    def _crash_postgres(self) -> None:
        """Kill PostgreSQL and start it again. Raises LookupError if it does not run."""
        pid = self._postgres.postmaster_pid()
        if pid is None:
            raise LookupError("PostgreSQL is not running")
        os.kill(pid, signal.SIGKILL)
        self._postgres.start()
