"""Work that one process may do at a time is held by a lease, which outlives neither its holder nor a pooler."""

import asyncio
import time

import pytest

from app.postgres import locks
from app.postgres.database import Database
from app.postgres.locks import exclusive

LOCKS = """select count(*) from pg_locks where locktype = 'advisory'
    and database = (select oid from pg_database where datname = current_database())"""
HELD = "select count(*) from exclusive_work"


async def number(database: Database, query: str) -> int:
    async with database.connection() as connection:
        return int(await connection.fetchval(query))


async def test_no_lock_of_the_session_is_taken_when_work_is_exclusive(database: Database) -> None:
    """U3: behind a pooler, such a lock stays with the pooler's session and is never released."""
    async with exclusive(database, "reconcile") as ours:
        assert ours
        assert await number(database, LOCKS) == 0 and await number(database, HELD) == 1
    assert await number(database, HELD) == 0


async def test_a_second_holder_is_refused_when_the_first_renews(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LEASE_SECONDS", 0.6)
    monkeypatch.setattr(locks, "_RENEWED_WITHIN", 0.4)
    async with exclusive(database, "reconcile") as first, exclusive(database, "upkeep") as other:
        assert first and other
        async with exclusive(database, "reconcile") as second:
            assert not second
        await asyncio.sleep(1.0)
        async with exclusive(database, "reconcile") as third:
            assert not third


async def test_a_second_holder_is_refused_when_the_first_ends_meanwhile(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work has just been done, so it is not done again."""
    monkeypatch.setattr(locks, "_RENEWED_WITHIN", 0.4)

    async def second() -> bool:
        async with exclusive(database, "reconcile") as ours:
            return ours

    async with exclusive(database, "reconcile"):
        asked = asyncio.create_task(second())
        await asyncio.sleep(0.1)
    assert not await asked
    assert await second()


async def test_the_work_is_free_within_seconds_when_its_holder_was_killed(database: Database) -> None:
    """The lease of a killed process is renewed no more."""
    async with database.connection() as connection:
        await connection.execute(
            "insert into exclusive_work values ('fill', gen_random_uuid(), clock_timestamp() + interval '1 second')"
        )
    began = time.monotonic()
    async with exclusive(database, "fill") as ours:
        assert ours
    assert time.monotonic() - began < locks.LEASE_SECONDS
