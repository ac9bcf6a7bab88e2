"""Runs migrations against `DATABASE_URL`, or against `sqlalchemy.url` where a caller has set it."""

import asyncio
from collections.abc import Iterable
from logging.config import fileConfig
from typing import Any

import asyncpg
from alembic import context
from alembic.operations import MigrationScript, Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from asyncpg.connect_utils import SessionAttribute
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.postgres import schema_upgrade
from app.postgres.failures import LOST, database_unavailable
from app.postgres.tables import metadata
from app.settings import load_settings

CONFIGURED: dict[str, Any] = {
    "target_metadata": metadata,
    "compare_server_default": True,
    # A version that fails undoes itself only: what was finished before it stays, and the next try goes on from there.
    "transaction_per_migration": True,
}

if context.config.config_file_name is not None and not context.config.attributes.get("keep_logging"):
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)


async def connect() -> "asyncpg.Connection[asyncpg.Record]":
    """The driver reads the URL itself, as in the service: SQLAlchemy does not know `sslmode` and its kin."""
    given = context.config.get_main_option("sqlalchemy.url") or load_settings(process="migrate").dsn
    url = given.replace("postgresql+asyncpg://", "postgresql://", 1)
    try:
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
            url, target_session_attrs=SessionAttribute.read_write
        )
    except LOST as error:
        raise database_unavailable() from error
    await schema_upgrade.require_direct(connection)
    return connection


def scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(context.config)


def newest() -> int:
    return int(scripts().get_current_head() or 0)


def number_revision(
    migration: MigrationContext,
    revision: str | Iterable[str | None] | Iterable[str],
    made: list[MigrationScript],
) -> None:
    """Name a new revision by the next number, so that file names sort in the order in which they run."""
    made[0].rev_id = f"{newest() + 1:04}"


def migrate(connection: Connection) -> None:
    schema_upgrade.lock(connection)

    def create_first() -> None:
        first = scripts().get_revision(f"{schema_upgrade.FIRST:04}")
        with Operations.context(MigrationContext.configure(connection)):
            first.module.upgrade()

    found = schema_upgrade.prepare(connection, create_first)
    context.config.attributes["found"] = found
    if found > newest():
        # A newer release migrated this database: there is nothing that this release knows how to change.
        return
    schema_upgrade.limit_locks(connection)

    def run() -> None:
        context.configure(connection=connection, process_revision_directives=number_revision, **CONFIGURED)
        with context.begin_transaction():
            context.run_migrations()

    schema_upgrade.with_tries(connection, run)


async def migrate_online() -> None:
    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(migrate)
    finally:
        await engine.dispose()


def write_sql() -> None:
    """`alembic upgrade head --sql`, for operators whose database only an administrator may change."""
    context.configure(url="postgresql://", literal_binds=True, **CONFIGURED)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    write_sql()
else:
    asyncio.run(migrate_online())
