"""The service's database with every statement held until it is released, one at a time, by a clock of our own.

A statement that waits for a lock in Postgres counts as waiting: whoever holds the lock goes on meanwhile. What a
transaction wrote of seats and operations is noted as it commits, from notices that triggers raise, so that its place
in the order of everything else is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, cast

import asyncpg
import orjson

from app.postgres.database import Connection, Database
from app.postgres.failures import LOCKED, database_unavailable, row_locked
from app.postgres.pools import PooledConnection
from app.postgres.queues import Queues
from verification.simulation.held_loop import HeldLoop, Process, held_loop

POOL_SIZE = 10
CONNECTIONS = 24
"""Opened before the first schedule; more are opened if a schedule needs them."""
ACQUIRE_SECONDS = 5.0
_LOST = (asyncpg.InterfaceError, asyncpg.QueryCanceledError, OSError, TimeoutError)
SESSION = {"application_name": "schedules", "jit": "off", "plan_cache_mode": "force_generic_plan"}

SETUP = """
    create schema bench;
    create unlogged table bench.clock (at double precision not null);
    insert into bench.clock values (0);
    create function bench.clock_timestamp() returns timestamptz stable language sql
        as 'select to_timestamp(at) from bench.clock';
    create function bench.statement_timestamp() returns timestamptz stable language sql
        as 'select bench.clock_timestamp()';
    create sequence bench.uuids;
    create function bench.gen_random_uuid() returns uuid volatile language sql
        as $$ select md5(nextval('bench.uuids')::text)::uuid $$;
    create function bench.random() returns double precision immutable language sql as 'select 0.5::float8';
    create function bench.watch() returns trigger language plpgsql as $$
        begin
            raise notice 'bench %', jsonb_build_object('table', tg_table_name, 'gone', tg_op = 'DELETE',
                'row', to_jsonb(coalesce(new, old)));
            return null;
        end $$;
    do $$ declare found record; begin
        for found in select table_name, column_name from information_schema.columns
            where table_schema = 'public' and column_default like '%clock_timestamp()%'
        loop
            execute format('alter table public.%I alter %I set default bench.clock_timestamp()',
                found.table_name, found.column_name);
        end loop;
        alter table public.identities alter creation_key set default bench.gen_random_uuid();
        for found in select tablename from pg_tables where schemaname = 'public' loop
            execute format('alter table public.%I set (autovacuum_enabled = false)', found.tablename);
        end loop;
        execute format('alter database %I set search_path = bench, pg_catalog, public', current_database());
    end $$;"""
WATCHED = (
    "operations",
    "operation_steps",
    "reservations",
    "invitations",
    "identities",
    "customers",
    "subscriptions",
    "webhook_events",
)
WHOLE_EVERY = 20
ORDERED = ("operations", "operation_steps", "reservations", "refreshes", "subscriptions")
"""Rows that are taken in an order that their place in the table may decide: emptied so that it is the same again."""


@dataclass(frozen=True, slots=True)
class Change:
    """A row as a transaction left it, or removed it; `tick` is its commit's place in the order of everything."""

    tick: int
    at: float
    table: str
    row: dict[str, Any]
    gone: bool


@dataclass(slots=True, eq=False)
class Session:
    """One connection; `pending` is what its open transaction has written."""

    raw: asyncpg.Connection[asyncpg.Record]
    pid: int
    owner: Process | None = None
    pending: list[dict[str, Any]] = field(default_factory=list)
    in_transaction: bool = False


@dataclass(slots=True, eq=False)
class Turn:
    """A statement that waits to be let through, or that Postgres works on."""

    process: Process
    session: Session
    text: str
    values: tuple[Any, ...]
    go: asyncio.Future[None]
    over: asyncio.Future[None]
    blocked: bool = False
    was_blocked: bool = False
    """Its answer is held as well: when Postgres lets go of a lock, two go on, and their order is to be chosen."""

    def order(self) -> tuple[str, list[str]]:
        return str(self), [value for value in self.values if isinstance(value, str)]

    @property
    def may_wait(self) -> bool:
        """Can it have to wait for a row? What only reads, begins or ends a transaction does not."""
        if self.was_blocked or self.text in ("begin", "commit", "rollback"):
            return False
        text = self.text.lstrip()
        return not text.startswith("select") or "for update" in text or "draw_stripe" in text

    def __str__(self) -> str:
        return (
            f"{self.process.name} {' '.join(self.text.split())[:40]}{' (answer)' if self.was_blocked else ''}"
        )


