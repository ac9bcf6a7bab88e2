"""The pool's waiting callers: who waited longest is next, and no connection is lost on its way to them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.errors import ServiceUnavailable
from app.postgres import pools
from app.postgres.database import Database


@pytest.fixture
async def one(module_database_url: str) -> AsyncIterator[Database]:
    """A database with one connection for changes."""
    database = await Database.connect(module_database_url, pool_size=2)
    yield database
    await database.close()


async def backend(database: Database) -> int:
    async with database.connection() as connection:
        return int(await connection.fetchval("select pg_backend_pid()"))


async def waiting(database: Database, callers: int) -> None:
    for _ in range(3000):
        if database.usage()["changes"].waiting == callers:
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"{callers} callers never waited")


async def test_connection_is_handed_over_in_the_order_of_arrival_when_callers_wait(one: Database) -> None:
    order: list[int] = []

    async def ask(number: int) -> int:
        found = await backend(one)
        order.append(number)
        return found

    async with one.connection() as connection:
        own = await connection.fetchval("select pg_backend_pid()")
        asked = []
        for number in range(5):
            asked.append(asyncio.create_task(ask(number)))
            await waiting(one, number + 1)
    assert await asyncio.gather(*asked) == [own] * 5
    assert order == [0, 1, 2, 3, 4]
    assert one.usage()["changes"] == (0, 1, 0)


@pytest.mark.parametrize("when", ["before it is handed over", "in the same moment"])
async def test_next_caller_gets_the_connection_when_the_first_is_cancelled(one: Database, when: str) -> None:
    async with one.connection():
        first = asyncio.create_task(backend(one))
        await waiting(one, 1)
        second = asyncio.create_task(backend(one))
        await waiting(one, 2)
        if when == "before it is handed over":
            first.cancel()
            await waiting(one, 1)
    first.cancel()
    async with asyncio.timeout(3):
        assert await second
    assert (await asyncio.gather(first, return_exceptions=True))[0].__class__ is asyncio.CancelledError
    assert one.usage()["changes"] == (0, 1, 0)


async def test_connection_is_kept_when_the_only_caller_that_waits_is_cancelled_in_the_same_moment(
    one: Database,
) -> None:
    async with one.connection() as connection:
        own = await connection.fetchval("select pg_backend_pid()")
        only = asyncio.create_task(backend(one))
        await waiting(one, 1)
    only.cancel()
    assert (await asyncio.gather(only, return_exceptions=True))[0].__class__ is asyncio.CancelledError
    assert await backend(one) == own


async def test_caller_that_waits_opens_a_connection_when_the_one_in_use_is_lost(one: Database) -> None:
    lost = await backend(one)

    async def is_ended() -> None:
        async with one.connection() as connection:
            await waiting(one, 1)
            await connection.execute("select pg_terminate_backend(pg_backend_pid())")

    ended = asyncio.create_task(is_ended())
    next_one = asyncio.create_task(backend(one))
    async with asyncio.timeout(3):
        assert await next_one != lost
    with pytest.raises(ServiceUnavailable):
        await ended


async def test_caller_gets_no_old_connection_when_all_were_replaced_while_it_was_handed_over(
    one: Database,
) -> None:
    async with one.connection() as connection:
        old = await connection.fetchval("select pg_backend_pid()")
        next_one = asyncio.create_task(backend(one))
        await waiting(one, 1)
    one._replace_all()
    # What was handed over may still be used once, as if the block had begun before.
    assert await next_one == old
    assert await backend(one) != old


async def test_caller_is_refused_when_no_connection_comes_in_time(
    one: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with one.connection():
        monkeypatch.setattr(pools, "_ACQUIRE_SECONDS", 0.1)
        with pytest.raises(ServiceUnavailable):
            await backend(one)
        assert one.usage()["changes"] == (1, 0, 0)
    assert await backend(one)


async def test_no_connection_is_lost_when_many_callers_come_go_and_fail(module_database_url: str) -> None:
    database = await Database.connect(module_database_url, pool_size=6)

    async def ask(number: int) -> None:
        async with database.connection() as connection:
            if number % 11 == 0:
                await connection.execute("select pg_terminate_backend(pg_backend_pid())")
            await connection.execute("select pg_sleep(0.001)")

    asked = [asyncio.create_task(ask(number)) for number in range(400)]
    for number in range(0, 400, 7):
        await asyncio.sleep(0)
        asked[number].cancel()
    async with asyncio.timeout(30):
        ended = await asyncio.gather(*asked, return_exceptions=True)
    kinds = {type(one) for one in ended}
    assert kinds == {type(None), ServiceUnavailable, asyncio.CancelledError}
    busy, idle, still_waiting = database.usage()["changes"]
    assert (busy, still_waiting) == (0, 0) and idle <= 3
    # All three places can be used at the same time.
    async with asyncio.timeout(5), database.connection(), database.connection(), database.connection():
        assert database.usage()["changes"].busy == 3
    await database.close()
