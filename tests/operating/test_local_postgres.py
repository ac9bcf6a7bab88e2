"""The local server against what happens on a developer's machine: kills, leftovers, long paths, sharing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import pytest

from app.commands.local_postgres import (
    SOCKET_NAME,
    SOCKET_PATH_BYTES,
    LocalPostgres,
    state_directory,
)
from app.commands.postgres_programs import LocalPostgresError
from testkit.waiting import wait_until

HOLD_A_SERVER = """
import sys, time
from pathlib import Path
from app.commands.local_postgres import LocalPostgres
LocalPostgres(Path(sys.argv[1])).start()
print("started", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    # Not pytest's tmp_path: its parents are closed to the user that the server runs as for root.
    with TemporaryDirectory(dir="/var/tmp", prefix="coseat-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture(scope="module")
def cluster(home: Path) -> Iterator[LocalPostgres]:
    server = LocalPostgres(home / "cluster")
    yield server
    server.remove()


@pytest.fixture
def server(cluster: LocalPostgres) -> Iterator[LocalPostgres]:
    cluster.start()
    yield cluster
    cluster.stop()


def running_pid(server: LocalPostgres) -> int:
    pid = server.postmaster_pid()
    assert pid is not None
    return pid


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.anyio
async def test_asyncpg_connects_over_the_socket_and_nothing_listens_on_tcp(server: LocalPostgres) -> None:
    server.ensure_database("it's a name")
    server.ensure_database("it's a name")
    connection = await asyncpg.connect(server.url("it's a name"))
    try:
        assert await connection.fetchval("select current_database()") == "it's a name"
        assert await connection.fetchval("show listen_addresses") == ""
        assert await connection.fetchval("show fsync") == "on"
    finally:
        await connection.close()


@pytest.mark.timed
def test_stop_ends_the_server_and_the_next_start_is_quick(server: LocalPostgres) -> None:
    pid = running_pid(server)
    server.stop()
    assert not is_alive(pid)
    began = time.monotonic()
    server.start()
    assert time.monotonic() - began < 3.0
    assert running_pid(server) != pid


def test_start_of_a_running_server_keeps_it(server: LocalPostgres) -> None:
    pid = running_pid(server)
    second = LocalPostgres(server.data_dir)
    second.start()
    second.stop()
    assert running_pid(server) == pid
    assert is_alive(pid)


@pytest.mark.anyio
async def test_data_survives_a_killed_postmaster(server: LocalPostgres) -> None:
    server.ensure_database("survivor")
    connection = await asyncpg.connect(server.url("survivor"))
    await connection.execute("create table if not exists seat (id int)")
    await connection.execute("insert into seat values (1)")
    os.kill(running_pid(server), signal.SIGKILL)
    connection.terminate()

    server.start()

    connection = await asyncpg.connect(server.url("survivor"))
    try:
        assert await connection.fetchval("select count(*) from seat") == 1
    finally:
        await connection.close()


def test_a_lock_file_that_names_a_zombie_is_stale(server: LocalPostgres) -> None:
    server.stop()
    zombie = subprocess.Popen(["true"])
    wait_until(lambda: not is_alive(zombie.pid))
    leave_lock_files(server, zombie.pid)
    try:
        server.start()
        assert running_pid(server) != zombie.pid
    finally:
        zombie.wait()


def test_a_lock_file_whose_pid_was_given_out_again_is_stale(server: LocalPostgres) -> None:
    server.stop()
    account = server.data_dir.stat()
    other = subprocess.Popen(["sleep", "60"], user=account.st_uid) if os.geteuid() == 0 else None
    pid = other.pid if other is not None else os.getpid()
    leave_lock_files(server, pid)
    try:
        server.start()
        assert running_pid(server) != pid
        server.stop()
        assert is_alive(pid)
    finally:
        if other is not None:
            other.kill()
            other.wait()


def leave_lock_files(server: LocalPostgres, pid: int) -> None:
    lines = f"{pid}\n{server.data_dir}\n1\n5432\n{server.socket_dir}\n\n  1  1\nready   \n"
    account = server.data_dir.stat()
    for path in (server.data_dir / "postmaster.pid", server.socket_dir / f"{SOCKET_NAME}.lock"):
        path.write_text(lines)
        os.chown(path, account.st_uid, account.st_gid)


def test_a_killed_owner_leaves_a_server_that_the_next_one_takes_over_and_stops(
    cluster: LocalPostgres,
) -> None:
    with holding_process(cluster) as owner:
        pid = running_pid(cluster)
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
    assert is_alive(pid)
    cluster.start()
    assert running_pid(cluster) == pid
    cluster.stop()
    wait_until(lambda: not is_alive(pid))


def test_everything_killed_at_once_starts_again(cluster: LocalPostgres) -> None:
    with holding_process(cluster) as owner:
        pid = running_pid(cluster)
        os.kill(owner.pid, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        owner.wait()
    cluster.start()
    assert running_pid(cluster) != pid
    cluster.stop()


def test_a_server_that_another_process_uses_is_left_running(server: LocalPostgres) -> None:
    with holding_process(server) as other:
        pid = running_pid(server)
        server.stop()
        assert is_alive(pid)
        with pytest.raises(LocalPostgresError, match="Another process"):
            server.remove()
        other.terminate()
        other.wait()
    server.start()
    server.stop()
    wait_until(lambda: not is_alive(pid))


@contextmanager
def holding_process(server: LocalPostgres) -> Iterator[subprocess.Popen[str]]:
    """A process that has started `server` and holds on to it."""
    command = [sys.executable, "-c", HOLD_A_SERVER, str(server.data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
            yield process
        finally:
            process.kill()


def test_a_long_path_gets_a_short_socket(home: Path) -> None:
    server = LocalPostgres(home / ("d" * 60) / ("e" * 60), fast=True)
    assert len(os.fsencode(server.socket_dir / SOCKET_NAME)) <= SOCKET_PATH_BYTES
    try:
        server.start()
        server.ensure_database("long")
    finally:
        server.remove()
    assert not server.socket_dir.exists()


def test_a_half_made_cluster_is_made_anew(home: Path) -> None:
    data_dir = home / "interrupted"
    aside = data_dir.with_name("interrupted.new")
    aside.mkdir()
    (aside / "PG_VERSION").write_text("18\n")
    server = LocalPostgres(data_dir, fast=True)
    try:
        server.start()
        server.ensure_database("whole")
    finally:
        server.remove()


def test_a_failure_shows_what_the_server_said(home: Path) -> None:
    server = LocalPostgres(home / "broken", fast=True)
    server.start()
    server.stop()
    (server.data_dir / "PG_VERSION").write_text("9\n")
    try:
        with pytest.raises(LocalPostgresError, match=r"not compatible|incompatible"):
            server.start()
    finally:
        server.remove()


def test_state_directories_differ_by_checkout_and_follow_the_configured_one(tmp_path: Path) -> None:
    one, other = state_directory(tmp_path / "one"), state_directory(tmp_path / "other")
    assert one != other
    assert one == state_directory(tmp_path / "one")
    assert state_directory(tmp_path, configured=tmp_path / "chosen") == (tmp_path / "chosen").resolve()
