"""`python -m verification.storms.migrations`: migrations over a large table, under load and beside a long read.

An API process answers reads, and members are added. At the same time `alembic upgrade` runs the samples of
tests/availability/sample_migrations: a column with a default, an index that is made concurrently, and a constraint that
is added as NOT VALID and then validated. Beside each of them another session reads the customers in one transaction of
`--read-seconds`. No request may fail, and no try may wait for a lock for longer than 1 s (as PostgreSQL's views show
it, every 50 ms). One JSON line; the exit code is 1 on a miss.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config

from app.postgres.schema import HEAD
from testkit import seat_world
from testkit.databases import CHECKOUT
from testkit.seat_world import Json, World

SAMPLES = CHECKOUT / "tests" / "availability" / "sample_migrations"
LONGEST_WAIT = 1.3
"""Seconds: `lock_timeout` is 1 s, and a view is read every 50 ms on a machine that is busy."""
LEAST_TRIES = 10
LEAST_READ_FOR_TRIES = 30.0
"""With a read of at least so many seconds, there must be LEAST_TRIES tries."""
FILL = """
    insert into customers (id, created, balance, metadata_problems, further_memberships, marker, serial, existence,
        terminal)
    select 'cus_filler' || n, 1, 0, '[]', '{}', 0, 1, 'present', false
    from generate_series($1::int, $2::int) n"""
CONNECTS_WITHIN = 60
FILL_STEP = 50_000
MIGRATING = "select exists (select from pg_stat_get_activity(null) where application_name = 'migrating')"
WAITING = """
    select query_start, extract(epoch from clock_timestamp() - query_start)::float as seconds from pg_stat_activity
    where datname = current_database() and application_name = 'migrating' and wait_event_type = 'Lock'
      and query not ilike '%concurrently%'"""
"""An index that is made concurrently waits for older transactions, and nothing waits behind it."""


@dataclass
class Seen:
    """`waits`: seconds of each wait of a migration for a lock, by the beginning of its statement."""

    answers: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    waits: dict[datetime, float] = field(default_factory=dict)


def later_release(directory: Path) -> Path:
    """An `alembic.ini` of a release that has the samples after this release's versions."""
    shutil.copytree(CHECKOUT / "migrations", directory / "migrations")
    for number, sample in enumerate(sorted(SAMPLES.glob("*.py")), int(HEAD) + 1):
        source = sample.read_text().replace("NUMBER", f"{number:04}").replace("AFTER", f"{number - 1:04}")
        (directory / "migrations" / "versions" / f"{number:04}_{sample.stem[2:]}.py").write_text(source)
    ini = directory / "alembic.ini"
    configured = (CHECKOUT / "alembic.ini").read_text()
    ini.write_text(configured.replace("prepend_sys_path = %(here)s", f"prepend_sys_path = {CHECKOUT}"))
    return ini


async def fill(url: str, rows: int) -> None:
    connection = await asyncpg.connect(url)
    try:
        for first in range(1, rows + 1, FILL_STEP):
            await connection.execute(FILL, first, min(rows, first + FILL_STEP - 1))
        await connection.execute("analyze customers")
    finally:
        await connection.close()


