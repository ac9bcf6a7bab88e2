"""What every command of this package has in common: its parts, its progress and its last line."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import httpx

from app.commands.local_postgres import LocalPostgres, state_directory
from testkit import databases
from testkit.simulator import running_simulator

_STARTED = time.monotonic()


@contextmanager
def parts() -> Iterator[tuple[str, str]]:
    """The base URL of a stand-in and the URL of a fresh, migrated database; both end with the block."""
    server = LocalPostgres(state_directory(databases.CHECKOUT) / "tests", fast=True)
    server.start()
    try:
        maintenance = server.url("postgres")
        url = databases.clone(maintenance, databases.ensure_template(maintenance))
        try:
            with running_simulator() as stripe_base:
                yield stripe_base, url
        finally:
            databases.drop(maintenance, url)
    finally:
        server.stop()


def tell(text: str) -> None:
    sys.stderr.write(f"{time.monotonic() - _STARTED:6.1f} s  {text}\n")
    sys.stderr.flush()


def finish(report: Mapping[str, Any], misses: Sequence[str]) -> NoReturn:
    """Misses on standard error, the figures as the last line of standard output; exit code 1 on a miss."""
    for miss in misses[:40]:
        tell(miss)
    if len(misses) > 40:
        tell(f"and {len(misses) - 40} more")
    print(json.dumps({**report, "misses": len(misses)}))
    sys.exit(1 if misses else 0)


def code_of(answer: httpx.Response) -> str | None:
    """The problem's code, None for an answer that is none."""
    if not answer.headers.get("content-type", "").startswith("application/problem+json"):
        return None
    return str(answer.json()["code"])


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
