"""Databases that answer and take no writes: reads go on, writes are asked to come again, and nothing is restarted."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass

import asyncpg
import httpx
import pytest

from app.commands.local_postgres import LocalPostgres, state_directory
from app.errors import ServiceUnavailable
from app.postgres.database import Database
from testkit import databases
from testkit.company import Company, event_of, new_email, running_service, signed
from testkit.database_proxy import DatabaseProxy, proxied
from testkit.processes import RunningProcess
from testkit.service import api_process, service_environment, worker_process
from testkit.simulator import Simulator, new_account_key

WRITABLE_AFTER = 10.0
"""Seconds after which writes work again, once a server takes them."""
READS_MOVED_AFTER = 5.0
SECONDS = 4.0
WRITES = "-c default_transaction_read_only=off"
"""With these options a session writes, although its server takes reads only by default: so it stands for another."""
IS_WRITABLE = "select current_setting('transaction_read_only') = 'off'"

REFUSE_WRITES = """
    create function refuse_writes() returns trigger language plpgsql as $$
        begin raise exception 'the database is full' using errcode = '{code}'; end $$;
    do $$ declare one name; begin
        for one in select tablename from pg_tables where schemaname = 'public' loop
            execute format('create trigger refuse_writes before insert or update or delete on %I
                for each statement execute function refuse_writes()', one);
        end loop;
    end $$"""
REFUSE_WRITES_OF = """
    create or replace function wait_and_refuse() returns trigger language plpgsql as $$
        begin perform pg_sleep(2); raise exception 'full' using errcode = '53100'; end $$;
    create trigger refuse_writes before insert on {table}
        for each statement execute function wait_and_refuse()"""
TAKE_WRITES = "drop function refuse_writes() cascade"


@pytest.fixture(scope="module")
def own_server() -> Iterator[LocalPostgres]:
    """A server whose role the tests change: other tests run on another one."""
    name = f"roles-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    server = LocalPostgres(state_directory(databases.CHECKOUT) / name, fast=True)
    server.start()
    yield server
    server.remove()


@pytest.fixture
def own_url(own_server: LocalPostgres) -> Iterator[str]:
    """A migrated database on the module's own server, which takes writes again afterwards."""
    url = databases.clone(own_server.url("postgres"), databases.ensure_template(own_server.url("postgres")))
    yield url
    asyncio.run(set_read_only(own_server, on=False))
    databases.drop(own_server.url("postgres"), url)


async def set_read_only(server: LocalPostgres, *, on: bool) -> None:
    """Change the default of all sessions, those that are open included."""
    connection = await asyncpg.connect(
        server.url("postgres"), server_settings={"default_transaction_read_only": "off"}
    )
    try:
        await connection.execute(f"alter system set default_transaction_read_only = {'on' if on else 'off'}")
        await connection.execute("select pg_reload_conf()")
    finally:
        await connection.close()


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@dataclass
class Processes:
    """An API process and a worker over one database."""

    company: Company
    client: httpx.AsyncClient
    api: RunningProcess
    worker: RunningProcess

    async def add(self) -> httpx.Response:
        body = {"add": [{"email": new_email()}]}
        path = f"{self.company.path}/users"
        return await self.client.patch(path, headers=dict(self.company.owner.headers), json=body)

    async def deliver(self) -> httpx.Response:
        event = event_of("customer.subscription.updated", await self.company.state())
        body = httpx.Request("POST", "http://test", json=event).content
        headers = {"content-type": "application/json", **signed(body)}
        return await self.client.post("/webhooks/stripe", content=body, headers=headers)

    async def read(self) -> httpx.Response:
        return await self.client.get(self.company.path, headers=dict(self.company.owner.headers))

    async def until_a_write_works(self) -> None:
        began = time.monotonic()
        while (answer := await self.add()).status_code not in (200, 202):
            assert answer.status_code == 503, answer.text
            assert time.monotonic() - began < WRITABLE_AFTER, answer.text
            await asyncio.sleep(0.2)

    def assert_alive(self) -> None:
        for process in (self.api, self.worker):
            assert process.process.poll() is None, process.lines[-20:]


@asynccontextmanager
async def processes(stripe_simulator: str, url: str, *, configured: str = "") -> AsyncIterator[Processes]:
    with ExitStack() as started:
        async with (
            Simulator(stripe_simulator, new_account_key()) as stripe,
            running_service(stripe, url) as service,
        ):
            company = await service.company(seats=100)
            environment = service_environment(
                database_url=configured or url, stripe_base=stripe.base_url, stripe_key=stripe.api_key
            )
            try:
                (base, api), worker = await asyncio.gather(
                    asyncio.to_thread(started.enter_context, api_process(environment)),
                    asyncio.to_thread(
                        started.enter_context, worker_process({**environment, "LOG_LEVEL": "info"})
                    ),
                )
                await asyncio.to_thread(worker.wait_for_line, "worker_started")
                async with httpx.AsyncClient(base_url=base, timeout=30.0) as client:
                    yield Processes(company, client, api, worker)
            finally:
                await asyncio.to_thread(started.close)


async def assert_reads_go_on(running: Processes) -> None:
    """Read, write and deliver for some seconds: only reads succeed."""
    until = time.monotonic() + SECONDS

    async def repeat(ask: Callable[[], Awaitable[httpx.Response]], expected: int) -> None:
        while time.monotonic() < until:
            answer = await ask()
            assert answer.status_code == expected, answer.text
            if expected == 503:
                assert int(answer.headers["retry-after"]) >= 1
                if "/webhooks/" not in str(answer.request.url):
                    assert answer.json()["code"] == "database_unavailable"
            await asyncio.sleep(0.05)

    await asyncio.gather(repeat(running.add, 503), repeat(running.deliver, 503), repeat(running.read, 200))


async def test_reads_go_on_when_the_server_takes_no_writes(
    stripe_simulator: str, own_server: LocalPostgres, own_url: str
) -> None:
    """U1: `default_transaction_read_only=on` on a living server, and writable again."""
    async with processes(stripe_simulator, own_url) as running:
        await running.until_a_write_works()
        await set_read_only(own_server, on=True)
        await asyncio.sleep(0.1)
        await assert_reads_go_on(running)
        running.assert_alive()
        await set_read_only(own_server, on=False)
        await running.until_a_write_works()
        assert (await running.deliver()).status_code == 200
        running.assert_alive()


async def test_a_login_is_served_at_first_sight_when_the_server_takes_no_writes(
    stripe_simulator: str, own_server: LocalPostgres, own_url: str
) -> None:
    """U1: the link cannot be stored, so the read does without it, and the next write stores it."""
    async with (
        Simulator(stripe_simulator, new_account_key()) as stripe,
        running_service(stripe, own_url) as service,
    ):
        company = await service.company()
        await execute(own_url, "delete from identities")
        await set_read_only(own_server, on=True)
        await asyncio.sleep(0.1)
        for path in (
            company.path,
            f"{company.path}/users",
            f"{company.path}/invitations",
            f"{company.path}/audit-events",
            f"{company.path}/transfer",
            f"/v1/subscriptions/{company.subscription_id}",
            f"/v1/invoices/{company.invoice_id}",
            "/v1/customers/me",
            "/v1/customers/me/subscriptions",
            "/v1/customers/me/invoices",
            "/v1/products",
        ):
            answer = await service.get(path, company.owner.headers)
            assert answer.status_code == 200, answer.text
        path = "/v1/customers/me/access"
        answer = await service.get(path, company.owner.headers, product_id=company.product_id)
        assert answer.status_code == 200, answer.text
        assert not await service.fetch("select 1 from identities")
        await set_read_only(own_server, on=False)
        await asyncio.sleep(0.1)
        assert (await service.get(company.path, company.owner.headers)).status_code == 200
        assert await service.fetch("select 1 from identities")


async def test_a_key_is_free_again_when_its_request_could_not_be_ended(
    stripe_simulator: str, own_server: LocalPostgres, own_url: str
) -> None:
    """U1: the server stops to take writes between the claim of an Idempotency-Key and the answer.

    Sent again with the key, the request must not hear for a minute that the first one is still running.
    """
    async with (
        Simulator(stripe_simulator, new_account_key()) as stripe,
        running_service(stripe, own_url) as service,
    ):
        company = await service.company(seats=10)
        add = [{"email": new_email()}]
        await execute(own_url, REFUSE_WRITES_OF.format(table="operations"))
        asked = asyncio.create_task(company.change(company.owner.headers, add=add, key="claimed-0001"))
        await _claimed(own_url)
        await set_read_only(own_server, on=True)
        assert (await asked).status_code == 503
        await set_read_only(own_server, on=False)
        await execute(own_url, "drop trigger refuse_writes on operations")
        began = time.monotonic()
        while (
            again := await company.change(company.owner.headers, add=add, key="claimed-0001")
        ).status_code != 200:
            assert time.monotonic() - began < WRITABLE_AFTER, again.text
            await asyncio.sleep(0.2)
        assert len(await company.members()) == 3


async def _claimed(url: str) -> None:
    connection = await asyncpg.connect(url, server_settings={"default_transaction_read_only": "off"})
    try:
        for _ in range(200):
            if await connection.fetchval("select count(*) from idempotency_keys"):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the key was never claimed")
    finally:
        await connection.close()


@pytest.mark.parametrize("code", ["53100", "25006"])
async def test_reads_go_on_when_statements_are_refused(
    stripe_simulator: str, own_url: str, code: str
) -> None:
    """U1: every table raises SQLSTATE 53100 (disk full), or 25006."""
    async with processes(stripe_simulator, own_url) as running:
        await running.until_a_write_works()
        await execute(own_url, REFUSE_WRITES.format(code=code))
        await assert_reads_go_on(running)
        running.assert_alive()
        await execute(own_url, TAKE_WRITES)
        await running.until_a_write_works()
        running.assert_alive()


async def test_a_connection_is_thrown_away_when_it_cannot_write(own_url: str) -> None:
    """U1: the next block of one connection gets another session."""
    database = await Database.connect(own_url, pool_size=2)
    try:
        for raised in (asyncpg.DiskFullError("full"), asyncpg.ReadOnlySQLTransactionError("read-only")):
            async with database.connection() as connection:
                before = await connection.fetchval("select pg_backend_pid()")
            with pytest.raises(ServiceUnavailable) as refused:
                async with database.connection():
                    raise raised
            assert refused.value.code == "database_unavailable" and refused.value.retry_after
            async with database.connection() as connection:
                assert await connection.fetchval("select pg_backend_pid()") != before
    finally:
        await database.close()


@asynccontextmanager
async def two_servers(url: str) -> AsyncIterator[tuple[str, DatabaseProxy]]:
    """A URL of two hosts. The second takes writes even if the server's default is to take none."""
    async with proxied(url) as first, proxied(url, options=WRITES) as second:
        yield first.url.replace(first.address, f"{first.address},{second.address}"), first


async def test_writes_go_to_the_other_server_when_old_sessions_survive_a_failover(
    stripe_simulator: str, own_server: LocalPostgres, own_url: str
) -> None:
    """U1: the first of two hosts is demoted and keeps its sessions."""
    async with (
        two_servers(own_url) as (url, _),
        processes(stripe_simulator, own_url, configured=url) as running,
    ):
        await running.until_a_write_works()
        await set_read_only(own_server, on=True)
        await running.until_a_write_works()
        assert (await running.deliver()).status_code == 200
        running.assert_alive()


async def test_reads_leave_the_old_server_when_nothing_is_written(
    own_server: LocalPostgres, own_url: str
) -> None:
    """U1: a demoted server answers reads without an error, so only a look at its role shows that they are old."""
    async with two_servers(own_url) as (url, _):
        database = await Database.connect(url, pool_size=4)
        watching = asyncio.create_task(database.watch())

        async def takes_writes() -> bool:
            async with database.reading() as connection:
                return bool(await connection.fetchval(IS_WRITABLE))

        try:
            assert await takes_writes()
            await set_read_only(own_server, on=True)
            await asyncio.sleep(0.1)
            assert not await takes_writes()
            await _within(READS_MOVED_AFTER, takes_writes)
        finally:
            watching.cancel()
            await database.close()


async def test_reads_return_to_a_writable_server_when_there_is_one(
    own_server: LocalPostgres, own_url: str
) -> None:
    """U1: while no server takes writes, reads use one that takes reads only."""
    await set_read_only(own_server, on=True)
    database = await Database.connect(own_url, pool_size=4)
    watching = asyncio.create_task(database.watch())

    async def is_ok() -> bool:
        return await database.state() == "ok"

    try:
        assert await database.state() == "read_only"
        with pytest.raises(ServiceUnavailable):
            async with database.connection():
                raise AssertionError("no server takes writes")
        await set_read_only(own_server, on=False)
        await _within(READS_MOVED_AFTER, is_ok)
        async with database.transaction() as connection:
            await connection.execute("create table written (id int)")
    finally:
        watching.cancel()
        await database.close()


async def test_statements_end_when_a_host_vanishes_inside_a_transaction(own_url: str) -> None:
    """U1: the first host goes silent without FIN. Its statement ends, and the next one uses the second host."""
    async with two_servers(own_url) as (url, first):
        database = await Database.connect(url, pool_size=4)
        try:
            began = time.monotonic()
            with pytest.raises(ServiceUnavailable):
                await _vanish_inside_a_transaction(database, first)
            async with database.transaction() as connection:
                assert await connection.fetchval("select 1") == 1
            assert time.monotonic() - began < WRITABLE_AFTER + 5
        finally:
            first.speak_again()
            await database.close()


async def test_state_names_what_is_wrong_when_it_writes_nothing(own_url: str) -> None:
    """U1: readiness tells a full disk and a lost server apart, and never writes to find out."""
    async with proxied(own_url) as proxy:
        database = await Database.connect(proxy.url, pool_size=2)
        assert await database.state() == "ok"
        with pytest.raises(ServiceUnavailable):
            async with database.connection():
                raise asyncpg.DiskFullError("full")
        assert await database.state() == "no_room"
        await proxy.shut()
        assert await database.state() == "database_unavailable"
        await database.close()


async def _vanish_inside_a_transaction(database: Database, host: DatabaseProxy) -> None:
    async with database.transaction() as connection:
        await connection.execute("select 1")
        host.go_silent()
        await connection.execute("select 1")


async def _within(seconds: float, condition: Callable[[], Awaitable[bool]]) -> None:
    give_up = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < give_up, f"not so within {seconds} s"
        await asyncio.sleep(0.1)
