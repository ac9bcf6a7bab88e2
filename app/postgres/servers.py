"""Connect to the servers that DATABASE_URL names, and find the one that takes writes.

The URL may name several servers, as libpq's does: `postgresql://user@one:5432,two:5432/name`. They are tried in their
order, the one that took writes last first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
import orjson

from app.postgres.failures import LOST, PoolerNotSet, database_unavailable

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Address: TypeAlias = tuple[str, int]

CONNECT_SECONDS = 2.0
"""Seconds that one server has to answer a new connection, so that a lost one does not hide the next one."""
STATEMENT_SECONDS = 6
"""Seconds of a statement, after which PostgreSQL ends it."""
UNHURRIED_SECONDS = 60
ANSWER_SECONDS = 1
"""Seconds that the driver waits for longer. A server that says nothing after them has vanished."""
IDLE_IN_TRANSACTION_SECONDS = 5
TRANSACTION_SECONDS = 10
LOCK_MILLISECONDS = 1800
"""Longer than a migration waits for its locks (1 s), because statements queue behind it."""

_RETRY_SECONDS = 0.5
"""While no server takes writes, changes within these seconds of the last search are refused without another one."""
_DEFAULT_PORT = 5432
_TRANSACTION_TIMEOUT_SINCE = 17

# PostgreSQL ends the transactions of a process that was lost or frozen, and so releases its row locks. Transactions
# wait only for PostgreSQL, so only a process that no longer runs is idle in one for seconds. See
# docs/decisions/0009-let-postgres-end-the-transactions-of-lost-hosts.md.
LIMITS = {
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS}s",
    "statement_timeout": f"{STATEMENT_SECONDS}s",
    # See docs/decisions/0047-keep-reads-apart-from-changes.md.
    "lock_timeout": f"{LOCK_MILLISECONDS}ms",
}
_UNHURRIED_LIMITS = {
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS}s",
    "statement_timeout": f"{UNHURRIED_SECONDS}s",
}
_LIMIT_TRANSACTION = {"transaction_timeout": f"{TRANSACTION_SECONDS}s"}
PLANNING = {
    "jit": "off",
    # Statements look rows up by key. Planning the largest read again takes five times as long as executing it.
    "plan_cache_mode": "force_generic_plan",
}
ROLE_SETTINGS = {**PLANNING, "lock_timeout": LIMITS["lock_timeout"]}
"""Settings that the role needs behind a pooler, for statements outside of transactions."""
_SESSION = {
    "application_name": "coseat",
    **PLANNING,
    # A host that was lost answers no probe, so its session ends after 5 + 3 * 2 seconds.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10s",
}
_EXAMINE = "select pg_backend_pid() as pid, current_setting('transaction_read_only') = 'off' as takes_writes"


def addresses_of(url: str) -> list[Address]:
    """Return host and port of each server that a URL names. A host may be the directory of a Unix socket."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    hosts, ports = [], []
    for entry in parts.netloc.rpartition("@")[2].split(","):
        host, _, port = entry.rpartition(":") if _has_port(entry) else (entry, "", "")
        hosts.append(unquote(host).strip("[]"))
        ports.append(port)
    if "host" in query:
        hosts = query["host"][0].split(",")
        ports = [""] * len(hosts)
    if "port" in query:
        given = query["port"][0].split(",")
        ports = given * len(hosts) if len(given) == 1 else given
    return [(host, int(port or _DEFAULT_PORT)) for host, port in zip(hosts, ports, strict=True)]


def _has_port(entry: str) -> bool:
    return ":" in entry and not entry.endswith("]")


