"""Migrations run up, down and up again, say what the tables say, and never wait long for a lock."""

import asyncio
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.postgres import schema_upgrade
from app.postgres.schema import HEAD
from app.postgres.sql_files import FOLDER, read_statements
from app.postgres.tables import metadata
from testkit.database_proxy import proxied
from testkit.databases import CHECKOUT, alembic
from testkit.ports import free_port
from testkit.processes import running
from testkit.service import api_process, inherited, service_environment, worker_process
from testkit.simulator import Simulator

VERSIONS = sorted((CHECKOUT / "migrations" / "versions").glob("*.py"))
BOOKKEEPING = {"alembic_version", "schema_floor"}
NEXT, SECOND_NEXT = (f"{int(HEAD) + number:04}" for number in (1, 2))

VERSION = """
from alembic import op
from app.postgres import schema_upgrade
from app.postgres.schema import HEAD
revision = "{number}"
down_revision = "{after}"
concurrent = {concurrent}
def upgrade():
    {upgrade}
def downgrade():
    pass
"""


async def run(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def value_of(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        found: object = await connection.fetchval(query)
    finally:
        await connection.close()
    return found


async def version_of(url: str) -> object:
    return await value_of(url, "select version_num from alembic_version")


async def tables_of(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("select tablename from pg_tables where schemaname = 'public'")
    finally:
        await connection.close()
    return {row["tablename"] for row in rows} - {"alembic_version"}


def coseat(url: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=CHECKOUT,
        env={**inherited(), "DATABASE_URL": url, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def later_versions(tmp_path: Path) -> Path:
    """An `alembic.ini` of a later release: a copy of the migrations, to which `add_version` adds."""
    shutil.copytree(CHECKOUT / "migrations", tmp_path / "migrations")
    configured = (CHECKOUT / "alembic.ini").read_text()
    ini = tmp_path / "alembic.ini"
    ini.write_text(configured.replace("prepend_sys_path = %(here)s", f"prepend_sys_path = {CHECKOUT}"))
    return ini


def add_version(ini: Path, number: str, upgrade: str, *, concurrent: bool = False) -> None:
    source = VERSION.format(
        number=number, after=f"{int(number) - 1:04}", upgrade=upgrade, concurrent=concurrent
    )
    (ini.parent / "migrations" / "versions" / f"{number}_later.py").write_text(source)


@pytest.fixture
async def before_the_squash(empty_database_url: str) -> str:
    """A database with the schema of 0010, and without the bookkeeping that came with it."""
    alembic(empty_database_url, "upgrade", "0010")
    await run(
        empty_database_url, "drop table schema_floor", "update alembic_version set version_num = '0009'"
    )
    return empty_database_url


async def test_up_down_and_up_again(empty_database_url: str) -> None:
    alembic(empty_database_url, "upgrade", "head")
    there = await tables_of(empty_database_url)
    assert there
    alembic(empty_database_url, "downgrade", "base")
    assert await tables_of(empty_database_url) == set()
    alembic(empty_database_url, "upgrade", "head")
    assert await tables_of(empty_database_url) == there


async def test_a_url_with_what_only_the_driver_knows(empty_database_url: str) -> None:
    joint = "&" if "?" in empty_database_url else "?"
    alembic(f"{empty_database_url}{joint}sslmode=disable", "upgrade", "head")
    assert await tables_of(empty_database_url)


def test_the_tables_are_what_the_migrations_make(database_url: str) -> None:
    assert "No new upgrade operations detected" in alembic(database_url, "check")


def test_statements_can_be_written_out_when_no_database_is_asked(empty_database_url: str) -> None:
    """An administrator may run what `alembic upgrade head --sql` prints."""
    written = alembic(empty_database_url, "upgrade", "head", "--sql")
    assert "create or replace function record_subscription_change()" in written
    assert "INSERT INTO alembic_version (version_num) VALUES ('0010')" in written


def is_concurrent(version: Path) -> bool:
    return re.search(r"^concurrent = True$", version.read_text(), re.MULTILINE) is not None


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.stem)
def test_every_migration_bounds_its_wait_for_locks(version: Path) -> None:
    text = version.read_text()
    if is_concurrent(version):
        return
    assert text.count("op.execute(LOCK_TIMEOUT)") == 2, (
        "in upgrade and in downgrade, as script.py.mako has it"
    )
    # 0010 creates every table, so nothing waits behind it.
    assert "lock_timeout = '1s'" in text or version.name.startswith("0010_")


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.stem)
def test_only_concurrent_migrations_leave_their_transaction(version: Path) -> None:
    """A version marked `concurrent` is one statement outside a transaction; any other is one transaction."""
    text = version.read_text()
    upgrade = text[text.index("def upgrade()") : text.index("def downgrade()")]
    assert ("autocommit_block" in text or "_concurrently(" in text) == is_concurrent(version)
    if is_concurrent(version):
        assert upgrade.count("_concurrently(") == 1 and "op.execute(" not in upgrade


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.stem)
def test_ids_are_four_digits_that_only_rise(version: Path) -> None:
    number, after = (
        re.search(rf'^{name} = (?:"(\d{{4}})"|None)$', version.read_text(), re.MULTILINE)
        for name in ("revision", "down_revision")
    )
    assert number is not None and after is not None and version.name.startswith(f"{number[1]}_")
    assert int(after[1] or 0) < int(number[1])


def test_every_sql_file_can_be_run_again() -> None:
    """A function that changes is loaded again by a later migration, so each statement replaces what is there."""
    files = sorted(FOLDER.glob("*.sql"))
    assert files
    for path in files:
        for statement in read_statements(path.stem):
            begun = re.sub(r"(?m)^--.*\n", "", statement).lstrip()
            assert begun.startswith(("create or replace ", "create table if not exists ", "insert into ")), (
                begun
            )


async def test_migrate_changes_nothing_when_the_schema_is_there(empty_database_url: str) -> None:
    first, second = (coseat(empty_database_url, "migrate") for _ in range(2))
    assert (first.returncode, first.stdout) == (0, f"The schema is at {HEAD}.\n"), first.stderr
    assert (second.returncode, second.stdout) == (0, f"The schema is at {HEAD}.\n"), second.stderr
    assert await value_of(empty_database_url, "select number from schema_floor") == 10


@pytest.mark.parametrize("number", ["0008", "0009"])
async def test_database_is_stamped_when_its_schema_equals_the_squashed_one(
    before_the_squash: str, number: str
) -> None:
    await run(
        before_the_squash,
        f"update alembic_version set version_num = '{number}'",
        "insert into purchase_grants (subscription_id, payer_id, owner_id) values ('sub_1', 'cus_1', 'cus_2')",
        # The order of columns is no part of a schema: those that were added later stand last.
        "alter table purchase_grants rename payer_id to payer",
        "alter table purchase_grants add payer_id text",
        "update purchase_grants set payer_id = payer",
        "alter table purchase_grants alter payer_id set not null",
        "alter table purchase_grants drop payer",
    )
    migrated = coseat(before_the_squash, "migrate", "--json")
    assert (migrated.returncode, migrated.stdout) == (
        0,
        f'{{"revision": "{HEAD}"}}\n',
    ), migrated.stderr
    assert await version_of(before_the_squash) == HEAD
    assert await value_of(before_the_squash, "select number from schema_floor") == 10
    assert await value_of(before_the_squash, "select payer_id from purchase_grants") == "cus_1"
    assert "No new upgrade operations detected" in alembic(before_the_squash, "check")


DIFFERENCES = (
    ("alter table prices drop sellable", "column prices.sellable"),
    ("alter table prices add tier integer", "column prices.tier"),
    ("alter table prices alter unit_amount type numeric", "column prices.unit_amount"),
    ("alter table prices alter nickname set not null", "column prices.nickname"),
    ("alter table operations alter created_at set default now()", "column operations.created_at"),
    ("alter table list_scans alter id drop identity", "column list_scans.id"),
    (
        "alter table reservations drop constraint uq_reservations_operation_id_position",
        "constraint reservations.uq_reservations_operation_id_position",
    ),
    ("alter table quotes add constraint c check (tax >= 0)", "constraint quotes.c"),
    ("drop index ix_refreshes_due", "index ix_refreshes_due"),
    ("create index ix_more on quotes (principal)", "index ix_more"),
    ("alter table customers set (fillfactor = 70)", "table customers"),
    ("alter table rate_grants set logged", "table rate_grants"),
    ("create table surplus (id text)", "column surplus.id"),
    (
        "drop trigger record_subscription_update on subscriptions",
        "trigger subscriptions.record_subscription_update",
    ),
    (
        "alter table subscriptions disable trigger record_subscription_update",
        "trigger subscriptions.record_subscription_update",
    ),
    (
        "create or replace function record_subscription_change() returns trigger language plpgsql as 'begin end'",
        "function record_subscription_change()",
    ),
    ("create function more() returns int language sql as 'select 1'", "function more()"),
    ("create type more as enum ('one')", "type more"),
    ("create view more as select id from prices", "table more"),
)


COMPARED_WITH_THE_TABLES = ("column ", "constraint ", "index ", "sequence ", "type ")


async def in_one_transaction(url: str, work: Callable[[Connection], None]) -> None:
    async def connect() -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(url)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(work)
    await engine.dispose()


async def test_the_tables_module_describes_every_constraint_and_type(database_url: str) -> None:
    """`alembic check` compares neither checks nor enum types."""

    def compare(connection: Connection) -> None:
        migrated = schema_upgrade.describe(connection)
        connection.exec_driver_sql("create schema described")
        connection.exec_driver_sql("set local search_path to described")
        metadata.create_all(connection)
        described = schema_upgrade.describe(connection)
        differing = changed(migrated, described)
        assert not {name for name in differing if name.startswith(COMPARED_WITH_THE_TABLES)}

    await in_one_transaction(database_url, compare)


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


async def test_description_differs_when_an_object_does(database_url: str) -> None:
    def compare(connection: Connection) -> None:
        before = schema_upgrade.describe(connection)
        for statement, named in DIFFERENCES:
            savepoint = connection.begin_nested()
            connection.exec_driver_sql(statement)
            assert named in changed(before, schema_upgrade.describe(connection)), statement
            savepoint.rollback()
        # An extension brings objects of its own: they are no part of the schema.
        connection.exec_driver_sql("create function more() returns int language sql as 'select 1'")
        connection.exec_driver_sql("alter extension plpgsql add function more()")
        assert schema_upgrade.describe(connection) == before

    await in_one_transaction(database_url, compare)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        (
            "alter table prices drop sellable",
            "at schema 0009 and differs from 0010 in column prices.sellable",
        ),
        ("update alembic_version set version_num = '0007'", "at schema 0007"),
        ("delete from alembic_version", "without a schema number"),
    ],
    ids=["column", "number", "no-number"],
)
async def test_database_is_refused_when_its_schema_differs(
    before_the_squash: str, statement: str, named: str
) -> None:
    await run(before_the_squash, statement)
    number, tables = await version_of(before_the_squash), await tables_of(before_the_squash)
    migrated = coseat(before_the_squash, "migrate")
    assert migrated.returncode == 1
    assert named in migrated.stderr and "`coseat dev --reset`" in migrated.stderr
    assert migrated.stderr.count("\n") == 1, "a sentence, not a traceback"
    assert (await version_of(before_the_squash), await tables_of(before_the_squash)) == (number, tables)


