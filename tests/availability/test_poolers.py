"""A pooler in transaction mode: the service keeps nothing in its sessions, and a missing setting is named.

`make test-pooler` runs the contract's tests, two workers and a reconcile behind a real PgBouncer.
"""

import asyncio
import subprocess
import sys

import pytest

from app.errors import ServiceUnavailable
from app.operating.doctor import role_findings
from app.postgres.database import Database
from app.postgres.servers import addresses_of
from testkit.database_proxy import proxied
from testkit.databases import CHECKOUT
from testkit.ports import free_port
from testkit.service import inherited, service_environment
from testkit.simulator import Simulator

LIMITS = """select current_setting('idle_in_transaction_session_timeout') as idle,
    current_setting('statement_timeout') as statement, current_setting('lock_timeout') as lock"""
SAID = "DATABASE_URL leads to a connection pooler"


async def test_a_pooler_is_named_when_the_setting_is_missing(module_database_url: str) -> None:
    """U3: the sessions of a pooler would fail later, in the middle of requests."""
    async with proxied(module_database_url, as_pooler=True) as proxy:
        with pytest.raises(ServiceUnavailable, match=SAID) as refused:
            await Database.connect(proxy.url, pool_size=2)
        assert "DATABASE_POOLER=transaction" in refused.value.detail


@pytest.mark.parametrize("process", ["serve", "worker"])
async def test_a_process_says_so_and_ends_when_a_pooler_is_not_set(
    stripe_account: Simulator, module_database_url: str, process: str
) -> None:
    """U3: one sentence with a remedy, and exit code 1."""
    async with proxied(module_database_url, as_pooler=True) as proxy:
        environment = service_environment(
            database_url=proxy.url, stripe_base=stripe_account.base_url, stripe_key=stripe_account.api_key
        )
        ended = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "app", process],
            cwd=CHECKOUT,
            env={**inherited(), **environment, "PORT": str(free_port())},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert ended.returncode == 1 and SAID in ended.stderr, ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr


async def test_sessions_keep_nothing_when_they_belong_to_a_pooler(module_database_url: str) -> None:
    """U3: no prepared statement and no setting outlives its transaction; the limits of H1 hold inside."""
    async with proxied(module_database_url, as_pooler=True) as proxy:
        database = await Database.connect(proxy.url, pool_size=2, behind_pooler=True)
        try:
            async with database.connection() as connection:
                before = dict(await connection.fetchrow(LIMITS) or {})
            async with database.transaction() as connection:
                inside = dict(await connection.fetchrow(LIMITS) or {})
            assert inside == {"idle": "5s", "statement": "6s", "lock": "1800ms"}
            async with database.connection() as connection:
                assert dict(await connection.fetchrow(LIMITS) or {}) == before != inside
                assert await connection.fetchval("select count(*) from pg_prepared_statements") == 0
                assert await connection.fetchval("select $1::jsonb", {"a": [1]}) == {"a": [1]}
            assert await database.state() == "ok"
        finally:
            await database.close()


async def test_the_doctor_names_settings_when_the_role_lacks_them(module_database_url: str) -> None:
    """U3: a single statement takes its limits from the role."""
    async with proxied(module_database_url, as_pooler=True) as proxy:
        database = await Database.connect(proxy.url, pool_size=2, behind_pooler=True)
        lacking = await database.lacking_role_settings()
        await database.close()
    assert lacking == ["jit", "plan_cache_mode", "lock_timeout"]
    [jit, *_] = role_findings(lacking)
    assert jit.object == "jit" and "alter role current_user set jit = 'off'" in jit.fix
    direct = await Database.connect(module_database_url, pool_size=2)
    assert await direct.lacking_role_settings() == []
    await direct.close()


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("postgresql://u:p@h/d", [("h", 5432)]),
        (
            "postgresql://u:p@one:6432,two,[::1]:7/d?sslmode=disable",
            [("one", 6432), ("two", 5432), ("::1", 7)],
        ),
        ("postgresql://u@/d?host=/run/postgresql", [("/run/postgresql", 5432)]),
        ("postgresql://u@/d?host=one,two&port=1,2", [("one", 1), ("two", 2)]),
        ("postgresql://u@/d?host=one,two&port=6432", [("one", 6432), ("two", 6432)]),
    ],
)
def test_every_server_is_found_when_a_url_names_several(url: str, addresses: list[tuple[str, int]]) -> None:
    """U1: as libpq reads them."""
    assert addresses_of(url) == addresses