async def read_long(url: str, seconds: float, begun: asyncio.Event) -> None:
    """Hold a snapshot and the lock of a reader until so many seconds after a migration has connected."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await connection.fetchval("select count(*) from customers")
            begun.set()
            await until_a_migration_connects(connection)
            await asyncio.sleep(seconds)
    finally:
        await connection.close()


async def until_a_migration_connects(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    for _ in range(CONNECTS_WITHIN * 100):
        # Inside a transaction, PostgreSQL shows the sessions as they were when they were first asked for.
        await connection.execute("select pg_stat_clear_snapshot()")
        if await connection.fetchval(MIGRATING):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("no migration has connected")


async def watch(url: str, seen: Seen, done: asyncio.Event) -> None:
    """Note how long each statement of the migration waits for a lock."""
    connection = await asyncpg.connect(url)
    try:
        while not done.is_set():
            for row in await connection.fetch(WAITING):
                seen.waits[row["query_start"]] = row["seconds"]
            await asyncio.sleep(0.05)
    finally:
        await connection.close()


async def load(world: World, seen: Seen, done: asyncio.Event, *, rate: float) -> None:
    """Read, and add members, until `done`."""
    company = await world.service.company(seats=5_000)
    headers = dict(company.owner.headers)

    async def ask(method: str, path: str, body: Json | None = None) -> None:
        began = time.monotonic()
        answer = await world.call(0, method, path, headers, body)
        seen.slowest = max(seen.slowest, time.monotonic() - began)
        seen.answers[f"{method} {answer.status_code}"] += 1

    async def repeat(method: str, path: str, pause: float) -> None:
        number = 0
        while not done.is_set():
            number += 1
            body = {"add": [{"email": f"load{number}@example.com"}]} if method == "PATCH" else None
            await asyncio.gather(ask(method, path, body), asyncio.sleep(pause))

    await asyncio.gather(
        repeat("GET", company.path, 1 / rate),
        repeat("GET", f"{company.path}/users", 1 / rate),
        repeat("PATCH", f"{company.path}/users", 4 / rate),
    )


async def migrated(url: str, ini: Path, number: int, read_seconds: float) -> float:
    """Run one version beside a read that begins before it, and return its seconds."""
    begun = asyncio.Event()
    reading = asyncio.create_task(read_long(url, read_seconds, begun))
    await begun.wait()
    began = time.monotonic()
    named = f"{url}{'&' if '?' in url else '?'}application_name=migrating"
    config = Config(str(ini))
    config.set_main_option("sqlalchemy.url", named.replace("%", "%%"))
    config.attributes["keep_logging"] = True
    await asyncio.to_thread(command.upgrade, config, f"{number:04}")
    seconds = time.monotonic() - began
    await reading
    return seconds


async def play(world: World, *, rows: int, read_seconds: float, rate: float) -> Json:
    url, seen, done = world.service.database_url, Seen(), asyncio.Event()
    await fill(url, rows)
    background = [
        asyncio.create_task(load(world, seen, done, rate=rate)),
        asyncio.create_task(watch(url, seen, done)),
    ]
    directory = Path(tempfile.mkdtemp(prefix="coseat-migrations-"))
    try:
        ini = later_release(directory)
        samples = len(list(SAMPLES.glob("*.py")))
        numbers = range(int(HEAD) + 1, int(HEAD) + 1 + samples)
        seconds = [await migrated(url, ini, number, read_seconds) for number in numbers]
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        done.set()
        await asyncio.gather(*background)
    longest = max(seen.waits.values(), default=0.0)
    return {
        "rows": rows,
        "answers": dict(seen.answers),
        "slowest_ms": round(seen.slowest * 1000),
        "versions_s": [round(one, 1) for one in seconds],
        "tries_that_waited": len(seen.waits),
        "longest_wait_ms": round(longest * 1000),
        "met": all(one.split()[1] in ("200", "202") for one in seen.answers)
        and 0 < longest <= LONGEST_WAIT
        and (read_seconds < LEAST_READ_FOR_TRIES or len(seen.waits) >= LEAST_TRIES),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the table (1000000)")
    parser.add_argument("--read-seconds", type=float, default=60.0, help="length of the read (60)")
    parser.add_argument("--rate", type=float, default=20.0, help="reads of each kind a second (20)")
    seat_world.state_option(parser)
    given = parser.parse_args(arguments)

    async def played(world: World) -> Json:
        return await play(world, rows=given.rows, read_seconds=given.read_seconds, rate=given.rate)

    found = seat_world.run("migrations", given.state, played)
    print(json.dumps(found))
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
