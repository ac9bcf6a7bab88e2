"""One database a module, empty for every test, through the pool that the service uses."""

from collections.abc import AsyncIterator, Iterator

import pytest

from app.postgres.database import Connection, Database
from app.postgres.tables import MIRRORED, refreshes, webhook_events
from tests.support import databases


@pytest.fixture(scope="module")
def module_database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    url = databases.clone(postgres_url, template_database)
    yield url
    databases.drop(postgres_url, url)


@pytest.fixture
async def database(module_database_url: str) -> AsyncIterator[Database]:
    database = await Database.connect(module_database_url, pool_size=6)
    async with database.connection() as connection:
        for table in (*MIRRORED, refreshes, webhook_events):
            await connection.execute(f"delete from {table.name}")
    yield database
    await database.close()


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[Connection]:
    """In autocommit."""
    async with database.connection() as connection:
        yield connection
