"""Migrations run up, down and up again, say what the tables say, and never wait long for a lock."""

from pathlib import Path

import asyncpg
import pytest

from tests.support.databases import CHECKOUT, alembic

VERSIONS = sorted((CHECKOUT / "migrations" / "versions").glob("*.py"))


async def tables_of(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("select tablename from pg_tables where schemaname = 'public'")
    finally:
        await connection.close()
    return {row["tablename"] for row in rows} - {"alembic_version"}


async def test_up_down_and_up_again(empty_database_url: str) -> None:
    alembic(empty_database_url, "upgrade", "head")
    there = await tables_of(empty_database_url)
    assert there
    alembic(empty_database_url, "downgrade", "base")
    assert await tables_of(empty_database_url) == set()
    alembic(empty_database_url, "upgrade", "head")
    assert await tables_of(empty_database_url) == there


async def test_a_url_with_what_only_the_driver_knows(empty_database_url: str) -> None:
    joint = "&" if "?" in empty_database_url else "?"
    alembic(f"{empty_database_url}{joint}sslmode=disable", "upgrade", "head")
    assert await tables_of(empty_database_url)


def test_the_tables_are_what_the_migrations_make(database_url: str) -> None:
    assert "No new upgrade operations detected" in alembic(database_url, "check")


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.stem)
def test_every_migration_bounds_its_wait_for_locks(version: Path) -> None:
    text = version.read_text()
    assert text.count("op.execute(LOCK_TIMEOUT)") == 2, (
        "in upgrade and in downgrade, as script.py.mako has it"
    )
    assert "lock_timeout = " in text
