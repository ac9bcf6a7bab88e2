"""Group commit: who travels with whom, and that nobody is harmed by the company."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.domain.snapshots import Customer
from app.errors import ServiceUnavailable
from app.mirror.ingest import Ingest
from app.mirror.store.rows import EventEffect, EventRecord
from app.postgres.database import Database, StatementRefused
from testkit.snapshots import CUSTOMER, PRODUCT, like

APPLIED = EventEffect(claimed=True, outcome="applied")
numbers = itertools.count(1)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await Database.connect(database_url, pool_size=4)
    yield database
    await database.close()


def news(snapshot: Any, created: int, *, id: str | None = None) -> tuple[EventRecord, Any]:
    event_id = id or f"evt_{next(numbers)}"
    return EventRecord(event_id, "some.event", snapshot.id, created, usable=True, reason=""), snapshot


async def apply_all(database: Database, all_news: list[tuple[EventRecord, Any]]) -> list[Any]:
    ingest = Ingest()
    return await asyncio.gather(
        *(ingest.apply(database, event, snapshot, margin=2) for event, snapshot in all_news),
        return_exceptions=True,
    )


async def value(database: Database, query: str) -> Any:
    async with database.connection() as connection:
        return await connection.fetchval(query)


def customers(number: int) -> list[Customer]:
    return [like(CUSTOMER, id=f"cus_{n}") for n in range(number)]


async def test_events_that_wait_together_share_a_commit(database: Database) -> None:
    effects = await apply_all(database, [news(one, 1000) for one in customers(50)])
    assert effects == [APPLIED] * 50
    assert await value(database, "select count(*) from customers") == 50
    assert await value(database, "select count(distinct xmin::text) from webhook_events") == 1


async def test_an_event_alone_goes_at_once(database: Database) -> None:
    assert await apply_all(database, [news(CUSTOMER, 1000)]) == [APPLIED]


async def test_two_events_of_one_object_never_share_a_statement(database: Database) -> None:
    waves = [news(like(CUSTOMER, name=f"at {at}"), at) for at in range(1000, 1100, 10)]
    assert await apply_all(database, waves) == [APPLIED] * 10
    assert await value(database, "select name from customers") == "at 1090"
    assert await value(database, "select serial from customers") == 10


async def test_two_deliveries_of_one_event_are_one(database: Database) -> None:
    effects = await apply_all(database, [news(CUSTOMER, 1000, id="evt_twice") for _ in range(5)])
    assert sorted(effect.claimed for effect in effects) == [False] * 4 + [True]


async def test_what_postgres_refuses_fails_alone(database: Database) -> None:
    poison = like(CUSTOMER, id="cus_poison", balance="much")
    effects = await apply_all(
        database, [news(one, 1000) for one in (*customers(5), poison, *customers(9)[5:])]
    )
    assert [effect for effect in effects if effect != APPLIED] == [effects[5]]
    assert isinstance(effects[5], StatementRefused)
    assert await value(database, "select count(*) from customers") == 9


async def test_kinds_do_not_wait_for_each_other(database: Database) -> None:
    assert await apply_all(database, [news(CUSTOMER, 1000), news(PRODUCT, 1000)]) == [APPLIED] * 2


async def test_without_a_database_nobody_is_told_yes(database_url: str) -> None:
    database = await Database.connect(database_url, pool_size=1)
    await database.close()
    effects = await apply_all(database, [news(one, 1000) for one in customers(3)])
    assert all(isinstance(effect, ServiceUnavailable) for effect in effects)


async def test_a_request_that_is_given_up_takes_nobody_along(database: Database) -> None:
    ingest = Ingest()
    tasks = [asyncio.create_task(ingest.apply(database, *news(one, 1000), margin=2)) for one in customers(20)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    effects = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(effects[0], asyncio.CancelledError)
    assert effects[1:] == [APPLIED] * 19
