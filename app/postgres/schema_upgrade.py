"""Check and lock the database before `coseat migrate` runs migrations.

Migrations run one at a time, on a direct connection, and never on an unknown schema. Only `migrations/env.py` and the
migrations import this module. It is the only one that runs statements with SQLAlchemy.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

import asyncpg
import structlog
from alembic import op
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from app.errors import SchemaRefused
from app.postgres.sql_files import read_statements
from app.postgres.tables import metadata

log = structlog.get_logger(__name__)

# No other lock of the database has this number. Two deployments that start together migrate one after the other.
MIGRATION_LOCK = 7_203_911_640
_SECONDS_BETWEEN_TRIES = 0.2
_SECONDS_BETWEEN_WORDS = 3.0
_HOLDERS = """
    select pid from pg_locks
    where locktype = 'advisory' and granted and objsubid = 1
      and database = (select oid from pg_database where datname = current_database())
      and (classid::bigint << 32) + objid::bigint = :key
    order by pid"""

LOCK_SECONDS = 1
"""Seconds for which a version waits for its locks. Every statement on the table waits behind it."""
TRIES = 40
"""Tries of one version, over about two minutes."""
_PAUSES = (1.0, 3.0)
"""Seconds between two tries: long enough for the statements that waited behind a try."""
_LOCK_NOT_AVAILABLE = "55P03"

FIRST = 10
"""The migration that replaced all earlier ones."""
_STAMPED = (8, 9)
_RESET = (
    "Nothing is released yet, so there is no migration from it. Throw a development state folder away with "
    "`coseat dev --reset`; otherwise migrate an empty database and run `coseat sync`."
)
_SCRATCH = "coseat_expected_schema"
_MOST_DIFFERENCES = 3

# Each object of the current schema as one row: its name, and everything that its behaviour depends on. The order of a
# table's columns is not part of it. `members` are the objects of extensions.
_DESCRIBE = """
with members as (select classid, objid from pg_depend where deptype = 'e'),
own as (
    select c.oid, c.relname, c.relkind, c.relpersistence, c.reloptions from pg_class c
    where c.relnamespace = to_regnamespace(current_schema()) and c.relname not in ('alembic_version', 'schema_floor')
      and not exists (select from members m where m.classid = 'pg_class'::regclass and m.objid = c.oid))
select 'table ' || relname,
    concat_ws(' ', relkind, relpersistence, (select string_agg(o, ',' order by o) from unnest(reloptions) o),
        case when relkind in ('v', 'm') then pg_get_viewdef(oid) end)
from own where relkind not in ('i', 'I', 'S', 'c')
union all
select 'column ' || o.relname || '.' || a.attname,
    concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull::text, a.attidentity, a.attgenerated,
        a.attcollation::text, pg_get_expr(d.adbin, d.adrelid))
from own o join pg_attribute a on a.attrelid = o.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where o.relkind not in ('i', 'I', 'S')
union all
select 'constraint ' || o.relname || '.' || k.conname, concat_ws(' ', pg_get_constraintdef(k.oid), k.convalidated::text)
from own o join pg_constraint k on k.conrelid = o.oid and k.contype <> 'n'
union all
select 'index ' || i.relname, concat_ws(' ', pg_get_indexdef(x.indexrelid), x.indisvalid::text)
from own o join pg_index x on x.indrelid = o.oid join pg_class i on i.oid = x.indexrelid
union all
select 'sequence ' || o.relname, concat_ws(' ', format_type(s.seqtypid, null), s.seqstart, s.seqincrement)
from own o join pg_sequence s on s.seqrelid = o.oid
union all
select 'function ' || p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')', pg_get_functiondef(p.oid)
from pg_proc p where p.pronamespace = to_regnamespace(current_schema()) and p.prokind in ('f', 'p')
  and not exists (select from members m where m.classid = 'pg_proc'::regclass and m.objid = p.oid)
union all
select 'trigger ' || o.relname || '.' || g.tgname, concat_ws(' ', pg_get_triggerdef(g.oid), g.tgenabled)
from own o join pg_trigger g on g.tgrelid = o.oid and not g.tgisinternal
union all
select 'type ' || t.typname, (select string_agg(e.enumlabel, ',' order by e.enumsortorder) from pg_enum e
    where e.enumtypid = t.oid)
from pg_type t where t.typnamespace = to_regnamespace(current_schema()) and t.typtype in ('e', 'd', 'r')
  and not exists (select from members m where m.classid = 'pg_type'::regclass and m.objid = t.oid)
"""


async def require_direct(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Check that the connection leads to PostgreSQL itself and not to a pooler.

    Migrations hold a lock of the session from the first version to the last, and a pooler may change the session
    between two transactions. A pooler answers the start of a connection itself and reports its own process id.

    Raises:
        SchemaRefused: the connection leads to a pooler.
    """
    if await connection.fetchval("select pg_backend_pid()") != connection.get_server_pid():
        raise SchemaRefused(
            "`migrate` needs a direct connection to PostgreSQL, and DATABASE_URL leads to a pooler. "
            "Set DATABASE_URL to PostgreSQL's own address for this command."
        )


