"""Databases for the commands of this package, which run outside pytest."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.commands.local_postgres import LocalPostgres, state_directory
from testkit import databases


@contextmanager
def server_at_hand() -> Iterator[tuple[str, Path | None]]:
    """The maintenance database of `TEST_DATABASE_URL`'s server, or of the tests' own and that one's log."""
    configured = os.environ.get("TEST_DATABASE_URL")
    if configured:
        yield configured, None
        return
    server = LocalPostgres(state_directory(databases.CHECKOUT) / "tests", fast=True)
    server.start()
    try:
        yield server.url("postgres"), server.data_dir / "server.log"
    finally:
        server.stop()


@contextmanager
def databases_at_hand() -> Iterator[Callable[[], str]]:
    """Makes fresh, migrated databases, dropped with the block."""
    made: list[str] = []
    with server_at_hand() as (url, _):

        def new() -> str:
            made.append(databases.clone(url, databases.ensure_template(url)))
            return made[-1]

        try:
            yield new
        finally:
            for database in made:
                databases.drop(url, database)
