"""A real PgBouncer in transaction mode before a PostgreSQL server (on Debian: `apt install pgbouncer`).

It runs as the user who owns the server's socket, because it refuses to run as root.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg

from testkit.ports import free_port
from testkit.waiting import wait_until

SERVER_CONNECTIONS = 4
CLIENTS = 500
CONFIGURATION = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = trust
auth_file = {directory}/users.txt
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = {clients}
ignore_startup_parameters = {ignored}
logfile = {directory}/log.txt
pidfile = {directory}/pid
"""


class PoolerMissing(Exception):
    """There is no PgBouncer on this machine."""


def program() -> str:
    """The path of PgBouncer. Raises PoolerMissing."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise PoolerMissing("There is no pgbouncer on this machine: `make system-packages` installs it.")
    return found


@contextmanager
def pooled(server_url: str, *, ignored: str = "") -> Iterator[str]:
    """`host:port` of a PgBouncer before the server of `server_url`, with four connections for each database.

    `ignored`: parameters of a session that it accepts and drops. Raises PoolerMissing.
    """
    binary = program()
    parts = urlsplit(server_url)
    query = parse_qs(parts.query)
    host = query.get("host", [parts.hostname or "127.0.0.1"])[0]
    directory = Path(tempfile.mkdtemp(prefix="coseat-pooler-"))
    owner = Path(host).stat() if host.startswith("/") else directory.stat()
    listen = free_port()
    (directory / "users.txt").write_text(f'"{parts.username or "postgres"}" ""\n')
    (directory / "pgbouncer.ini").write_text(
        CONFIGURATION.format(
            host=host,
            port=query.get("port", [str(parts.port or 5432)])[0],
            listen=listen,
            directory=directory,
            connections=SERVER_CONNECTIONS,
            clients=CLIENTS,
            ignored=ignored,
        )
    )
    for path in (directory, *directory.iterdir()):
        os.chown(path, owner.st_uid, owner.st_gid)
    as_owner = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if not os.geteuid() else {}
    process = subprocess.Popen(
        [binary, "-q", str(directory / "pgbouncer.ini")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **as_owner,  # type: ignore[call-overload]  # names of Popen's own parameters
    )
    try:
        wait_until(lambda: _listens(process, directory), within=20)
        yield f"127.0.0.1:{listen}"
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(directory, ignore_errors=True)


def _listens(process: "subprocess.Popen[bytes]", directory: Path) -> bool:
    assert process.poll() is None, (directory / "log.txt").read_text()
    return (directory / "pid").exists()


def through(address: str, url: str) -> str:
    """The URL of a database by way of the pooler at `address`."""
    parts = urlsplit(url)
    return f"postgresql://{parts.username or 'postgres'}@{address}{parts.path}?sslmode=disable"


async def advisory_locks(url: str, *, within: float = 5.0) -> int:
    """The number of advisory locks on a server, after its clients have had some seconds to leave."""
    connection = await asyncpg.connect(url)
    query = "select count(*) from pg_locks where locktype = 'advisory'"
    try:
        give_up = time.monotonic() + within
        while (found := int(await connection.fetchval(query))) and time.monotonic() < give_up:
            await connection.execute("select pg_sleep(0.2)")
    finally:
        await connection.close()
    return found