class Gate:
    """Every connection of every process. `waiting`: statements that may be released; `sent`: those in Postgres."""

    def __init__(
        self, loop: HeldLoop, url: str, control: asyncpg.Connection[asyncpg.Record], order: Iterator[int]
    ) -> None:
        self._loop = loop
        self._url = url
        self._control = control
        self._order = order
        self._free: list[Session] = []
        self._all: list[Session] = []
        self._wound = 0.0
        self._has_lost_one = False
        self.lent: dict[asyncio.Task[Any], int] = {}
        """Tasks that have a connection just now, and how many."""
        self._holders: set[int] = set()
        self.waiting: list[Turn] = []
        self.sent: list[Turn] = []
        self.changes: list[Change] = []
        self.statements = 0

    async def session(self, process: Process) -> Session:
        found = await self._open_one()
        found.owner = process
        return found

    async def _open_one(self) -> Session:
        while self._free:
            found = self._free.pop()
            if not found.raw.is_closed():
                return found
            self._all.remove(found)
            self._has_lost_one = True
        return await self._connect()

    @property
    def has_lost_a_connection(self) -> bool:
        """Was one closed since `forget`? What its last transaction did is then not known.

        On a busy machine asyncpg may give up a connection whose statement was cancelled.
        """
        return self._has_lost_one or any(session.raw.is_closed() for session in self._all)

    async def _connect(self) -> Session:
        self._loop.under_way += 1
        try:
            raw = await asyncpg.connect(self._url, server_settings=SESSION, max_cached_statement_lifetime=0)
            await raw.set_type_codec(
                "jsonb", schema="pg_catalog", encoder=_encoded, decoder=_decoded, format="binary"
            )
        finally:
            self._loop.under_way -= 1
        found = Session(raw, raw.get_server_pid())
        raw.add_log_listener(lambda _, message: _noticed(found, str(message.message)))
        self._all.append(found)
        return found

    async def warm_up(self) -> None:
        """Connect before the first schedule: a task that connects goes on later than others of the same moment."""
        self._free += [await self._connect() for _ in range(CONNECTIONS)]

    def give_back(self, session: Session) -> None:
        """A killed process gives nothing back: `bury` does."""
        if session.owner is not None and session.owner.alive:
            session.owner = None
            self._free.append(session)

    async def run(self, session: Session, name: str, text: str, values: tuple[Any, ...]) -> Any:
        process = session.owner
        if process is None:
            raise LookupError("a connection was used after it had been given back")
        process.check()
        turn = Turn(process, session, text, values, self._loop.create_future(), self._loop.create_future())
        await self._let_through(turn)
        self.statements += 1
        self.sent.append(turn)
        self._loop.under_way += 1
        try:
            found = await getattr(session.raw, name)(text, *values)
        except BaseException:
            if not session.in_transaction:
                session.pending.clear()
            raise
        finally:
            self.sent.remove(turn)
            turn.over.set_result(None)
            if not turn.blocked:
                self._loop.under_way -= 1
        if turn.was_blocked:
            # The end of the transaction that it waited for came first, whichever answer is read first.
            for ending in [other for other in self.sent if other.text in ("commit", "rollback")]:
                await ending.over
        if not session.in_transaction:
            self._commit(session)
        if turn.was_blocked:
            turn.go = self._loop.create_future()
            await self._let_through(turn)
        return found

    async def _let_through(self, turn: Turn) -> None:
        self.waiting.append(turn)
        try:
            await turn.go
        except BaseException:
            if turn in self.waiting:
                self.waiting.remove(turn)
            raise
        turn.process.check()

    def _commit(self, session: Session) -> None:
        for entry in session.pending:
            change = Change(next(self._order), self._loop.time(), entry["table"], entry["row"], entry["gone"])
            self.changes.append(change)
        session.pending.clear()

    async def begin(self, session: Session) -> None:
        await self.run(session, "execute", "begin", ())
        session.in_transaction = True

    async def end(self, session: Session, *, commit: bool) -> None:
        if not commit:
            session.pending.clear()
        await self.run(session, "execute", "commit" if commit else "rollback", ())
        session.in_transaction = False
        self._commit(session)

    async def release(self, turn: Turn) -> None:
        """Lets one statement through, by the clock as it is now."""
        self.waiting.remove(turn)
        if self._wound != self._loop.time():
            self._wound = self._loop.time()
            await self.ask("update bench.clock set at = $1", self._wound)
        if not turn.go.done():
            turn.go.set_result(None)

    async def ask(self, text: str, *values: Any) -> list[asyncpg.Record]:
        """By the harness itself, beside all that is held."""
        self._loop.under_way += 1
        try:
            if not values:
                await self._control.execute(text)
                return []
            return await self._control.fetch(text, *values)
        finally:
            self._loop.under_way -= 1

    async def look_for_locks(self) -> bool:
        """Which statements wait for a lock now; those that do not are under way. Has that changed?"""
        if not self.sent:
            return False
        rows = await self.ask(
            "select pid, pg_blocking_pids(pid) as holders from unnest($1::int[]) pid",
            [turn.session.pid for turn in self.sent],
        )
        blocked = {row["pid"] for row in rows if row["holders"]}
        self._holders = {pid for row in rows for pid in row["holders"]}
        is_changed = False
        for turn in self.sent:
            is_blocked = turn.session.pid in blocked
            if is_blocked != turn.blocked:
                turn.blocked = is_blocked
                turn.was_blocked = True
                self._loop.under_way += -1 if is_blocked else 1
                is_changed = True
        return is_changed

    @property
    def anything_blocked(self) -> bool:
        return any(turn.blocked for turn in self.sent)

    def eligible(self) -> list[Turn]:
        """What may be released now, in an order that is the same each time.

        While somebody waits for a lock, only its holder and reads go on: of two who wait for one row, Postgres does
        not say who gets it first.
        """
        found = sorted(self.waiting, key=Turn.order)
        if not self.anything_blocked:
            return found
        return [turn for turn in found if turn.session.pid in self._holders or not turn.may_wait] or found

    async def kill(self, process: Process) -> None:
        """The process is gone from one moment to the next; Postgres rolls back what it had not committed."""
        process.alive = False
        process.killed_at = process.killed_at or self._loop.time()
        for turn in [turn for turn in self.sent if turn.process is process]:
            await self.ask("select pg_cancel_backend($1)", turn.session.pid)
        while any(turn.process is process for turn in self.sent):
            await self.ask("select 1")
        while process.tasks:
            for task in list(process.tasks):
                task.cancel()
            await asyncio.sleep(0)
        for session in self._all:
            if session.owner is process:
                self._loop.under_way += 1
                if session.raw.is_in_transaction():
                    await session.raw.execute("rollback")
                self._loop.under_way -= 1
                session.in_transaction = False
                session.pending.clear()
                session.owner = None
                self._free.append(session)

    def forget(self) -> None:
        """For the next schedule; every connection is free again."""
        if len(self._free) != len(self._all) or self.waiting or self.sent:
            raise AssertionError("a connection is still in use")
        self._all = [session for session in self._all if not session.raw.is_closed()]
        self._free = self._all[::-1]
        self._has_lost_one = False
        self.changes = []
        self.lent.clear()

    async def close(self) -> None:
        for session in self._all:
            session.raw.terminate()
        self._control.terminate()


