"""What changes for a whole team is told page by page, never in the transaction of the webhook that changes it."""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest

from benchmarks import expansion
from testkit import growth
from testkit.company import Company, event_of, running_service
from testkit.simulator import Simulator, new_account_key

MEMBERS = 2_000
_TOUCHED = """
    select sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) + n_tup_ins + n_tup_upd + n_tup_del)::bigint
    from pg_stat_user_tables"""


async def rows_touched(url: str) -> int:
    """Rows that were read and written so far, by sessions that have ended."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("select pg_stat_force_next_flush()")
        return int(await connection.fetchval(_TOUCHED))
    finally:
        await connection.close()


async def _end(company: Company) -> None:
    await company.set_status("canceled")


async def _switch(company: Company) -> None:
    product = await company.service.stripe.get(f"/v1/products/{company.product_id}")
    event = event_of("product.updated", {**product, "metadata": {}}, created=int(time.time()) + 60)
    assert (await company.service.deliver(event)).status_code == 200


async def _end_when_fetched(company: Company) -> None:
    await company.service.stripe.delete(f"/v1/subscriptions/{company.subscription_id}")
    await company.service.refresh("subscription", company.subscription_id)


@pytest.mark.parametrize("change", [_end, _switch, _end_when_fetched])
async def test_transaction_touches_few_rows_when_a_large_team_loses_access(
    change: Callable[[Company], Awaitable[None]],
    stripe_simulator: str,
    database_url: str,
    plain_logs: None,
) -> None:
    """Decision 0052: nothing in the transaction of the fact grows with the members."""
    async with Simulator(stripe_simulator, new_account_key()) as stripe:
        async with running_service(stripe, database_url) as service:
            small, large = [await service.company(users=0) for _ in range(2)]
            await service.fill()
            await service.announce()
            async with service.context.database.unhurried() as connection:
                await growth.add_members(connection, large.subscription_id, "large", MEMBERS)
            await service.announce()
        touched = []
        for company in (small, large):
            before = await rows_touched(database_url)
            async with running_service(stripe, database_url) as company.service:
                await change(company)
            touched.append(await rows_touched(database_url) - before)
        async with running_service(stripe, database_url) as service:
            await service.announce()
            [row] = await service.fetch(
                """select count(*) as changes, count(distinct customer_id) as customers from events
                where type = 'access.changed' and subscription_id = $1 and not (data ->> 'has_access')::boolean""",
                large.subscription_id,
            )
    # The manager is a member too. The owner of a subscription that goes on keeps the product.
    losing = MEMBERS + 1 + (change is not _switch)
    assert (row["changes"], row["customers"]) == (losing, losing)
    assert touched[1] < touched[0] + 50


async def test_each_change_of_access_arrives_once_when_teams_lose_it(
    database_url: str, tmp_path: Path
) -> None:
    """The whole of `benchmarks.expansion`, small."""
    part = await expansion.measure(database_url, members=100, others=0, rounds=1, logs=tmp_path)
    [*_, events] = part.bars
    assert events.value == 0, part.figures
    assert part.figures[-1]["access_changed"] == 2 * (100 + 10) + 2
