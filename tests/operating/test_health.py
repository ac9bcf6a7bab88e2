"""`coseat health`, the health check of the image, and the port of a worker."""

import asyncio
import os
import signal
import socket
import subprocess
import sys

import asyncpg
import httpx
import pytest

from testkit.company import running_service
from testkit.ports import free_port
from testkit.service import api_process, inherited, service_environment, worker_process
from testkit.simulator import Simulator


@pytest.fixture
def environment(stripe_account: Simulator, database_url: str) -> dict[str, str]:
    return service_environment(
        database_url=database_url,
        stripe_base=stripe_account.base_url,
        stripe_key=stripe_account.api_key,
        PORT=str(free_port()),
    )


async def health(environment: dict[str, str]) -> tuple[int, str]:
    found = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "app", "health"],
        env={**inherited(), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return found.returncode, found.stderr


async def test_serve_is_healthy_while_it_answers(environment: dict[str, str]) -> None:
    """O13."""
    code, err = await health(environment)
    assert code == 1 and environment["PORT"] in err
    with api_process(environment, port=int(environment["PORT"])) as (_, process):
        assert await health(environment) == (0, "")
        os.kill(process.process.pid, signal.SIGSTOP)
        try:
            code, err = await health(environment)
        finally:
            os.kill(process.process.pid, signal.SIGCONT)
        assert code == 1 and "/healthz" in err


async def test_worker_without_a_port_is_healthy_while_it_reports(environment: dict[str, str]) -> None:
    """O13: the image's health check failed for a worker."""
    with worker_process({**environment, "LOG_LEVEL": "info"}) as process:
        process.wait_for_line("worker_started")
        for _ in range(50):
            if (await health(environment))[0] == 0:
                break
        assert await health(environment) == (0, "")
        process.process.kill()
    connection = await asyncpg.connect(environment["DATABASE_URL"])
    try:
        await connection.execute("update workers set reported_at = now() - interval '40 seconds'")
    finally:
        await connection.close()
    code, err = await health(environment)
    assert code == 1 and "seconds ago for the last time" in err
    assert await health({**environment, "DATABASE_URL": "postgresql://me@127.0.0.1:9/coseat"}) == (0, "")


TAKE_NO_WRITES = {
    "read-only": "do $$ begin execute format('alter database %I set default_transaction_read_only = on', "
    "current_database()); end $$",
    "full": """
        create function refuse_writes() returns trigger language plpgsql as $$
            begin raise exception 'the database is full' using errcode = '53100'; end $$;
        create trigger refuse_writes before insert or update on workers
            for each statement execute function refuse_writes()""",
}


@pytest.mark.parametrize("why", TAKE_NO_WRITES)
async def test_worker_is_alive_while_the_database_takes_no_reports(
    environment: dict[str, str], why: str
) -> None:
    """An orchestrator restarted every worker, which helped nobody."""
    connection = await asyncpg.connect(environment["DATABASE_URL"])
    try:
        await connection.execute(
            "insert into workers (id, host, reported_at) values (gen_random_uuid(), $1, now() - interval '1 minute')",
            socket.gethostname(),
        )
        assert (await health(environment))[0] == 1
        await connection.execute(TAKE_NO_WRITES[why])
        assert await health(environment) == (0, "")
        assert await connection.fetchval("select count(*) from workers") == 1
    finally:
        await connection.close()


@pytest.mark.parametrize("why", TAKE_NO_WRITES)
async def test_figure_shows_that_the_database_takes_no_reports(
    stripe_account: Simulator, database_url: str, why: str
) -> None:
    """The alert of missing workers fired, and named the wrong part."""
    async with running_service(stripe_account, database_url) as service:
        assert "coseat_database_writable 1.0" in (await service.get("/metrics")).text
        connection = await asyncpg.connect(database_url)
        await connection.execute(TAKE_NO_WRITES[why])
        await connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
            " and datname = current_database()"
        )
        await connection.close()
        # The first statement on a session that has ended is refused, and the next one has a session of its own.
        text = ""
        for _ in range(100):
            if "coseat_database_up 1.0" in (text := (await service.get("/metrics")).text):
                break
            await asyncio.sleep(0.1)
        assert "coseat_database_writable 0.0" in text and "coseat_database_up 1.0" in text


async def test_worker_shows_its_own_metrics_when_it_has_a_port(environment: dict[str, str]) -> None:
    token = "a-token-of-metrics"
    port = free_port()
    environment |= {"WORKER_PORT": str(port), "METRICS_TOKEN": token}
    with worker_process(environment) as process:
        url = f"http://127.0.0.1:{port}"
        process.wait_for_answer(f"{url}/healthz")
        assert await health(environment) == (0, "")
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/metrics")).status_code == 401
            assert (await client.get("/nothing")).status_code == 404
            assert (await client.post("/metrics")).status_code == 404
            shown = await client.get("/metrics", headers={"Authorization": f"Bearer {token}"})
        assert shown.status_code == 200 and "coseat_build_info{" in shown.text
        # The gauges of the installation are those of an API process: here they would be 0.
        assert "coseat_refreshes_dead" not in shown.text and "coseat_operations" not in shown.text
