"""What an operator reads when something is set wrong: one sentence with a remedy, and no traceback."""

import asyncio
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from testkit.ports import free_port
from testkit.processes import running
from testkit.service import inherited, service_environment
from testkit.simulator import Simulator, new_account_key


@pytest.fixture
def environment(stripe_account: Simulator, database_url: str) -> dict[str, str]:
    return {
        **inherited(),
        **service_environment(
            database_url=database_url,
            stripe_base=stripe_account.base_url,
            stripe_key=stripe_account.api_key,
            PORT=str(free_port()),
            COLUMNS="80",
        ),
    }


async def run(environment: dict[str, str], *arguments: str) -> tuple[int | None, str]:
    """Return the exit code and all that a command prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "app",
        *arguments,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode()


def is_one_sentence(out: str, *words: str) -> bool:
    """Return True if the output is plain text of few lines that holds the words."""
    return (
        "Traceback" not in out
        and '"at":' not in out
        and len(out) < 500
        and all(word in out for word in words)
    )


def with_login(url: str, user: str, password: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.netloc.rpartition('@')[2]}"))


@pytest.mark.parametrize("command", ["serve", "worker", "migrate"])
async def test_sentence_names_the_role_when_postgres_does_not_know_it(
    environment: dict[str, str], command: str
) -> None:
    """O1: a wrong login was answered by 50 frames of JSON."""
    environment["DATABASE_URL"] = with_login(environment["DATABASE_URL"], "nobody", "secret-of-nobody")
    code, out = await run(environment, command)
    assert code == 1 and is_one_sentence(out, "nobody", "DATABASE_URL"), out
    assert "secret-of-nobody" not in out


@pytest.mark.parametrize("command", ["doctor", "migrate"])
async def test_sentence_names_the_database_when_it_does_not_exist(
    environment: dict[str, str], command: str
) -> None:
    """O1: no database."""
    parts = urlsplit(environment["DATABASE_URL"])
    environment["DATABASE_URL"] = urlunsplit(parts._replace(path="/not_there"))
    code, out = await run(environment, command)
    assert code == 1 and is_one_sentence(out, "not_there", "createdb", "DATABASE_URL"), out


@pytest.mark.parametrize("command", ["worker", "migrate"])
async def test_sentence_names_the_address_when_nothing_listens_there(
    environment: dict[str, str], command: str
) -> None:
    environment["DATABASE_URL"] = "postgresql://me:hidden-word@127.0.0.1:9/coseat"
    code, out = await run(environment, command)
    assert code == 1 and is_one_sentence(out, "127.0.0.1:9", "DATABASE_URL"), out
    assert "hidden-word" not in out


@asynccontextmanager
async def powerless(url: str) -> AsyncIterator[str]:
    """A role that may connect to the database and do nothing in it; the URL with it."""
    role = f"powerless_{secrets.token_hex(4)}"
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            f"revoke create on schema public from public; create role {role} login password 'x'"
        )
        yield with_login(url, role, "x")
        await connection.execute(f"drop role {role}")
    finally:
        await connection.close()


async def test_sentence_names_the_right_when_the_role_may_not_create_the_schema(
    environment: dict[str, str], empty_database_url: str
) -> None:
    """A role without `create` was answered by frames of JSON."""
    async with powerless(empty_database_url) as url:
        code, out = await run({**environment, "DATABASE_URL": url}, "migrate")
    assert code == 1 and is_one_sentence(
        out, "powerless_", "permission denied for schema public", "create"
    ), out


async def test_sentence_names_the_right_when_the_role_may_not_read_the_tables(
    environment: dict[str, str],
) -> None:
    async with powerless(environment["DATABASE_URL"]) as url:
        for command in ("replay", "serve"):
            code, out = await run({**environment, "DATABASE_URL": url}, command)
            assert code == 1 and is_one_sentence(out, "powerless_", "permission denied for table"), out


async def refusing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the start of a connection as a server that does not accept the password."""
    length = int.from_bytes(await reader.readexactly(4), "big")
    await reader.readexactly(length - 4)
    fields = b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed\0\0"
    writer.write(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
    await writer.drain()
    writer.close()


async def test_sentence_names_the_role_when_its_password_is_refused(environment: dict[str, str]) -> None:
    """O1: a wrong password was answered by 50 frames of JSON."""
    async with await asyncio.start_server(refusing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        environment["DATABASE_URL"] = f"postgresql://ada:hidden-word@127.0.0.1:{port}/coseat?sslmode=disable"
        code, out = await run(environment, "serve")
    assert code == 1 and is_one_sentence(out, "ada", "password", "DATABASE_URL"), out
    assert "hidden-word" not in out


@pytest.mark.parametrize("command", ["serve", "sync", "replay", "unlink"])
async def test_sentence_names_migrate_when_the_database_has_no_schema(
    environment: dict[str, str], empty_database_url: str, command: str
) -> None:
    """O2: "The rate budget cannot be asked.", and serve answered 500."""
    environment["DATABASE_URL"] = empty_database_url
    code, out = await run(environment, command, *(["cus_1"] if command == "unlink" else []))
    assert code == 1 and is_one_sentence(out, "no schema", "`coseat migrate`"), out


async def test_sentence_names_the_port_when_it_is_in_use(environment: dict[str, str]) -> None:
    """O3: a trace without the port."""
    with socket.create_server(("127.0.0.1", int(environment["PORT"]))):
        code, out = await run(environment, "serve")
    assert code == 1 and is_one_sentence(out, environment["PORT"], "in use", "PORT"), out


async def test_sentence_names_the_host_when_it_is_no_address_of_this_machine(
    environment: dict[str, str],
) -> None:
    code, out = await run({**environment, "HOST": "192.0.2.1"}, "serve")
    assert code == 1 and is_one_sentence(out, "192.0.2.1", "HOST"), out


async def test_address_is_printed_when_the_api_is_ready(environment: dict[str, str]) -> None:
    """O3: nothing was printed when ready."""
    with running(
        "api", [sys.executable, "-m", "app", "serve"], {**environment, "LOG_LEVEL": "info"}
    ) as process:
        found = process.wait_for_line(r'.*"event":"ready".*')
        assert environment["PORT"] in found[0] and "127.0.0.1" in found[0]


@pytest.mark.parametrize("command", ["sync", "doctor"])
async def test_sentence_names_both_accounts_when_the_key_is_of_another_one(
    environment: dict[str, str], command: str
) -> None:
    """O4: no remedy was told."""
    assert (await run(environment, "sync"))[0] == 0
    other = {**environment, "STRIPE_API_KEY": new_account_key()}
    code, out = await run(other, command)
    assert code == 1 and is_one_sentence(out, "STRIPE_API_KEY", "DATABASE_URL", "test mode"), out
    assert out.count("acct_") == 2


async def test_doctor_shows_whole_ids_when_the_terminal_is_narrow(environment: dict[str, str]) -> None:
    """O5: ids and versions were cut at 80 columns."""
    long_id = "cus_" + "Q" * 60
    connection = await asyncpg.connect(environment["DATABASE_URL"])
    try:
        await connection.execute(
            """insert into refreshes (id, kind, notifications, notified_at, attempts, last_error, dead_at)
            values ($1, 'customer', 1, 0, 8, 'name is not a string', now())""",
            long_id,
        )
    finally:
        await connection.close()
    code, out = await run(environment, "doctor")
    assert code == 1 and long_id in out and f"coseat replay {long_id}" in out
    assert "2026-10-28.endive" in out
    code, out = await run(environment, "replay")
    assert code == 0 and long_id in out


async def test_sentence_names_the_variable_when_it_is_misspelt(environment: dict[str, str]) -> None:
    """O6: a misspelt variable was ignored."""
    code, out = await run({**environment, "OWNER_USE_SEAT": "value-of-it"}, "serve")
    assert code == 2 and is_one_sentence(out, "OWNER_USE_SEAT", "Did you mean OWNER_USES_SEAT?"), out
    assert "value-of-it" not in out


async def test_other_programs_variables_are_left_alone(environment: dict[str, str]) -> None:
    others = {
        "STRIPE_PUBLISHABLE_KEY": "pk_test_1",
        "DATABASE_NAME": "x",
        "HOSTNAME": "box",
        "COSEAT_PORT": "tcp://10.0.0.1:80",
        "PORTS": "1",
        "STRIPE_WEBHOOK_SECRET": "beside the right one",
        "OTEL_SERVICE_NAME": "coseat",
    }
    code, out = await run({**environment, **others}, "replay")
    assert code == 0, out