async def test_migrate_changes_nothing_when_the_schema_is_newer(database_url: str) -> None:
    await run(
        database_url,
        "alter table prices add tier integer",
        "update alembic_version set version_num = '0110'",
        "update schema_floor set number = 105",
    )
    migrated = coseat(database_url, "migrate")
    assert migrated.returncode == 0, migrated.stderr
    assert migrated.stdout == "The schema is at 0110, newer than this release. Nothing was changed.\n"
    assert coseat(database_url, "migrate", "--json").stdout == '{"revision": "0110"}\n'
    assert await version_of(database_url) == "0110"


@pytest.fixture
def environment(stripe_account: Simulator, database_url: str) -> dict[str, str]:
    return service_environment(
        database_url=database_url, stripe_base=stripe_account.base_url, stripe_key=stripe_account.api_key
    )


@pytest.mark.parametrize("process", ["serve", "worker"])
@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("drop table alembic_version", "The database has no schema yet. Run `coseat migrate`"),
        (
            "update alembic_version set version_num = '0009'",
            f"The database is at schema 0009 and this release needs {HEAD}. Run `coseat migrate`",
        ),
        (
            f"update alembic_version set version_num = '0110'; update schema_floor set number = {int(NEXT)}",
            f"The database is at schema 0110, which only releases from schema {NEXT} on can use",
        ),
    ],
    ids=["none", "older", "floor"],
)
async def test_process_refuses_to_start_when_the_schema_does_not_fit(
    environment: dict[str, str], process: str, statement: str, said: str
) -> None:
    await run(environment["DATABASE_URL"], statement)
    url = environment.pop("DATABASE_URL")
    ended = coseat(url, process, **environment, PORT=str(free_port()))
    assert ended.returncode == 1
    assert ended.stderr.startswith(said) and ended.stderr.count("\n") == 1, ended.stderr


