"""Sessions that PostgreSQL ends under the service: callers are told to come again, and the worker goes on."""

import asyncio
import secrets
import time
from collections import Counter
from contextlib import AbstractAsyncContextManager, ExitStack

import asyncpg
import httpx
import pytest

from app.errors import ServiceUnavailable
from app.postgres.database import Connection, Database
from testkit.company import Company, Service, new_email, running_service
from testkit.database_proxy import proxied
from testkit.processes import RunningProcess
from testkit.service import api_process, service_environment, worker_process
from testkit.simulator import Simulator, new_account_key

ENDED_EVERY = 0.7
SECONDS = 10.0
CALLERS = 6

END_SESSIONS = """
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name = 'coseat'"""


@pytest.mark.timeout(120)
async def test_callers_are_asked_to_come_again_when_sessions_are_ended(
    stripe_simulator: str, database_url: str
) -> None:
    """H2: all sessions end every 0.7 s beside member changes and reads: 503 with Retry-After, never 500."""
    with ExitStack() as processes:
        async with (
            Simulator(stripe_simulator, new_account_key()) as stripe,
            running_service(stripe, database_url) as service,
        ):
            company = await service.company(seats=100)
            environment = service_environment(
                database_url=database_url,
                stripe_base=stripe.base_url,
                stripe_key=stripe.api_key,
                OPERATION_LEASE="3",
            )

            def start() -> tuple[str, RunningProcess]:
                url, _ = processes.enter_context(api_process(environment))
                return url, processes.enter_context(worker_process({**environment, "LOG_LEVEL": "info"}))

            url, worker = await asyncio.to_thread(start)
            worker.wait_for_line("worker_started")
            try:
                async with httpx.AsyncClient(base_url=url, timeout=60.0) as client:
                    answers = await _beside_ended_sessions(company, client, database_url)
                told = Counter((one.request.method, one.status_code) for one in answers)
                assert not [
                    one.text for one in answers if one.status_code >= 500 and one.status_code != 503
                ], told
                refused = [one for one in answers if one.status_code == 503]
                assert refused, told
                assert all(int(one.headers["retry-after"]) >= 1 for one in refused)
                assert worker.process.poll() is None, worker.lines[-20:]
                await _worked_off(service)
                assert worker.process.poll() is None, worker.lines[-20:]
            finally:
                await asyncio.to_thread(processes.close)


async def _beside_ended_sessions(
    company: Company, client: httpx.AsyncClient, database_url: str
) -> list[httpx.Response]:
    answers: list[httpx.Response] = []
    until = time.monotonic() + SECONDS
    owner = dict(company.owner.headers)

    async def change() -> None:
        while time.monotonic() < until:
            body = {"add": [{"email": new_email()}]}
            keyed = {**owner, "Idempotency-Key": secrets.token_hex(8)}
            added = await client.patch(f"{company.path}/users", headers=keyed, json=body)
            answers.append(added)
            answers.append(await client.get(f"{company.path}/users", headers=owner))
            if added.status_code == 200 and (found := added.json()["results"][0]["customer_id"]):
                body = {"remove": [found]}
                answers.append(await client.patch(f"{company.path}/users", headers=owner, json=body))

    async def end() -> None:
        connection = await asyncpg.connect(database_url, server_settings={"application_name": "ending"})
        while time.monotonic() < until:
            await connection.fetch(END_SESSIONS)
            await asyncio.sleep(ENDED_EVERY)
        await connection.close()

    await asyncio.gather(end(), *(change() for _ in range(CALLERS)))
    return answers


async def _worked_off(service: Service) -> None:
    """Wait for the worker to settle what the requests left open: its sessions have ended many times."""
    for _ in range(300):
        if not await service.fetch("select 1 from operations where settled_at is null"):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("operations are left open")


