"""Lend the connections of a process: the one that a block leaves is handed to the caller that has waited longest."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, TypeAlias

import asyncpg

from app.postgres.failures import (
    BROKEN,
    LOCKED,
    LOST,
    STATEMENT_ENDED,
    PoolerNotSet,
    database_unavailable,
    row_locked,
)
from app.postgres.servers import Session

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
_Turn: TypeAlias = "asyncio.Future[tuple[Connection, int] | None]"

_ACQUIRE_SECONDS = 5
_CLOSE_SECONDS = 5


async def _keep_session(_: object) -> None:
    """Replace asyncpg's reset, which would take a round trip at each release. No code here changes a session."""


def _is_closed(connection: Connection) -> bool:
    """Return True if the connection is lost. The driver may have taken it back, and then it answers nothing."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


def terminate(connection: Connection) -> None:
    """Close a connection at once, unless it is closed. What it was doing is lost."""
    if not _is_closed(connection):
        connection.terminate()


class Usage(NamedTuple):
    """The connections of a pool, and the callers that wait for one."""

    busy: int
    idle: int
    waiting: int


class ConnectionPool:
    """At most `most` connections for one purpose: changes, or reads.

    A block that ends hands its connection to the caller that has waited longest, or leaves it in `idle` for the next
    one. The driver's pool is asked only for new connections: a release and an acquire cost asyncpg a task and a turn of
    the loop, as much as a third of a statement. Connections of an earlier `generation` are closed when they are
    released.
    """

    __slots__ = (
        "_acquiring",
        "_closing",
        "_connections",
        "_places",
        "_waiting",
        "generation",
        "idle",
        "is_closing",
        "on_failure",
    )

    def __init__(
        self,
        connect: Callable[[], Awaitable[Session]],
        most: int,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        async def opened(*_: Any, **__: Any) -> Session:
            return await connect()

        self._connections: asyncpg.Pool[asyncpg.Record] = asyncpg.create_pool(
            min_size=0, max_size=most, reset=_keep_session, connect=opened
        )
        self._places = most
        """How many connections the driver's pool can still give."""
        self._waiting: deque[_Turn] = deque()
        self._acquiring = 0
        self.idle: list[Connection] = []
        self.generation = 0
        self.is_closing = False
        self.on_failure = on_failure
        self._closing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Make the driver's pool ready. It opens no connection yet."""
        await self._connections

    def usage(self) -> Usage:
        """Return how many connections are busy and idle, and how many callers wait for one."""
        idle = self._connections.get_idle_size() + len(self.idle)
        return Usage(self._connections.get_size() - idle, idle, len(self._waiting) + self._acquiring)

    async def acquire(self) -> tuple[Connection, int]:
        """Return a connection that another caller hands over, or a new one, and its generation.

        Raises:
            OSError, asyncpg.PostgresError, asyncpg.InterfaceError: one of `LOST`: there is none within 5 seconds.
            PoolerNotSet: the server is a pooler.
        """
        until = asyncio.get_running_loop().time() + _ACQUIRE_SECONDS
        if self._places:
            self._places -= 1
        elif (handed := await self._turn()) is not None:
            return handed
        self._acquiring += 1
        try:
            left = until - asyncio.get_running_loop().time()
            return await self._connections.acquire(timeout=max(left, 0.0)), self.generation
        except BaseException:
            self._leave()
            raise
        finally:
            self._acquiring -= 1

    async def _turn(self) -> tuple[Connection, int] | None:
        """Wait for a connection, or for the place of one that was closed: then None."""
        loop = asyncio.get_running_loop()
        turn: _Turn = loop.create_future()
        self._waiting.append(turn)
        giving_up = loop.call_later(_ACQUIRE_SECONDS, self._give_up, turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with suppress(ValueError):
                    self._waiting.remove(turn)
            elif turn.exception() is None:
                # It came in the same moment, so it goes to the next caller.
                await self._decline(turn.result())
            raise
        finally:
            giving_up.cancel()

    def _give_up(self, turn: _Turn) -> None:
        if not turn.done():
            self._waiting.remove(turn)
            turn.set_exception(TimeoutError())

    async def _decline(self, handed: tuple[Connection, int] | None) -> None:
        if handed is None:
            self._leave()
            return
        connection, generation = handed
        if generation == self.generation and not _is_closed(connection):
            self.hand_over(connection)
            return
        terminate(connection)
        await self.discard(connection)

    def hand_over(self, connection: Connection) -> None:
        """Give a connection of the present generation to the caller that has waited longest, or keep it."""
        if not self._next((connection, self.generation)):
            self.idle.append(connection)

    async def discard(self, connection: Connection) -> None:
        """Release a connection to the driver's pool, and its place to the caller that has waited longest."""
        try:
            await self._connections.release(connection)
        finally:
            self._leave()

    def _leave(self) -> None:
        if not self._next(None):
            self._places += 1

    def _next(self, handed: tuple[Connection, int] | None) -> bool:
        while self._waiting:
            turn = self._waiting.popleft()
            # A caller that was cancelled a moment ago may not have left the queue yet.
            if not turn.done():
                turn.set_result(handed)
                return True
        return False

    def replace(self) -> None:
        """Close the idle connections now, and the others when they are released."""
        self.generation += 1
        idle, self.idle = self.idle, []
        task = asyncio.create_task(self._expire(idle))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _expire(self, idle: list[Connection]) -> None:
        await self._connections.expire_connections()
        for connection in idle:
            terminate(connection)
            await self.discard(connection)

    async def close(self) -> None:
        """Close the pool. Connections in use get 5 seconds to be released, then their statements fail."""
        self.is_closing = True
        await asyncio.gather(*self._closing)
        try:
            while self.idle:
                await self.discard(self.idle.pop())
            await asyncio.wait_for(self._connections.close(), _CLOSE_SECONDS)
        except LOST:
            self._connections.terminate()


class PooledConnection:
    """A connection for one `async with` block.

    It is a plain class because the generator of `asynccontextmanager` takes as long as a statement.
    """

    __slots__ = ("_connection", "_generation", "_pool")

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    async def __aenter__(self) -> Connection:
        pool = self._pool
        try:
            while pool.idle:
                self._connection, self._generation = pool.idle.pop(), pool.generation
                if not _is_closed(self._connection):
                    return self._connection
                await pool.discard(self._connection)
            self._connection, self._generation = await pool.acquire()
        except (*LOST, PoolerNotSet) as error:
            raise database_unavailable() from error
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pool, connection = self._pool, self._connection
        is_current = self._generation == pool.generation
        if error is None and is_current and not pool.is_closing and not _is_closed(connection):
            pool.hand_over(connection)
            return
        is_lost = isinstance(error, BROKEN)
        try:
            if not is_current or (is_lost and not isinstance(error, STATEMENT_ENDED)):
                terminate(connection)
            await pool.discard(connection)
        except LOST as lost:
            raise database_unavailable() from lost
        if error is not None and is_lost:
            pool.on_failure(error)
            raise database_unavailable() from error
        if isinstance(error, LOCKED):
            raise row_locked() from error
