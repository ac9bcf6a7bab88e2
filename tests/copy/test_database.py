"""The pool at its end: what is still at work can delay it a little, and never hold it."""

import asyncio
import time

import pytest

from app.errors import ServiceUnavailable
from app.postgres.database import Database


async def sleeps(database: Database, seconds: float) -> None:
    async with database.connection() as connection:
        await connection.execute("select pg_sleep($1)", seconds)


@pytest.mark.parametrize(("seconds", "at_most"), [(0.5, 2), (60, 7)], ids=["ends soon", "does not end"])
async def test_a_pool_closes_while_work_goes_on(
    module_database_url: str, seconds: float, at_most: float
) -> None:
    database = await Database.connect(module_database_url, pool_size=2)
    await sleeps(database, 0)
    at_work = asyncio.create_task(sleeps(database, seconds))
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await asyncio.wait_for(database.close(), 20)
    assert time.monotonic() - began < at_most
    with pytest.raises(ServiceUnavailable):
        await sleeps(database, 0)
    [ended] = await asyncio.gather(at_work, return_exceptions=True)
    assert ended is None if seconds < 1 else isinstance(ended, ServiceUnavailable)
