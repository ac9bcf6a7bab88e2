"""Lend connections of one pool, run transactions, and report a lost database as one error.

Statements run with asyncpg. On the paths that were measured, SQLAlchemy's core takes 1.6 times and its ORM 3 to 8
times as long for the same statement (docs/decisions/0022-run-statements-with-asyncpg.md).

A function that takes a connection raises StatementRefused if PostgreSQL refuses its statement. If the connection is
lost, the block that opened it raises ServiceUnavailable. Docstrings of such functions name only other errors.
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
"""An error that PostgreSQL answers while it is available: a value that it cannot store, a deadlock."""

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
"""The session has ended, or its state is unknown. Its connection is closed and never used again."""

_LOST = (*_BROKEN, asyncpg.TooManyConnectionsError, TimeoutError)
"""It is unknown whether the statement took effect. The caller gets `database_unavailable`."""

_STATEMENT_ENDED = (asyncpg.QueryCanceledError, TimeoutError)
"""Errors whose session goes on, although their base class is one of `_BROKEN`."""

_ACQUIRE_SECONDS = 5
_STATEMENT_SECONDS = 15
_CLOSE_SECONDS = 5
IDLE_IN_TRANSACTION_SECONDS = 5
TRANSACTION_SECONDS = 10
_TRANSACTION_TIMEOUT_SINCE = 17

_SESSION = {
    "application_name": "coseat",
    "jit": "off",
    # Statements look rows up by key. Planning the largest read again takes five times as long as executing it.
    "plan_cache_mode": "force_generic_plan",
    # PostgreSQL ends the transactions of a process that was lost or frozen, and so releases its row locks. Transactions
    # wait only for PostgreSQL, so only a process that no longer runs is idle in one for seconds. See
    # docs/decisions/0009-let-postgres-end-the-transactions-of-lost-hosts.md.
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS}s",
    "statement_timeout": f"{_STATEMENT_SECONDS}s",
    # A host that was lost answers no probe, so its session ends after 5 + 3 * 2 seconds.
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
    # An older server refuses a session that sets a parameter which it does not know.
    if connection.get_server_version().major >= _TRANSACTION_TIMEOUT_SINCE:
        await connection.execute(_LIMIT_TRANSACTIONS)


async def _keep_session(_: object) -> None:
    """Replace asyncpg's reset, which would take a round trip at each release. No code here changes a session."""


class IdleConnections:
    """Connections that were taken from the pool and are idle. The next block takes one without asking the pool.

    A release and an acquire cost asyncpg a task and a turn of the loop, as much as a third of a statement. While a
    caller waits for the pool, connections are released to the pool instead.
    """

    __slots__ = ("connections", "waiting")

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.waiting = 0


class PooledConnection:
    """A connection for one `async with` block.

    It is a plain class because the generator of `asynccontextmanager` takes as long as a statement.
    """

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
    """The process's connection pool.

    Every method and block raises ServiceUnavailable `database_unavailable` if PostgreSQL does not answer.
    """

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool
        self._idle = IdleConnections()

    @classmethod
    async def connect(cls, url: str, *, pool_size: int) -> Database:
        """Open a pool of at most `pool_size` connections. Raises ServiceUnavailable `database_unavailable`."""
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
        """Close the pool. Connections in use get 5 seconds to be released, then their statements fail."""
        # From now on a connection that is released goes to the pool, which waits for it.
        self._idle.waiting += 1
        try:
            while self._idle.connections:
                await self._pool.release(self._idle.connections.pop())
            await asyncio.wait_for(self._pool.close(), _CLOSE_SECONDS)
        except _LOST:
            self._pool.terminate()

    def connection(self) -> PooledConnection:
        """Return a connection that commits after each statement."""
        return PooledConnection(self._pool, self._idle)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Open a transaction that commits at the end of the block and rolls back on an exception.

        Do not wait for anything but PostgreSQL inside. PostgreSQL ends a transaction after TRANSACTION_SECONDS (from
        version 17), or after IDLE_IN_TRANSACTION_SECONDS without a statement.
        """
        async with self.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """Open a transaction in which every statement sees the state of its first one (`repeatable read`).

        A row that another transaction has changed since cannot be changed in it: the statement raises StatementRefused.
        """
        async with self.connection() as connection, connection.transaction(isolation="repeatable_read"):
            yield connection

    @asynccontextmanager
    async def unhurried(self) -> AsyncIterator[Connection]:
        """Return a connection for statements over whole tables, without the limit of a transaction.

        Each statement may still take at most 15 seconds.
        """
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
    """Return the error for a caller whose statement was not answered."""
    return ServiceUnavailable("The database does not answer.", code="database_unavailable", retry_after=2)
