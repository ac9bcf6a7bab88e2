"""`coseat sync` as an operator runs it: killed, run again, and pointed at another account."""

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

import asyncpg

from testkit.company import running_service
from testkit.plans import new_customer, new_plan, new_subscription
from testkit.service import service_environment, worker_process
from testkit.simulator import Simulator, new_account_key
from testkit.truth import cached_rows, differences, wanted_refreshes

CUSTOMERS, PAGE = 700, 100
SYNC = [sys.executable, "-m", "app", "sync", "--json"]


def environment_of(account: Simulator, database_url: str) -> dict[str, str]:
    settings = service_environment(
        database_url=database_url, stripe_base=account.base_url, stripe_key=account.api_key
    )
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **settings}


async def run_sync(environment: dict[str, str]) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *SYNC, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


async def fetch(database_url: str, statement: str) -> list[Any]:
    connection = await asyncpg.connect(database_url)
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


async def until_cached(database_url: str, count: int) -> None:
    deadline = asyncio.get_running_loop().time() + 30
    while len(await fetch(database_url, "select id from customers")) < count:
        assert asyncio.get_running_loop().time() < deadline, f"{count} customers were never read"
        await asyncio.sleep(0.02)


async def populate(account: Simulator) -> str:
    """Customers of several pages, ended subscriptions, a deleted customer, long lists; the newest customer."""
    plans = [await new_plan(account) for _ in range(11)]
    payer = await new_customer(account)
    await new_subscription(account, payer, [{"price": plan.price, "quantity": 2} for plan in plans])
    ended = await new_subscription(account, payer, [{"price": plans[0].price}])
    await account.delete(f"/v1/subscriptions/{ended['id']}")
    await account.delete(f"/v1/customers/{await new_customer(account, card=None)}")
    made = await account.control("POST", "bulk", customers=CUSTOMERS)
    return str(made["last"])


async def customer_pages(account: Simulator) -> int:
    """How many pages of customers the service has asked for."""
    log = await account.requests(path="/v1/customers", method="GET")
    return sum(entry["actor"] == "api" and entry["path"] == "/v1/customers" for entry in log)


async def killed_in_the_middle(account: Simulator, environment: dict[str, str], database_url: str) -> None:
    await account.add_fault(method="GET", path="/v1/customers", latency_s=0.3, times=0)
    process = await asyncio.create_subprocess_exec(*SYNC, env=environment, stdout=subprocess.DEVNULL)
    await until_cached(database_url, 2 * PAGE)
    process.send_signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
    await account.clear_faults()


async def test_a_killed_fill_goes_on_where_it_was(stripe_account: Simulator, database_url: str) -> None:
    await populate(stripe_account)
    environment = environment_of(stripe_account, database_url)
    await killed_in_the_middle(stripe_account, environment, database_url)
    assert not await fetch(database_url, "select id from account where filled_at is not null")
    before = await customer_pages(stripe_account)
    code, _, err = await run_sync(environment)
    assert code == 0, err
    all_pages = (CUSTOMERS + 1 + PAGE - 1) // PAGE
    assert await customer_pages(stripe_account) - before <= all_pages - 2 + 1, (
        "at most one page is read twice"
    )
    assert await fetch(database_url, "select id from account where filled_at is not null")
    async with running_service(stripe_account, database_url) as service:
        for cut_short in await wanted_refreshes(database_url):
            await service.refresh("invoice" if cut_short.startswith("in_") else "subscription", cut_short)
    found = await differences(stripe_account, database_url)
    assert [line for line in found if not line.startswith("payment_method")] == []
    statuses = {row["status"] for row in (await cached_rows(database_url, "subscription")).values()}
    assert statuses == {"active", "canceled"}


async def test_a_key_of_another_account_changes_nothing(stripe_account: Simulator, database_url: str) -> None:
    customer = await new_customer(stripe_account, card=None)
    async with running_service(stripe_account, database_url) as service:
        await service.fill()
        await service.fetch(
            "insert into refreshes (id, kind, notifications, notified_at) values ($1, 'customer', 1, 0) returning 1",
            customer,
        )
    before = await cached_rows(database_url, "customer")
    assert list(before) == [customer]
    async with Simulator(stripe_account.base_url, new_account_key()) as other:
        await new_customer(other, card=None)
        environment = environment_of(other, database_url)
        with worker_process(environment) as worker:
            code, _, err = await run_sync(environment)
            worker.wait_for_line("wrong_account")
    assert code not in (0, None)
    assert "this database is a copy of" in err and "STRIPE_API_KEY" in err
    assert await wanted_refreshes(database_url) == [customer]
    assert await cached_rows(database_url, "customer") == before
