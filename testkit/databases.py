"""Databases for tests: one migrated template, and a fresh copy of it for every test that asks.

A template is named by the day and by what the migrations say, so it outlives a run and is never out of date.
What killed runs leave behind is dropped on a later day.
"""

import asyncio
import hashlib
import os
import re
import secrets
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

CHECKOUT = Path(__file__).parents[1]
PREFIX = "coseat_test_"
# Any number; test runs that share a server make the template in turn.
TEMPLATE_LOCK = 7_203_911_641
TEMPLATE_SOURCES = (
    "migrations/env.py",
    "migrations/versions/*.py",
    "app/**/*.sql",
    "app/postgres/tables/*.py",
)


def database_at(url: str, name: str) -> str:
    """`url` with another database; by hand, since urllib drops the empty host of a socket's URL."""
    return re.sub(r"^(postgres(?:ql)?://[^/?]*)(?:/[^?]*)?", rf"\g<1>/{name}", url)


def new_name() -> str:
    return f"{PREFIX}{datetime.now(UTC):%Y%m%d}_{secrets.token_hex(6)}"


def template_name() -> str:
    digest = hashlib.sha256()
    for pattern in TEMPLATE_SOURCES:
        for path in sorted(CHECKOUT.glob(pattern)):
            digest.update(path.read_bytes())
    return f"{PREFIX}{datetime.now(UTC):%Y%m%d}_template_{digest.hexdigest()[:12]}"


def migrate(url: str, revision: str = "head") -> None:
    """Run `alembic upgrade` as an operator would. Raises AssertionError with its output."""
    alembic(url, "upgrade", revision)


def alembic(url: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"alembic {' '.join(arguments)}:\n{result.stdout}{result.stderr}"
    return result.stdout + result.stderr


def ensure_template(server_url: str) -> str:
    """The name of a migrated database that nobody connects to, made on the server if it is not there."""
    return asyncio.run(_ensure_template(server_url))


def clone(server_url: str, template: str) -> str:
    """The URL of a fresh copy of `template`."""
    name = new_name()
    asyncio.run(_execute(server_url, f'create database "{name}" template "{template}"'))
    return database_at(server_url, name)


def create_empty(server_url: str) -> str:
    """The URL of a fresh database without tables."""
    return clone(server_url, "template0")


def create_with_unicode_rules(server_url: str) -> str:
    """The URL of a fresh, migrated database whose `lower()` follows Unicode, as at most installations."""
    name = new_name()
    rules = "template template0 encoding 'UTF8' locale 'C.UTF-8'"
    asyncio.run(_execute(server_url, f'create database "{name}" {rules}'))
    url = database_at(server_url, name)
    migrate(url)
    return url


def drop(server_url: str, url: str) -> None:
    """Drop the database of `url`, whoever is still connected."""
    name = urlsplit(url).path.lstrip("/")
    asyncio.run(_execute(server_url, f'drop database if exists "{name}" with (force)'))


async def _ensure_template(server_url: str) -> str:
    name = template_name()
    connection = await asyncpg.connect(server_url)
    try:
        await connection.execute("select pg_advisory_lock($1)", TEMPLATE_LOCK)
        present = {row["datname"] for row in await connection.fetch("select datname from pg_database")}
        if name in present:
            return name
        await _drop_leftovers(connection, present)
        unfinished = f"{name}_unfinished"
        await connection.execute(f'drop database if exists "{unfinished}" with (force)')
        await connection.execute(f'create database "{unfinished}" template template0')
        await asyncio.to_thread(migrate, database_at(server_url, unfinished))
        await connection.execute(f'alter database "{unfinished}" with allow_connections false')
        await connection.execute(f'alter database "{unfinished}" rename to "{name}"')
    finally:
        await connection.close()
    return name


async def _drop_leftovers(connection: "asyncpg.Connection[asyncpg.Record]", present: set[str]) -> None:
    yesterday = f"{datetime.now(UTC) - timedelta(days=1):%Y%m%d}"
    for name in present:
        made = re.match(rf"{PREFIX}(\d{{8}})_", name)
        if made is not None and made[1] < yesterday:
            with suppress(asyncpg.PostgresError):  # Another run may be dropping it too.
                await connection.execute(f'drop database if exists "{name}" with (force)')


async def _execute(server_url: str, statement: str) -> None:
    connection = await asyncpg.connect(server_url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
