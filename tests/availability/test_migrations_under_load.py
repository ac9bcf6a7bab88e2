"""Migrations beside requests and long reads: nobody waits long for them, and they get through."""

import asyncio

import asyncpg
import pytest

from app.commands import migrations
from app.errors import SchemaRefused
from app.postgres import schema_upgrade
from app.settings import load_settings
from testkit import databases
from verification.storms import migrations as storm

pytestmark = pytest.mark.timeout(240)


def test_no_request_fails_when_migrations_run_beside_a_long_read() -> None:
    """U8: the samples over 20,000 rows. `python -m verification.storms.migrations` has 1,000,000 and 60 s."""
    options = ["--rows", "20000", "--read-seconds", "3", "--rate", "10"]
    assert storm.main(options) == 0


async def test_a_sentence_is_the_answer_when_a_version_never_gets_its_locks(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """U8: before, a traceback after one try of 5 s."""
    monkeypatch.setattr(schema_upgrade, "TRIES", 3)
    monkeypatch.setattr(schema_upgrade, "_PAUSES", (0.0, 0.1))
    await asyncio.to_thread(databases.migrate, empty_database_url, "0015")
    connection = await asyncpg.connect(empty_database_url)
    settings = load_settings({"DATABASE_URL": empty_database_url}, process="migrate")
    try:
        async with connection.transaction():
            await connection.execute("lock table alembic_version in share mode")
            with pytest.raises(SchemaRefused, match="did not get its locks in 3 tries of 1 s each"):
                await asyncio.to_thread(migrations.upgrade, settings)
        assert await connection.fetchval("select version_num from alembic_version") == "0015"
        migrated = await asyncio.to_thread(migrations.upgrade, settings)
    finally:
        await connection.close()
    assert migrated.revision >= "0016"


def test_a_version_has_at_least_ten_tries() -> None:
    """U8: a second each, with pauses that let the statements behind a try through."""
    assert schema_upgrade.TRIES >= 10 and schema_upgrade.LOCK_SECONDS == 1
    assert min(schema_upgrade._PAUSES) >= schema_upgrade.LOCK_SECONDS