async def test_processes_start_when_the_schema_is_newer_and_the_floor_is_not(
    environment: dict[str, str],
) -> None:
    await run(
        environment["DATABASE_URL"],
        "update alembic_version set version_num = '0110'",
        "alter table prices add tier integer",
    )
    talking = {**environment, "LOG_LEVEL": "info"}
    with api_process(environment) as (base_url, api), worker_process(talking) as worker:
        api.wait_for_answer(f"{base_url}/readyz")
        worker.wait_for_line("worker_started")


async def test_versions_before_a_failed_one_stay_when_it_fails(
    empty_database_url: str, later_versions: Path
) -> None:
    """One transaction a version: the next try goes on from the last version that was finished."""
    add_version(later_versions, NEXT, "op.execute('create table one (id int)')")
    add_version(
        later_versions, SECOND_NEXT, "op.execute('create table two (id int)'); op.execute('select 1 / 0')"
    )
    with pytest.raises(AssertionError, match="division by zero"):
        alembic(empty_database_url, "-c", str(later_versions), "upgrade", "head")
    assert await version_of(empty_database_url) == NEXT
    tables = await tables_of(empty_database_url)
    assert "one" in tables and "two" not in tables


async def test_concurrent_version_is_repeated_when_it_was_interrupted(
    database_url: str, later_versions: Path
) -> None:
    """A try that ended in the middle leaves an invalid index, which PostgreSQL maintains and never uses."""
    upgrade = "schema_upgrade.create_index_concurrently('ix_quotes_principal', 'on quotes (principal)')"
    add_version(later_versions, NEXT, upgrade, concurrent=True)
    await run(
        database_url,
        "create index ix_quotes_principal on quotes (principal)",
        "update pg_index set indisvalid = false where indexrelid = 'ix_quotes_principal'::regclass",
    )
    alembic(database_url, "-c", str(later_versions), "upgrade", "head")
    assert await version_of(database_url) == NEXT
    valid = "select indisvalid from pg_index where indexrelid = 'ix_quotes_principal'::regclass"
    assert await value_of(database_url, valid)
    await run(database_url, f"update alembic_version set version_num = '{HEAD}'")
    index = "select 'ix_quotes_principal'::regclass::oid"
    before = await value_of(database_url, index)
    alembic(database_url, "-c", str(later_versions), "upgrade", "head")
    assert await value_of(database_url, index) == before, "a valid index is kept"