def _encoded(value: object) -> bytes:
    return b"\x01" + orjson.dumps(value)


def _decoded(data: bytes) -> Any:
    return orjson.loads(memoryview(data)[1:])


def _noticed(session: Session, message: str) -> None:
    if message.startswith("bench "):
        session.pending.append(orjson.loads(message[6:]))


class HeldDatabase(Database):
    """What a process of the service is handed for its pool."""

    def __init__(self, gate: Gate, process: Process) -> None:
        self.gate = gate
        self.process = process
        self._slots = asyncio.Semaphore(POOL_SIZE)
        self._queues = Queues()

    def connection(self) -> PooledConnection:
        return _HeldConnection(self)

    def reading(self) -> PooledConnection:
        return _HeldConnection(self)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        async with self.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        async with self.connection() as connection, connection.transaction(isolation="repeatable_read"):
            yield connection

    async def acquire(self) -> Session:
        self.process.check()
        if self._slots.locked():
            try:
                await asyncio.wait_for(self._slots.acquire(), ACQUIRE_SECONDS)
            except TimeoutError as error:
                raise database_unavailable() from error
        else:
            await self._slots.acquire()
        return await self.gate.session(self.process)

    async def release(self, session: Session) -> None:
        """Ends a transaction whose `begin` was cancelled on its way, as asyncpg's pool does."""
        try:
            if self.process.alive and session.raw.is_in_transaction():
                await self.gate.end(session, commit=False)
        finally:
            self._slots.release()
            self.gate.give_back(session)


