"""Minutes of waiting in milliseconds: an event loop and a database whose clocks move only when everybody waits.

The loop jumps to its next timer as soon as nothing is ready and no statement is under way, in steps of `TICK`, so
that what falls within one step really runs at once. `clock_timestamp()` and `statement_timestamp()` are shadowed in the
benchmark's database by functions that read the loop's time: leases and spacing of the service run on it, unchanged.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import asyncpg

from app.postgres.database import Connection, Database
from app.postgres.pools import ConnectionPool, PooledConnection
from app.postgres.servers import Servers

TICK = 0.2
"""Seconds."""

STARTS_AT = 10_000.0
"""Far from today: added to a whole epoch, the loop's own resolution would be lost in rounding."""

CLOCK = """
    create schema bench;
    create unlogged table bench.clock (at double precision not null);
    insert into bench.clock values (0);
    create function bench.clock_timestamp() returns timestamptz stable language sql
        as 'select to_timestamp(at) from bench.clock';
    create function bench.statement_timestamp() returns timestamptz stable language sql
        as 'select bench.clock_timestamp()';
    alter table refreshes alter not_before set default bench.clock_timestamp();
    do $$ begin
        execute format('alter database %I set search_path = bench, pg_catalog, public', current_database());
    end $$"""


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, tick: float = TICK) -> None:
        self._tick = tick
        self._ticks = math.ceil(STARTS_AT / tick)
        self._real = 0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self._ticks * self._tick

    @contextmanager
    def real_wait(self) -> Iterator[None]:
        """What runs inside waits for something real: no time passes meanwhile."""
        self._real += 1
        try:
            yield
        finally:
            self._real -= 1

    @property
    def waits_for_something_real(self) -> bool:
        return self._real > 0

    def advance(self, seconds: float) -> None:
        self._ticks += max(1, math.ceil(seconds / self._tick))


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        if timeout is None or self._loop.waits_for_something_real:
            return super().select(None)
        ready = super().select(0)
        if not ready:
            self._loop.advance(timeout)
        return ready


def virtual_loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualLoop):
        raise TypeError("this runs on a VirtualLoop only")
    return loop


class _VirtualConnection(PooledConnection):
    """Stops time for as long as the connection is out, once the database's clock is the loop's."""

    __slots__ = ("_database", "_waiting")

    def __init__(self, database: VirtualDatabase, pool: ConnectionPool) -> None:
        super().__init__(pool)
        self._database = database

    async def __aenter__(self) -> Connection:
        loop = virtual_loop()
        self._waiting = loop.real_wait()
        self._waiting.__enter__()
        try:
            await self._database.wind(loop.time())
            return await super().__aenter__()
        except BaseException:
            self._waiting.__exit__(None, None, None)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(kind, error, trace)
        finally:
            self._waiting.__exit__(None, None, None)


class VirtualDatabase(Database):
    """The service's pool; a connection in use stops time, so none may be held over a wait for anything else."""

    def __init__(self, servers: Servers, changes: int, reads: int) -> None:
        super().__init__(servers, changes, reads)
        self._wound = 0.0
        self._winding = asyncio.Lock()

    def connection(self) -> PooledConnection:
        return _VirtualConnection(self, self._changes)

    def reading(self) -> PooledConnection:
        return _VirtualConnection(self, self._reads)

    async def wind(self, now: float) -> None:
        """Sets the database's clock, once for each step of the loop's."""
        if self._wound == now:
            return
        async with self._winding:
            if self._wound != now:
                async with PooledConnection(self._changes) as connection:
                    await connection.execute("update bench.clock set at = $1", now)
                self._wound = now


async def install_clock(database_url: str) -> None:
    """Gives a migrated database the clock that the loop winds; before any pool connects."""
    with virtual_loop().real_wait():
        connection = await asyncpg.connect(database_url)
        try:
            await connection.execute(CLOCK)
        finally:
            await connection.close()


async def connect(database_url: str, *, pool_size: int) -> VirtualDatabase:
    with virtual_loop().real_wait():
        found = await VirtualDatabase.connect(database_url, pool_size=pool_size)
    if not isinstance(found, VirtualDatabase):
        raise TypeError("the pool is of another class")
    return found