def lock(connection: Connection) -> None:
    """Take the migration lock, which ends with the connection; wait while another process holds it.

    Each try is its own transaction. A statement that waited for the lock would keep its snapshot, and
    `create index concurrently` in the process that holds the lock would wait for that snapshot without end. The wait
    is logged, with the process ids that hold the lock.
    """
    began, told_at = time.monotonic(), -_SECONDS_BETWEEN_WORDS
    while not connection.scalar(text("select pg_try_advisory_lock(:key)"), {"key": MIGRATION_LOCK}):
        waited = time.monotonic() - began
        if waited - told_at >= _SECONDS_BETWEEN_WORDS:
            told_at = waited
            holders = list(connection.scalars(text(_HOLDERS), {"key": MIGRATION_LOCK}))
            log.warning("migration_lock_held", by=holders, waited=round(waited))
        connection.rollback()
        time.sleep(_SECONDS_BETWEEN_TRIES)
    connection.commit()


def with_tries(connection: Connection, run: Callable[[], None]) -> None:
    """Run the versions that are left, and try a version again that did not get its locks in LOCK_SECONDS.

    A version that was finished stays, because each is a transaction of its own.

    Raises:
        SchemaRefused: one version did not get its locks in TRIES tries.
    """
    tried, reached = 0, _number(connection)
    connection.rollback()
    while True:
        try:
            run()
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
        else:
            return
        connection.rollback()
        now = _number(connection)
        connection.rollback()
        tried, reached = (tried + 1, reached) if now == reached else (1, now)
        log.info("migration_waits", after=f"{reached:04}", tries=tried)
        if tried >= TRIES:
            raise SchemaRefused(
                f"The version after {reached:04} did not get its locks in {TRIES} tries of {LOCK_SECONDS} s each, "
                "because other transactions hold them. Nothing of it was changed. Look for the longest transaction in "
                "pg_stat_activity (order by xact_start), end it, and run `coseat migrate` again."
            )
        time.sleep(random.uniform(*_PAUSES))  # noqa: S311 - spreads tries, guards nothing


def limit_locks(connection: Connection) -> None:
    """Let each statement of the session wait at most LOCK_SECONDS for a lock."""
    connection.execute(text(f"set lock_timeout = '{LOCK_SECONDS}s'"))
    connection.commit()


def prepare(connection: Connection, create_first: Callable[[], None]) -> int:
    """Return the number of the database's schema, 0 if it has none.

    A database from before the squash is stamped if its schema equals what `create_first` creates.

    Raises:
        SchemaRefused: if the database has tables of an unreleased schema that differs.
    """
    with connection.begin():
        number = _number(connection)
        if number >= FIRST:
            return number
        found = describe(connection)
        if number == 0 and not any(f"table {name}" in found for name in metadata.tables):
            return 0
        differing = _differences(found, _expected(connection, create_first))
        if number not in _STAMPED or differing:
            state = f"at schema {number:04}" if number else "without a schema number"
            named = f" and differs from {FIRST:04} in {', '.join(differing[:_MOST_DIFFERENCES])}"
            raise SchemaRefused(f"The database is {state}{named if differing else ''}. {_RESET}")
        for statement in read_statements("schema_floor"):
            connection.execute(text(statement))
        connection.execute(text("update alembic_version set version_num = :head"), {"head": f"{FIRST:04}"})
    return FIRST


def describe(connection: Connection) -> dict[str, str]:
    """Return every object of the current schema by name, with everything that its behaviour depends on."""
    schema = connection.scalar(text("select quote_ident(current_schema())"))
    return {
        name: (definition or "").replace(f"{schema}.", "")
        for name, definition in connection.exec_driver_sql(_DESCRIBE)
    }


def raise_floor(number: str) -> None:
    """Exclude releases older than schema `number`. For migrations that remove what those releases use."""
    op.execute(f"update schema_floor set number = greatest(number, {int(number)})")


def create_index_concurrently(name: str, definition: str) -> None:
    """Create an index without blocking writes. It is the only statement of a version that is marked `concurrent`.

    `definition` is the text after the name, from `on`. An interrupted try leaves an invalid index, which is dropped
    first, so that the version can be repeated. A valid index stays as it is.
    """
    with op.get_context().autocommit_block():
        # It waits for every transaction that is older, and nothing else waits behind it.
        op.execute("set lock_timeout = 0")
        if op.get_context().as_sql or _is_invalid(op.get_bind(), name):
            op.execute(f"drop index concurrently if exists {name}")
        op.execute(f"create index concurrently if not exists {name} {definition}")
        op.execute(f"set lock_timeout = '{LOCK_SECONDS}s'")


def _number(connection: Connection) -> int:
    if connection.scalar(text("select to_regclass('alembic_version')")) is None:
        return 0
    return int(connection.scalar(text("select version_num from alembic_version")) or 0)


def _expected(connection: Connection, create_first: Callable[[], None]) -> dict[str, str]:
    """Create the schema beside the database's own, describe it, and roll it back."""
    savepoint = connection.begin_nested()
    connection.execute(text(f"create schema {_SCRATCH}"))
    connection.execute(text(f"set local search_path to {_SCRATCH}"))
    create_first()
    described = describe(connection)
    savepoint.rollback()
    return described


def _differences(found: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def _is_invalid(connection: Connection, name: str) -> bool:
    return bool(
        connection.scalar(
            text("select not indisvalid from pg_index where indexrelid = to_regclass(:name)"), {"name": name}
        )
    )
