"""`python -m testkit.other_postgres BINARIES [pytest's options…]`: the tests on another release of PostgreSQL.

BINARIES is the directory of its programs, as /usr/lib/postgresql/15/bin. A server of that release is started for the
tests, with a data directory of its own, and stopped afterwards.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.commands.local_postgres import LocalPostgres, state_directory
from app.commands.postgres_programs import LocalPostgresError
from testkit.databases import CHECKOUT


def release_of(binaries: Path) -> str:
    """The major version. Raises LocalPostgresError where there is no server program."""
    try:
        told = subprocess.run(
            [binaries / "postgres", "--version"], capture_output=True, text=True, check=True
        ).stdout
    except OSError as error:
        raise LocalPostgresError(f"There is no PostgreSQL in {binaries}: {error.strerror}.") from error
    found = re.search(r"\d+", told)
    if found is None:
        raise LocalPostgresError(f"{binaries / 'postgres'} does not tell its version: {told}")
    return found[0]


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    binaries, options = Path(sys.argv[1]), sys.argv[2:]
    try:
        directory = state_directory(CHECKOUT) / f"tests-{release_of(binaries)}"
        server = LocalPostgres(directory, fast=True, binaries=binaries)
        server.start()
    except LocalPostgresError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        # Every process of the tests takes it from here.
        os.environ["TEST_DATABASE_URL"] = server.url("postgres")
        return int(pytest.main(options))
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
