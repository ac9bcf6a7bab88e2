"""The migration that the code asks for is the newest one there is."""

import re
from pathlib import Path

from app.cache import schema
from app.cache.database import Connection, Database
from tests.support.databases import CHECKOUT

VERSIONS = CHECKOUT / "migrations" / "versions"


def revision(path: Path) -> str:
    found = re.search(r'^revision\b[^=]*= "(\w+)"', path.read_text(), re.MULTILINE)
    assert found is not None, path
    return found[1]


def test_the_head_is_the_newest_file() -> None:
    assert max(revision(path) for path in VERSIONS.glob("*.py")) == schema.HEAD


async def test_a_migrated_database_is_current(connection: Connection) -> None:
    assert await schema.is_current(connection)
    await connection.execute("update alembic_version set version_num = '0000'")
    assert not await schema.is_current(connection)
    await connection.execute("update alembic_version set version_num = $1", schema.HEAD)


async def test_an_empty_database_is_not(empty_database_url: str) -> None:
    database = await Database.connect(empty_database_url, pool_size=1)
    try:
        async with database.connection() as connection:
            assert not await schema.is_current(connection)
    finally:
        await database.close()
