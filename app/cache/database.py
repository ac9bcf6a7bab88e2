"""The pool of connections, transactions, and the translation of a lost database into one clear error.

asyncpg throughout: measured on the paths that matter here, SQLAlchemy's core costs 1.6 times and its ORM 3 to 8
times the time of the same statement (README, decisions).
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

_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.TooManyConnectionsError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.QueryCanceledError,
    ConnectionError,
    OSError,
    TimeoutError,
)
_ACQUIRE_SECONDS = 5
_STATEMENT_SECONDS = 15
_CLOSE_SECONDS = 5


def _encode_jsonb(value: object) -> bytes:
    return b"\x01" + orjson.dumps(value)


def _decode_jsonb(data: bytes) -> Any:
    return orjson.loads(data[1:])


async def _prepare(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=_encode_jsonb, decoder=_decode_jsonb, format="binary"
    )


async def _keep_session(_: object) -> None:
    """asyncpg would spend a round trip on resetting the session at each release; nothing here changes sessions."""


class Spare:
    """Connections that the pool has lent out and nobody uses: the next block takes one without asking the pool.

    Giving one back and taking it again costs asyncpg a task and a turn of the loop, as much as a third of a statement.
    While anybody waits at the pool, connections go there.
    """

    __slots__ = ("connections", "waiting")

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.waiting = 0


class Loan:
    """A connection of the pool for one block. A plain class: the decorator's generator costs as much as a statement."""

    __slots__ = ("_connection", "_pool", "_spare")

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], spare: Spare) -> None:
        self._pool = pool
        self._spare = spare

    async def __aenter__(self) -> Connection:
        spare = self._spare
        try:
            while spare.connections:
                self._connection = spare.connections.pop()
                if not self._connection.is_closed():
                    return self._connection
                await self._pool.release(self._connection)
            spare.waiting += 1
            try:
                self._connection = await self._pool.acquire(timeout=_ACQUIRE_SECONDS)
            finally:
                spare.waiting -= 1
        except _LOST as error:
            raise database_unavailable() from error
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and not self._spare.waiting and not self._connection.is_closed():
            self._spare.connections.append(self._connection)
            return
        try:
            await self._pool.release(self._connection)
        except _LOST as lost:
            raise database_unavailable() from lost
        if isinstance(error, _LOST):
            raise database_unavailable() from error


class Database:
    """One pool a process. Every method raises ServiceUnavailable `database_unavailable` when Postgres is away."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool
        self._spare = Spare()

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
                server_settings={
                    "application_name": "coseat",
                    "jit": "off",
                    "plan_cache_mode": "force_generic_plan",
                },
            )
        except _LOST as error:
            raise database_unavailable() from error
        return cls(pool)

    async def close(self) -> None:
        """Waits for what is lent out, a few seconds at most: work that goes on then fails as if Postgres were away."""
        # Whoever gives one back from now on gives it to the pool, which waits for it.
        self._spare.waiting += 1
        while self._spare.connections:
            await self._pool.release(self._spare.connections.pop())
        try:
            await asyncio.wait_for(self._pool.close(), _CLOSE_SECONDS)
        except TimeoutError:
            self._pool.terminate()

    def connection(self) -> Loan:
        """A connection in autocommit: for single statements."""
        return Loan(self._pool, self._spare)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Committed at the end of the block, rolled back by an exception. Never held across a call to Stripe."""
        async with self.connection() as connection, connection.transaction():
            yield connection


def database_unavailable() -> ServiceUnavailable:
    return ServiceUnavailable("The database does not answer.", code="database_unavailable", retry_after=2)
