"""Runs migrations against `DATABASE_URL`, or against `sqlalchemy.url` where a caller has set it."""

import asyncio
from collections.abc import Iterable
from logging.config import fileConfig

import asyncpg
from alembic import context
from alembic.operations import MigrationScript
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.cache.tables import metadata
from app.settings import load_settings

# Any number that nothing else in the database locks; two deployments that start together migrate in turn.
MIGRATION_LOCK = 7_203_911_640

if context.config.config_file_name is not None and not context.config.attributes.get("keep_logging"):
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)


async def connect() -> "asyncpg.Connection[asyncpg.Record]":
    """The driver reads the URL itself, as in the service: SQLAlchemy does not know `sslmode` and its kin."""
    given = context.config.get_main_option("sqlalchemy.url") or load_settings(process="migrate").dsn
    return await asyncpg.connect(given.replace("postgresql+asyncpg://", "postgresql://", 1))


def number_revision(
    migration: MigrationContext,
    revision: str | Iterable[str | None] | Iterable[str],
    scripts: list[MigrationScript],
) -> None:
    """Name a new revision by the next number, so that file names sort in the order in which they run."""
    head = ScriptDirectory.from_config(context.config).get_current_head()
    scripts[0].rev_id = f"{int(head or 0) + 1:04}"


def migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_server_default=True,
        process_revision_directives=number_revision,
    )
    with context.begin_transaction():
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        context.run_migrations()


async def migrate_online() -> None:
    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


def write_sql() -> None:
    """`alembic upgrade head --sql`, for operators whose database only an administrator may change."""
    context.configure(url="postgresql://", target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    write_sql()
else:
    asyncio.run(migrate_online())
