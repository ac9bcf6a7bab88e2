"""Count things for the whole installation: each process adds to rows that every API process shows.

A worker has no port, so its counts would be shown nowhere, and a counter of one process begins at 0 with each restart.
A process collects what it counts and adds it every FLUSH_SECONDS, so a flood costs one statement in that time. If the
process is killed, at most that much is lost.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from app.errors import BillingError
from app.postgres.database import Connection, Database

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 5.0
# What was counted is kept in spans of five minutes for a day. The row of the epoch has everything before.
_ADD = """
    insert into installation_counts (name, label, since, number)
    select name, label, date_bin('5 minutes', clock_timestamp(), 'epoch'), number
    from unnest($1::text[], $2::text[], $3::bigint[]) as counted (name, label, number)
    order by name, label
    on conflict (name, label, since) do update set number = installation_counts.number + excluded.number"""
_FOLD = """
    with old as (
        delete from installation_counts
        where since < clock_timestamp() - interval '1 day' and since > 'epoch' returning name, label, number)
    insert into installation_counts (name, label, since, number)
    select name, label, 'epoch', sum(number) from old group by name, label
    on conflict (name, label, since) do update set number = installation_counts.number + excluded.number"""


class InstallationCounts:
    """The counts of this process that are not in the database yet."""

    def __init__(self) -> None:
        self._pending: Counter[tuple[str, str]] = Counter()

    @property
    def pending(self) -> dict[tuple[str, str], int]:
        """Return what is not in the database yet, by name and label."""
        return dict(self._pending)

    def add(self, name: str, label: str) -> None:
        """Count one more. `label` is one of few texts, and never that of a caller."""
        self._pending[name, label] += 1

    async def flush(self, database: Database) -> None:
        """Add the pending counts to the database.

        Raises:
            ServiceUnavailable: the database does not answer. The counts stay pending.
        """
        if not self._pending:
            return
        taken, self._pending = self._pending, Counter()
        try:
            async with database.connection() as connection:
                await connection.execute(
                    _ADD, [name for name, _ in taken], [label for _, label in taken], list(taken.values())
                )
        except BaseException:
            self._pending.update(taken)
            raise

    @asynccontextmanager
    async def flushing(self, database: Database) -> AsyncIterator[None]:
        """Flush every FLUSH_SECONDS, and at the end of the block."""
        task = asyncio.create_task(self._keep_flushing(database))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._flush_if_possible(database)

    async def _keep_flushing(self, database: Database) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self._flush_if_possible(database)

    async def _flush_if_possible(self, database: Database) -> None:
        try:
            await self.flush(database)
        except BillingError as error:
            log.info("counts_wait", reason=error.code)


async def totals(connection: Connection) -> dict[str, dict[str, int]]:
    """Return what was ever counted, by name and label."""
    rows = await connection.fetch(
        "select name, label, sum(number)::bigint as number from installation_counts group by name, label"
    )
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        found.setdefault(row["name"], {})[row["label"]] = row["number"]
    return found


async def within_an_hour(connection: Connection, name: str) -> dict[str, int]:
    """Return what was counted in the last hour (and up to 5 minutes before), by label."""
    rows = await connection.fetch(
        """select label, sum(number)::bigint as number from installation_counts
        where name = $1 and since > clock_timestamp() - interval '65 minutes' group by label order by label""",
        name,
    )
    return {row["label"]: row["number"] for row in rows}


async def fold(connection: Connection) -> None:
    """Merge what was counted more than a day ago into one row a label, so that totals stay and rows stay few."""
    await connection.execute(_FOLD)
