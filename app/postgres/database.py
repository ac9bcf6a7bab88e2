"""Lend connections of the process's pools, run transactions, and report a lost database as one error.

Statements run with asyncpg. On the paths that were measured, SQLAlchemy's core takes 1.6 times and its ORM 3 to 8
times as long for the same statement (docs/decisions/0022-run-statements-with-asyncpg.md).

A function that takes a connection raises StatementRefused if PostgreSQL refuses its statement. If the connection is
lost, the block that opened it raises ServiceUnavailable. Docstrings of such functions name only other errors.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Literal, TypeAlias, cast

import asyncpg
import structlog

from app.errors import BillingError
from app.postgres.failures import (
    LOST,
    MOVED,
    NoRoom,
    PoolerNotSet,
    StatementRefused,
    UniqueViolation,
    ValueRefused,
    database_unavailable,
    pooler_not_set,
)
from app.postgres.pools import Connection, ConnectionPool, PooledConnection, Usage, terminate
from app.postgres.queues import Queues
from app.postgres.servers import Servers, lacking_role_settings, local_limits
from app.settings import Settings

__all__ = ["Connection", "Database", "Record", "StatementRefused", "UniqueViolation", "ValueRefused"]

Record: TypeAlias = asyncpg.Record
State = Literal["ok", "read_only", "no_room", "database_unavailable"]

log = structlog.get_logger(__name__)

_WATCH_SECONDS = 2.0
_SEARCH_SECONDS = 1.0
_EXAMINE_SECONDS = 2.0
_NO_ROOM_SECONDS = 10.0
"""Seconds after a refused statement for which `state` reports that the server has no room."""
_IS_WRITABLE = "select current_setting('transaction_read_only') = 'off'"


class Database:
    """The process's connections: one pool for changes, and one for reads.

    Changes that wait for a row hold connections of their own pool only, so reads go on. Every method and block raises
    ServiceUnavailable: `database_unavailable` if PostgreSQL does not answer or takes no writes, and RowLocked if
    another session holds the lock of a row. See docs/decisions/0047-keep-reads-apart-from-changes.md.
    """

    def __init__(self, servers: Servers, changes: int, reads: int) -> None:
        self._servers = servers
        servers.on_writable = self._replace_all
        self._changes = ConnectionPool(servers.writable, changes, self._note_failure)
        self._reads = ConnectionPool(servers.readable, reads, self._note_failure)
        self._queues = Queues()
        self._no_room_at = float("-inf")

    @classmethod
    async def connect(
        cls, url: str, *, pool_size: int, reads: int | None = None, behind_pooler: bool = False
    ) -> Database:
        """Open at most `pool_size` connections, but at least one for changes and one for reads.

        `reads`: how many of them are for reads; without it half of them.

        Raises:
            ServiceUnavailable: `database_unavailable`: no server answers, or a pooler does that the settings do not
                name.
        """
        for_reads = max(1, pool_size // 2 if reads is None else reads)
        database = cls(Servers(url, behind_pooler=behind_pooler), max(1, pool_size - for_reads), for_reads)
        try:
            await database._changes.open()
            await database._reads.open()
            # The first connection is one for reads: a process starts although no server takes writes.
            first = await database._servers.readable()
        except LOST as error:
            raise database_unavailable() from error
        except PoolerNotSet as error:
            raise pooler_not_set() from error
        await first.close()
        return database

    @classmethod
    async def of(cls, settings: Settings, *, pool_size: int, reads: int | None = None) -> Database:
        """Open the database of the settings, as `connect` does. Raises as it does, and SettingsError without a URL."""
        return await cls.connect(
            settings.dsn,
            pool_size=pool_size,
            reads=reads,
            behind_pooler=settings.database_pooler == "transaction",
        )

    async def close(self) -> None:
        """Close the pools. Connections in use get 5 seconds to be released, then their statements fail."""
        await asyncio.gather(self._changes.close(), self._reads.close())

    def usage(self) -> dict[str, Usage]:
        """Return the usage of each pool, `changes` and `reads`."""
        return {"changes": self._changes.usage(), "reads": self._reads.usage()}

    def connection(self) -> PooledConnection:
        """Return a connection that takes writes and commits after each statement."""
        return PooledConnection(self._changes)

    def reading(self) -> PooledConnection:
        """Return a connection for reads. It takes writes, unless no server does at present."""
        return PooledConnection(self._reads)

    def transaction(self) -> AbstractAsyncContextManager[Connection]:
        """Open a transaction that commits at the end of the block and rolls back on an exception.

        Do not wait for anything but PostgreSQL inside. PostgreSQL ends a transaction after TRANSACTION_SECONDS (from
        version 17), or after IDLE_IN_TRANSACTION_SECONDS without a statement.
        """
        return self._transaction(None)

    @asynccontextmanager
    async def _transaction(self, isolation: Literal["repeatable_read"] | None) -> AsyncIterator[Connection]:
        async with self.connection() as connection, connection.transaction(isolation=isolation):
            if self._servers.is_behind_pooler:
                await connection.execute(local_limits(connection))
            try:
                yield connection
            except OSError as error:
                # The server does not answer, so it would not answer a rollback either.
                terminate(connection)
                self._note_failure(error)
                raise

    @asynccontextmanager
    async def transaction_on(self, object_id: str) -> AsyncIterator[Connection]:
        """Open a transaction whose first statement locks the row of one object.

        The transactions of one object wait in this process and hold no connection while they wait. If another process
        holds the row for longer than a statement waits, those that wait behind are refused as well.
        """
        async with self._queues.turn(object_id), self.transaction() as connection:
            yield connection

    def snapshot(self) -> AbstractAsyncContextManager[Connection]:
        """Open a transaction in which every statement sees the state of its first one (`repeatable read`).

        A row that another transaction has changed since cannot be changed in it: the statement raises StatementRefused.
        """
        return self._transaction("repeatable_read")

    @asynccontextmanager
    async def reading_snapshot(self) -> AsyncIterator[Connection]:
        """Open a transaction of reads in which every statement sees the state of its first one."""
        async with (
            self.reading() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection

    @asynccontextmanager
    async def unhurried(self) -> AsyncIterator[Connection]:
        """Open a connection for statements over whole tables, without the limit of a transaction.

        Each statement may take at most UNHURRIED_SECONDS. The connection belongs to no pool.
        """
        try:
            session = await self._servers.writable(unhurried=True)
        except PoolerNotSet as error:
            raise database_unavailable() from error
        try:
            yield cast(Connection, session)
        except LOST as error:
            raise database_unavailable() from error
        finally:
            session.terminate()

    async def lacking_role_settings(self) -> list[str]:
        """Return the names of the settings that the role lacks behind a pooler; without a pooler none."""
        if not self._servers.is_behind_pooler:
            return []
        async with self.reading() as connection:
            return await lacking_role_settings(connection)

    async def state(self) -> State:
        """Return whether reads and changes are answered. Nothing is written to find out."""
        try:
            async with asyncio.timeout(_EXAMINE_SECONDS), self.reading() as connection:
                takes_writes = await connection.fetchval(_IS_WRITABLE)
        except (BillingError, TimeoutError):
            return "database_unavailable"
        if not takes_writes or self._servers.lacks_writable:
            return "read_only"
        is_full = asyncio.get_running_loop().time() - self._no_room_at < _NO_ROOM_SECONDS
        return "no_room" if is_full else "ok"

    async def watch(self) -> None:
        """Replace connections that take reads only once a server takes writes, until this is cancelled.

        A server that was demoted keeps its sessions, so reads would stay with it without an error.
        """
        while True:
            await asyncio.sleep(_SEARCH_SECONDS if self._servers.lacks_writable else _WATCH_SECONDS)
            try:
                await self._look()
            except (BillingError, PoolerNotSet, *LOST) as error:
                log.info("database_not_examined", error=type(error).__name__)

    async def _look(self) -> None:
        if not self._servers.lacks_writable:
            async with self.reading() as connection:
                if await connection.fetchval(_IS_WRITABLE):
                    return
            self._servers.lacks_writable = True
            log.warning("database_read_only")
        if await self._servers.search():
            log.info("database_writable")

    def _replace_all(self) -> None:
        self._changes.replace()
        self._reads.replace()

    def _note_failure(self, error: BaseException) -> None:
        if isinstance(error, NoRoom):
            self._no_room_at = asyncio.get_running_loop().time()
        if isinstance(error, MOVED):
            self._replace_all()