class _HeldConnection(PooledConnection):
    __slots__ = ("_database", "_session", "_task")

    def __init__(self, database: HeldDatabase) -> None:
        self._database = database

    async def __aenter__(self) -> Connection:
        self._session = await self._database.acquire()
        task = asyncio.current_task()
        if task is None:
            raise LookupError("a connection is lent to a task")
        self._task = task
        lent = self._database.gate.lent
        lent[task] = lent.get(task, 0) + 1
        connection: Any = HeldConnection(self._database.gate, self._session)
        return cast(Connection, connection)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lent = self._database.gate.lent
        lent[self._task] = lent.get(self._task, 1) - 1
        if not lent[self._task]:
            del lent[self._task]
        await self._database.release(self._session)
        if isinstance(error, _LOST):
            raise database_unavailable() from error
        if isinstance(error, LOCKED):
            raise row_locked() from error


class HeldConnection:
    """The part of a connection that the service uses, each statement through the gate."""

    def __init__(self, gate: Gate, session: Session) -> None:
        self._gate = gate
        self._session = session

    async def fetch(self, text: str, *values: Any) -> Any:
        return await self._gate.run(self._session, "fetch", text, values)

    async def fetchrow(self, text: str, *values: Any) -> Any:
        return await self._gate.run(self._session, "fetchrow", text, values)

    async def fetchval(self, text: str, *values: Any) -> Any:
        return await self._gate.run(self._session, "fetchval", text, values)

    async def execute(self, text: str, *values: Any) -> Any:
        return await self._gate.run(self._session, "execute", text, values)

    @asynccontextmanager
    async def transaction(self, isolation: str | None = None) -> AsyncIterator[None]:
        await self._gate.begin(self._session)
        if isolation is not None:
            await self.execute(f"set transaction isolation level {isolation.replace('_', ' ')}")
        try:
            yield
        except BaseException:
            await self._gate.end(self._session, commit=False)
            raise
        await self._gate.end(self._session, commit=True)

    def is_closed(self) -> bool:
        return bool(self._session.raw.is_closed())


async def install(url: str) -> None:
    """The clock and the watch, in a migrated database that nobody else uses; before any pool connects."""
    control = await asyncpg.connect(url)
    try:
        await control.execute(SETUP)
        for table in WATCHED:
            await control.execute(
                f"create trigger watch after insert or update or delete on public.{table}"
                " for each row execute function bench.watch()"
            )
    finally:
        await control.close()


async def tables(url: str) -> list[str]:
    control = await asyncpg.connect(url)
    try:
        rows = await control.fetch(
            "select tablename from pg_tables where schemaname = 'public'"
            " and tablename not in ('alembic_version', 'schema_floor') order by 1"
        )
    finally:
        await control.close()
    return [row["tablename"] for row in rows]


async def open_gate(url: str, order: Iterator[int]) -> Gate:
    loop = held_loop()
    control = await asyncpg.connect(url, max_cached_statement_lifetime=0)
    gate = Gate(loop, url, control, order)
    await gate.warm_up()
    return gate


async def empty(gate: Gate, names: list[str], number: int) -> None:
    """Between two schedules. Truncating all is slow, deleting for ever makes tables long: both in turn."""
    await gate.ask("alter sequence bench.uuids restart")
    if number % WHOLE_EVERY == 0:
        await gate.ask(f"truncate {', '.join(names)} restart identity")
        return
    rest = [name for name in names if name not in ORDERED]
    await gate.ask(f"truncate {', '.join(ORDERED)}; " + "; ".join(f"delete from {name}" for name in rest))
