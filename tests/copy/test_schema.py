"""The migration that the code asks for is the newest one there is."""

import re
from pathlib import Path

from app.postgres import schema
from app.postgres.database import Connection, Database
from testkit.databases import CHECKOUT

VERSIONS = CHECKOUT / "migrations" / "versions"


def revision(path: Path) -> str:
    found = re.search(r'^revision\b[^=]*= "(\w+)"', path.read_text(), re.MULTILINE)
    assert found is not None, path
    return found[1]


def test_the_head_is_the_newest_file() -> None:
    assert max(revision(path) for path in VERSIONS.glob("*.py")) == schema.HEAD


async def test_schema_fits_when_it_is_this_releases_or_newer(connection: Connection) -> None:
    assert await schema.fits(connection)
    await connection.execute("update alembic_version set version_num = '0110'")
    assert await schema.fits(connection)
    await connection.execute("update schema_floor set number = 105")
    assert not await schema.fits(connection)
    await connection.execute("update schema_floor set number = 10")
    await connection.execute("update alembic_version set version_num = '0009'")
    assert not await schema.fits(connection)
    await connection.execute("update alembic_version set version_num = $1", schema.HEAD)


async def test_schema_does_not_fit_when_the_database_is_empty(empty_database_url: str) -> None:
    database = await Database.connect(empty_database_url, pool_size=1)
    try:
        async with database.connection() as connection:
            assert await schema.read_schema_state(connection) == schema.SchemaState(number=None, floor=0)
            assert not await schema.fits(connection)
    finally:
        await database.close()