class Servers:
    """The servers of one URL.

    `lacks_writable` is True after a search found no server that takes writes, until another one finds such a server.
    """

    def __init__(self, url: str, *, behind_pooler: bool) -> None:
        self.on_writable: Callable[[], None] = lambda: None
        """Called when a server takes writes again."""
        self._url = url.replace("postgresql+asyncpg://", "postgresql://", 1)
        self._addresses: list[Address | None] = [*addresses_of(self._url)]
        if len(self._addresses) == 1:
            # The driver reads everything from the URL.
            self._addresses = [None]
        self.is_behind_pooler = behind_pooler
        self.lacks_writable = False
        self._searched_at = float("-inf")

    async def writable(self, *, unhurried: bool = False) -> Session:
        """Return a connection to a server that takes writes.

        `unhurried`: without the limits of statements and transactions, apart from UNHURRIED_SECONDS for a statement.

        Raises:
            ServiceUnavailable: `database_unavailable`: there is none.
            PoolerNotSet: The server is a pooler.
        """
        if self.lacks_writable and asyncio.get_running_loop().time() - self._searched_at < _RETRY_SECONDS:
            raise database_unavailable()
        found, _ = await self._search(unhurried=unhurried)
        if found is None:
            raise database_unavailable()
        return found

    async def readable(self) -> Session:
        """Return a connection to a server that takes writes; if there is none, to one that takes reads.

        Raises as `writable`.
        """
        if self.lacks_writable:
            for address in self._addresses:
                try:
                    return await self._connect(address)
                except LOST:
                    continue
            raise database_unavailable()
        found, spare = await self._search(keep_spare=True)
        if found is None and spare is None:
            raise database_unavailable()
        return found or spare  # type: ignore[return-value]  # one of them is there

    async def search(self) -> bool:
        """Look for a server that takes writes, and return True if there is one."""
        found, _ = await self._search()
        if found is not None:
            found.terminate()
        return found is not None

    async def _search(
        self, *, keep_spare: bool = False, unhurried: bool = False
    ) -> tuple[Session | None, Session | None]:
        """Return a connection that takes writes, if there is one, and otherwise with `keep_spare` one that does not."""
        spare: Session | None = None
        try:
            for address in list(self._addresses):
                try:
                    session = await self._connect(address, unhurried=unhurried)
                    takes_writes = await self._takes_writes(session)
                except LOST:
                    continue
                if takes_writes:
                    self._addresses.remove(address)
                    self._addresses.insert(0, address)
                    if self.lacks_writable:
                        self.lacks_writable = False
                        self.on_writable()
                    if spare is not None:
                        spare.terminate()
                    return session, None
                if keep_spare and spare is None:
                    spare = session
                else:
                    session.terminate()
        except BaseException:
            if spare is not None:
                spare.terminate()
            raise
        self.lacks_writable = True
        self._searched_at = asyncio.get_running_loop().time()
        return None, spare

    async def _takes_writes(self, session: Session) -> bool:
        try:
            row = await session.fetchrow(_EXAMINE)
            if row is None:
                raise LookupError("a statement that always answers one row answered none")
            if not self.is_behind_pooler and row["pid"] != session.get_server_pid():
                # A pooler answers the start of a connection itself and reports a process id of its own.
                raise PoolerNotSet()
        except BaseException:
            session.terminate()
            raise
        return bool(row["takes_writes"])

    async def _connect(self, address: Address | None, *, unhurried: bool = False) -> Session:
        options: dict[str, Any] = {
            "timeout": CONNECT_SECONDS,
            "command_timeout": (UNHURRIED_SECONDS if unhurried else STATEMENT_SECONDS) + ANSWER_SECONDS,
            # Otherwise the URL's own word would hide a server that takes reads only.
            "target_session_attrs": "any",
        }
        if self.is_behind_pooler:
            # A pooler refuses unknown parameters, and each transaction may be another session.
            options["statement_cache_size"] = 0
        else:
            options["server_settings"] = {**_SESSION, **(_UNHURRIED_LIMITS if unhurried else LIMITS)}
        if address is not None:
            options["host"], options["port"] = address
        try:
            session: Session = await asyncpg.connect(self._url, **options)
        except asyncpg.ProtocolViolationError as error:
            if "startup parameter" in str(error):
                raise PoolerNotSet() from error
            raise
        try:
            await self._prepare(session, limited=not unhurried and not self.is_behind_pooler)
        except BaseException:
            session.terminate()
            raise
        return session

    async def _prepare(self, session: Session, *, limited: bool) -> None:
        await session.set_type_codec(
            "jsonb", schema="pg_catalog", encoder=_encode_jsonb, decoder=_decode_jsonb, format="binary"
        )
        # An older server refuses a session that sets a parameter which it does not know.
        if limited and knows_transaction_timeout(session):
            await session.execute(f"set transaction_timeout = '{TRANSACTION_SECONDS}s'")


def knows_transaction_timeout(session: Any) -> bool:
    """Return True if the server of a connection can limit a transaction."""
    return bool(session.get_server_version().major >= _TRANSACTION_TIMEOUT_SINCE)


def local_limits(session: Any) -> str:
    """Return the statements that limit one transaction, for sessions that a pooler shares between processes."""
    limits = {**LIMITS, **_LIMIT_TRANSACTION} if knows_transaction_timeout(session) else LIMITS
    return "".join(f"set local {name} = '{value}';" for name, value in limits.items())


async def lacking_role_settings(session: Any) -> list[str]:
    """Return the names of ROLE_SETTINGS that a session behind a pooler does not have."""
    rows = await session.fetch(
        "select name, current_setting(name) as value from unnest($1::text[]) name", list(ROLE_SETTINGS)
    )
    return [row["name"] for row in rows if row["value"] != ROLE_SETTINGS[row["name"]]]


def _encode_jsonb(value: object) -> bytes:
    return b"\x01" + orjson.dumps(value)


def _decode_jsonb(data: bytes) -> Any:
    return orjson.loads(data[1:])
