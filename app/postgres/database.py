"""The pool of connections, transactions, and the translation of a lost database into one clear error.

asyncpg throughout: measured on the paths that matter here, SQLAlchemy's core costs 1.6 times and its ORM 3 to 8
times the time of the same statement (docs/decisions/0022-run-statements-with-asyncpg.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, TypeAlias

import asyncpg
import orjson

from app.errors import ServiceUnavailable

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Record: TypeAlias = asyncpg.Record

UniqueViolation = asyncpg.UniqueViolationError
StatementRefused = asyncpg.PostgresError
"""Whatever Postgres says no to while it is there: a value that it cannot store, a deadlock."""

_BROKEN = (
    asyncpg.PostgresConnectionError,
    # PostgreSQL ended the session: an operator, a shutdown, a time-out of the session.
    asyncpg.OperatorInterventionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
    # The driver no longer knows the state of the session, for example when a session's end arrives inside an answer.
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    ConnectionError,
    OSError,
)
"""The session is gone, or nothing is known about it: its connection is closed and never used again."""

_LOST = (*_BROKEN, asyncpg.TooManyConnectionsError, TimeoutError)
"""Nothing is known about the statement: the caller is answered `database_unavailable`."""

_STATEMENT_ENDED = (asyncpg.QueryCanceledError, TimeoutError)
"""Among the errors of broken sessions by their base class, although their session goes on."""

_ACQUIRE_SECONDS = 5
_STATEMENT_SECONDS = 15
_CLOSE_SECONDS = 5
IDLE_IN_TRANSACTION_SECONDS = 5
TRANSACTION_SECONDS = 10
_TRANSACTION_TIMEOUT_SINCE = 17

_SESSION = {
    "application_name": "coseat",
    "jit": "off",
    # Statements are look-ups by key; planning the largest read again takes five times as long as executing it.
    "plan_cache_mode": "force_generic_plan",
    # PostgreSQL ends the transactions of a process that was lost or frozen, and so frees its row locks. No transaction
    # waits for anything but PostgreSQL, so only a process that no longer runs is idle in one for seconds. See
    # docs/decisions/0009-let-postgres-end-the-transactions-of-lost-hosts.md.
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS}s",
    "statement_timeout": f"{_STATEMENT_SECONDS}s",
    # A host that vanished answers no probe: its session ends after 5 + 3 * 2 seconds, whatever it was doing.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10s",
}
_LIMIT_TRANSACTIONS = f"set transaction_timeout = '{TRANSACTION_SECONDS}s'"


def _encode_jsonb(value: object) -> bytes:
    return b"\x01" + orjson.dumps(value)


def _decode_jsonb(data: bytes) -> Any:
    return orjson.loads(data[1:])


async def _prepare(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=_encode_jsonb, decoder=_decode_jsonb, format="binary"
    )
    # An older server refuses a session that asks for a setting it does not know.
    if connection.get_server_version().major >= _TRANSACTION_TIMEOUT_SINCE:
        await connection.execute(_LIMIT_TRANSACTIONS)


async def _keep_session(_: object) -> None:
    """asyncpg would spend a round trip on resetting the session at each release; nothing here changes sessions."""


class IdleConnections:
    """Connections that the pool has lent out and nobody uses: the next block takes one without asking the pool.

    Giving one back and taking it again costs asyncpg a task and a turn of the loop, as much as a third of a statement.
    While anybody waits at the pool, connections go there.
    """

    __slots__ = ("connections", "waiting")

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.waiting = 0


class PooledConnection:
    """A connection of the pool for one block. A plain class: the decorator's generator costs as much as a statement."""

    __slots__ = ("_connection", "_idle", "_pool")

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], idle: IdleConnections) -> None:
        self._pool = pool
        self._idle = idle

    async def __aenter__(self) -> Connection:
        idle = self._idle
        try:
            while idle.connections:
                self._connection = idle.connections.pop()
                if not self._connection.is_closed():
                    return self._connection
                await self._pool.release(self._connection)
            idle.waiting += 1
            try:
                self._connection = await self._pool.acquire(timeout=_ACQUIRE_SECONDS)
            finally:
                idle.waiting -= 1
        except _LOST as error:
            raise database_unavailable() from error
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and not self._idle.waiting and not self._connection.is_closed():
            self._idle.connections.append(self._connection)
            return
        try:
            if isinstance(error, _BROKEN) and not isinstance(error, _STATEMENT_ENDED):
                self._connection.terminate()
            await self._pool.release(self._connection)
        except _LOST as lost:
            raise database_unavailable() from lost
        if isinstance(error, _LOST):
            raise database_unavailable() from error


class Database:
    """One pool a process. Every method raises ServiceUnavailable `database_unavailable` when Postgres is away."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool
        self._idle = IdleConnections()

    @classmethod
    async def connect(cls, url: str, *, pool_size: int) -> Database:
        with_driver = url.replace("postgresql+asyncpg://", "postgresql://", 1)
        try:
            pool = await asyncpg.create_pool(
                with_driver,
                min_size=1,
                max_size=pool_size,
                init=_prepare,
                reset=_keep_session,
                command_timeout=_STATEMENT_SECONDS,
                timeout=_ACQUIRE_SECONDS,
                server_settings=_SESSION,
            )
        except _LOST as error:
            raise database_unavailable() from error
        return cls(pool)

    async def close(self) -> None:
        """Wait a few seconds for lent connections; after that, work that goes on fails as if Postgres were away."""
        # A connection that is given back from now on goes to the pool, which waits for it.
        self._idle.waiting += 1
        try:
            while self._idle.connections:
                await self._pool.release(self._idle.connections.pop())
            await asyncio.wait_for(self._pool.close(), _CLOSE_SECONDS)
        except _LOST:
            self._pool.terminate()

    def connection(self) -> PooledConnection:
        """A connection in autocommit: for single statements."""
        return PooledConnection(self._pool, self._idle)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Commit at the end of the block; an exception rolls back. Never wait for anything but PostgreSQL in it.

        PostgreSQL ends a transaction after TRANSACTION_SECONDS (from version 17), or after
        IDLE_IN_TRANSACTION_SECONDS without a statement.
        """
        async with self.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def unhurried(self) -> AsyncIterator[Connection]:
        """Lend a connection for statements over whole tables: each may take as long as the limit of a statement."""
        async with self.connection() as connection:
            limited = connection.get_server_version().major >= _TRANSACTION_TIMEOUT_SINCE
            if limited:
                await connection.execute("set transaction_timeout = 0")
            try:
                yield connection
            finally:
                if limited and not connection.is_closed():
                    await connection.execute(_LIMIT_TRANSACTIONS)


def database_unavailable() -> ServiceUnavailable:
    return ServiceUnavailable("The database does not answer.", code="database_unavailable", retry_after=2)
