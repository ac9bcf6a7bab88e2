"""SQL statements of the workers' reports: which workers run, and when the last one reported."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from uuid import UUID, uuid4

from app.errors import BillingError
from app.postgres.database import Connection, Database

REPORT_SECONDS = 5.0
LOST_SECONDS = 30.0
"""Seconds without a report after which a worker counts as lost."""
TRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Workers:
    """The workers of the installation.

    `number` of them reported within LOST_SECONDS. `last`: seconds since the newest report, None if none ever reported.
    """

    number: int
    last: float | None


async def report(connection: Connection, worker_id: UUID, host: str) -> None:
    """Record that the worker runs."""
    await connection.execute(
        """insert into workers (id, host) values ($1, $2)
        on conflict (id) do update set reported_at = clock_timestamp()""",
        worker_id,
        host,
    )


async def can_report(database: Database) -> bool:
    """Return True if a worker could report. The report is tried and rolled back, for at most TRY_SECONDS."""
    try:
        async with asyncio.timeout(TRY_SECONDS), database.transaction() as connection:
            await report(connection, uuid4(), "")
            raise _RolledBack
    except _RolledBack:
        return True
    except (BillingError, TimeoutError):
        return False


class _RolledBack(Exception):
    """Ends a transaction without its change."""


async def forget(connection: Connection, worker_id: UUID) -> None:
    """Remove a worker that ends as it should. `last` of the others stays."""
    await connection.execute("delete from workers where id = $1", worker_id)


async def workers(connection: Connection, *, host: str | None = None) -> Workers:
    """Return the state of all workers, or of those of one host."""
    row = await connection.fetchrow(
        """select count(*) filter (where reported_at > clock_timestamp() - make_interval(secs => $1)) as number,
            extract(epoch from clock_timestamp() - max(reported_at))::float as last
        from workers where $2::text is null or host = $2""",
        LOST_SECONDS,
        host,
    )
    return Workers(row["number"], row["last"]) if row is not None else Workers(0, None)