async def test_two_migrations_take_turns_when_one_creates_an_index_concurrently(
    empty_database_url: str, later_versions: Path
) -> None:
    """The process that waits must hold no snapshot, or the index would wait for it and it for the index."""
    upgrade = "schema_upgrade.create_index_concurrently('ix_quotes_principal', 'on quotes (principal)')"
    add_version(later_versions, NEXT, upgrade, concurrent=True)
    command = ("-c", str(later_versions), "upgrade", "head")
    await asyncio.gather(*(asyncio.to_thread(alembic, empty_database_url, *command) for _ in range(2)))
    assert await version_of(empty_database_url) == NEXT


async def test_migrate_says_what_it_waits_for_when_another_one_has_the_lock(database_url: str) -> None:
    """It waited without a word and without end."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("select pg_advisory_lock($1)", schema_upgrade.MIGRATION_LOCK)
    environment = {**inherited(), "DATABASE_URL": database_url}
    command = [sys.executable, "-m", "app", "migrate"]
    try:
        with running("migrate", command, environment) as process:
            found = process.wait_for_line(r".*migration_lock_held.*")
            assert str(connection.get_server_pid()) in found[0]
            process.wait_for_line(r'"waited":[3-9].*migration_lock_held')
            await connection.close()
            process.wait_for_line(f"The schema is at {HEAD}.")
    finally:
        await connection.close()


async def test_floor_rises_and_never_falls(database_url: str, later_versions: Path) -> None:
    add_version(later_versions, NEXT, f"schema_upgrade.raise_floor('{NEXT}')")
    add_version(later_versions, SECOND_NEXT, "schema_upgrade.raise_floor('0010')")
    alembic(database_url, "-c", str(later_versions), "upgrade", "head")
    assert await value_of(database_url, "select number from schema_floor") == int(NEXT)


async def test_migrate_asks_for_a_direct_connection_when_a_pooler_answers(empty_database_url: str) -> None:
    """A pooler may change the session between two transactions, and the lock of migrations is the session's."""
    async with proxied(empty_database_url, as_pooler=True) as proxy:
        migrated = await asyncio.to_thread(coseat, proxy.url, "migrate")
    assert migrated.returncode == 1 and "needs a direct connection" in migrated.stderr, migrated.stderr
    assert await tables_of(empty_database_url) == set()