LOST = [
    asyncpg.InternalClientError("got result for unknown protocol state 3"),
    asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
    asyncpg.InterfaceError("connection is closed"),
    asyncpg.AdminShutdownError("terminating connection due to administrator command"),
    asyncpg.IdleInTransactionSessionTimeoutError("terminating connection due to idle-in-transaction timeout"),
    asyncpg.TransactionTimeoutError("terminating connection due to transaction timeout"),
    asyncpg.IdleSessionTimeoutError("terminating connection due to idle-session timeout"),
    asyncpg.DatabaseDroppedError("terminating connection due to a dropped database"),
    ConnectionResetError(),
]


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
async def test_a_broken_session_is_replaced_when_its_statement_fails(
    module_database_url: str, error: Exception
) -> None:
    """H2: nothing is known about the session after such an error, so the next block gets another one."""
    database = await Database.connect(module_database_url, pool_size=1)
    try:
        async with database.connection() as connection:
            before = await connection.fetchval("select pg_backend_pid()")
        with pytest.raises(ServiceUnavailable) as raised:
            async with database.connection():
                raise error
        assert raised.value.code == "database_unavailable" and raised.value.retry_after
        async with database.connection() as connection:
            assert await connection.fetchval("select pg_backend_pid()") != before
    finally:
        await database.close()


async def test_no_caller_is_refused_when_idle_sessions_have_ended(module_database_url: str) -> None:
    """H2: a connection that was lost while nobody used it is replaced before it is lent."""
    database = await Database.connect(module_database_url, pool_size=2)
    other = await asyncpg.connect(module_database_url)
    try:
        for lend in (database.connection, database.reading):
            async with lend() as connection:
                ended = await connection.fetchval("select pg_backend_pid()")
            await other.execute("select pg_terminate_backend($1)", ended)
            await asyncio.sleep(0.3)
            async with lend() as connection:
                assert await connection.fetchval("select pg_backend_pid()") != ended
    finally:
        await other.close()
        await database.close()


async def test_other_connections_stay_when_a_statement_takes_too_long(module_database_url: str) -> None:
    """The driver gave up as PostgreSQL did, which it does for a lost server, so all connections were replaced."""
    async with proxied(module_database_url) as proxy:
        database = await Database.connect(proxy.url, pool_size=2)

        async def session_of_reads() -> object:
            async with database.reading() as connection:
                return await connection.fetchval("select pg_backend_pid()")

        async def answer_comes_late() -> None:
            """Hold back what PostgreSQL says after 6 s, as a network does."""
            await asyncio.sleep(5.5)
            proxy.go_silent()
            await asyncio.sleep(0.8)
            proxy.speak_again()

        try:
            before = await session_of_reads()
            network = asyncio.create_task(answer_comes_late())
            with pytest.raises(ServiceUnavailable):
                async with database.connection() as connection:
                    await connection.execute("select pg_sleep(20)")
            await network
            assert await session_of_reads() == before
        finally:
            await database.close()


SETTINGS = """select current_setting('idle_in_transaction_session_timeout') as idle,
    current_setting('statement_timeout') as statement, current_setting('transaction_timeout', true) as transaction"""


async def test_a_transaction_ends_when_its_process_does_nothing_in_it(module_database_url: str) -> None:
    """H1: the session's own limits end such a transaction; statements over whole tables are spared."""
    database = await Database.connect(module_database_url, pool_size=2)

    async def session(lent: AbstractAsyncContextManager[Connection]) -> dict[str, str]:
        async with lent as connection:
            return dict(await connection.fetchrow(SETTINGS) or {})

    try:
        async with database.connection() as connection:
            limited = connection.get_server_version().major >= 17
        limits = {"idle": "5s", "statement": "6s", "transaction": "10s" if limited else None}
        assert await session(database.connection()) == limits
        spared = {"statement": "1min", "transaction": "0" if limited else None}
        assert await session(database.unhurried()) == {**limits, **spared}
        assert await session(database.connection()) == limits
        with pytest.raises(ServiceUnavailable):
            await _in_transaction(database, "idle_in_transaction_session_timeout", "select 1", idle=0.5)
        name = "transaction_timeout" if limited else "statement_timeout"
        with pytest.raises(ServiceUnavailable):
            await _in_transaction(database, name, "select pg_sleep(2)")
    finally:
        await database.close()


async def _in_transaction(database: Database, limit: str, statement: str, *, idle: float = 0.0) -> None:
    """Run `statement` after `idle` seconds without one, in a session whose `limit` is 0.2 s."""
    async with database.connection() as connection:
        await connection.execute(f"set {limit} = '200ms'")
        async with connection.transaction():
            await asyncio.sleep(idle)
            await connection.execute(statement)
