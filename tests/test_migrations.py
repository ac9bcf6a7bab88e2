"""Migrations run up, down and up again, say what the tables say, and never wait long for a lock."""

from pathlib import Path

import asyncpg
import pytest

from tests.support.databases import CHECKOUT, alembic

VERSIONS = sorted((CHECKOUT / "migrations" / "versions").glob("*.py"))


async def tables_of(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("select tablename from pg_tables where schemaname = 'public'")
    finally:
        await connection.close()
    return {row["tablename"] for row in rows} - {"alembic_version"}


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


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.stem)
def test_every_migration_bounds_its_wait_for_locks(version: Path) -> None:
    text = version.read_text()
    assert text.count("op.execute(LOCK_TIMEOUT)") == 2, (
        "in upgrade and in downgrade, as script.py.mako has it"
    )
    assert "lock_timeout = " in text


async def test_upgrade_notes_objects_whose_new_columns_are_empty(empty_database_url: str) -> None:
    """M14, M25: what prices and discounts say since 0009 is read once for the rows of an older version."""
    alembic(empty_database_url, "upgrade", "0008")
    connection = await asyncpg.connect(empty_database_url)
    try:
        for price, active in (("price_old", True), ("price_archived", False)):
            await connection.execute(
                """insert into prices (id, created, product_id, active, currency, type, billing_scheme, marker,
                    serial, presence, final) values ($1, 1, 'prod_1', $2, 'usd', 'recurring', 'per_unit', 1, 1,
                    'present', false)""",
                price,
                active,
            )
        for name, discounts, final in (
            ("plain", "[]", False),
            ("reduced", '["di_1"]', False),
            ("ended", '["di_2"]', True),
        ):
            await connection.execute(
                """insert into subscriptions (id, created, customer_id, status, currency, items, cancel_at_period_end,
                    discounts, oddities, marker, serial, presence, final)
                values ($1, 1, 'cus_1', 'active', 'usd', '[]', false, $2, '{}', 1, 1, 'present', $3)""",
                f"sub_{name}",
                discounts,
                final,
            )
        alembic(empty_database_url, "upgrade", "0009")
        noted = await connection.fetch("select id, kind from refreshes where hints > 0 order by id")
    finally:
        await connection.close()
    assert [tuple(row) for row in noted] == [("price_old", "price"), ("sub_reduced", "subscription")]
