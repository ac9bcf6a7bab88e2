"""Seven events of one subscription's life, in each of their 5,040 orders: every order ends as the truth."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from app.domain.snapshots import Subscription, SubscriptionItem
from app.mirror.ingest import Ingest
from app.mirror.store import refreshes
from app.mirror.store import rows as mirror
from app.mirror.store.rows import EventRecord
from app.postgres.database import Database
from testkit.snapshots import SUBSCRIPTION, like

MARGIN = 2
AT_ONCE = 720
BORN = 1_000
LIVE = [
    # (seconds after the first event, what it says); two of them fall into the second of another.
    (0, {"status": "incomplete"}),
    (0, {"status": "active"}),
    (1, {"cancel_at_period_end": True}),
    (8, {"cancel_at_period_end": False, "quantity": 6}),
    (8, {"quantity": 7}),
    (30, {"status": "past_due"}),
    (60, {"status": "active", "quantity": 9}),
]
ENDING = [*LIVE[:-1], (60, {"status": "canceled", "quantity": 9})]


def states(life: list[tuple[int, dict[str, Any]]], object_id: str) -> list[Subscription]:
    """What each event carries: all that was said so far."""
    said: dict[str, Any] = {"status": "incomplete", "quantity": 5, "cancel_at_period_end": False}
    found = []
    for _, change in life:
        said |= change
        first: SubscriptionItem = SUBSCRIPTION.items[0]
        item = SubscriptionItem(
            first.id,
            first.price_id,
            first.product_id,
            said["quantity"],
            False,
            first.current_period_start,
            None,
        )
        found.append(
            like(
                SUBSCRIPTION,
                id=object_id,
                status=said["status"],
                items=[item],
                cancel_at_period_end=said["cancel_at_period_end"],
            )
        )
    return found


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await Database.connect(database_url, pool_size=6)
    yield database
    await database.close()


@pytest.fixture(
    params=[pytest.param(LIVE, id="still running"), pytest.param(ENDING, id="cancelled in the end")]
)
def life(request: pytest.FixtureRequest) -> list[tuple[int, dict[str, Any]]]:
    found: list[tuple[int, dict[str, Any]]] = request.param
    return found


async def test_every_order_ends_equal(database: Database, life: list[tuple[int, dict[str, Any]]]) -> None:
    """Every order is an object of its own; one event of each is delivered at a time, in groups as under load.

    What the payloads leave open is fetched once, at the end: the rule needs no fetch between two events.
    """
    ingest = Ingest()
    orders = list(itertools.permutations(range(len(life))))
    assert len(orders) == 5_040
    for first in range(0, len(orders), AT_ONCE):
        batch = {f"sub_{first + n}": order for n, order in enumerate(orders[first : first + AT_ONCE])}
        told = {object_id: states(life, object_id) for object_id in batch}
        for position in range(len(life)):
            await asyncio.gather(
                *(
                    ingest.apply(
                        database,
                        EventRecord(
                            f"evt_{object_id}_{order[position]}",
                            "customer.subscription.updated",
                            object_id,
                            BORN + life[order[position]][0],
                            usable=True,
                            reason="",
                        ),
                        told[object_id][order[position]],
                        margin=MARGIN,
                    )
                    for object_id, order in batch.items()
                )
            )
        await asyncio.gather(*(fetch_what_is_wanted(database, told) for _ in range(4)))
    async with database.connection() as connection:
        rows = await connection.fetch(
            "select status, items, cancel_at_period_end, count(*) as number from subscriptions group by 1, 2, 3"
        )
        wanted = await connection.fetchval("select count(*) from refreshes where notifications > 0")
    last = states(life, "sub_last")[-1]
    assert wanted == 0
    assert [row["number"] for row in rows] == [len(orders)], "all orders end equal"
    assert (rows[0]["status"], rows[0]["cancel_at_period_end"]) == (last.status, last.cancel_at_period_end)
    assert rows[0]["items"] == orjson.loads(orjson.dumps(last.items))


async def fetch_what_is_wanted(database: Database, told: dict[str, list[Subscription]]) -> None:
    """A worker; what it reads is the last state, a minute after the first."""
    while True:
        async with database.connection() as connection:
            leases = await refreshes.due(connection, limit=50, lease_seconds=30)
        if not leases:
            return
        for lease in leases:
            async with database.transaction() as connection:
                serial = await mirror.serial_of(connection, "subscription", lease.id)
                assert await mirror.apply_fetched(
                    connection, told[lease.id][-1], serial=serial, marker=BORN + 60
                )
                await refreshes.mark_applied(connection, lease)
