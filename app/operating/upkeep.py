"""Periodic work of the worker.

It deletes expired rows and what is left of deleted endpoints, ends invitations whose term is over, clears ended
subscriptions, looks for lost events, and reconciles.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final

import structlog

from app.context import Context
from app.customers import emptied
from app.errors import BillingError
from app.events import endpoints
from app.events.store import feed
from app.mirror import recent_events
from app.mirror import reconcile as reconciling
from app.mirror.store import scans as scan_rows
from app.postgres import installation_counts, locks, retention
from app.postgres.database import Connection
from app.sharing import cleanup

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 60.0


async def keep_up(context: Context) -> None:
    """Do all periodic work until it is cancelled. Each part has its own pace, and a long one delays no other."""
    async with asyncio.TaskGroup() as repeated:
        for part, seconds in _PARTS:
            repeated.create_task(_repeat(context, part, seconds))


async def _repeat(context: Context, part: _Part, seconds: float) -> None:
    while True:
        pause = seconds if await _done(part(context)) else min(seconds, _LOOK_SECONDS)
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads load, guards nothing


async def one_round(context: Context) -> None:
    """Do each part of the periodic work once. A part that fails is logged, and the other parts are done."""
    for part, _ in _PARTS:
        await _done(part(context))


async def _done(part: Coroutine[Any, Any, object], **named: str) -> bool:
    """Run one part of the periodic work; log its error, with what it is named by, and return False if it fails."""
    try:
        await part
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # What was awaited was cancelled, and not this task. Without a word the part would never be done again.
        log.error("upkeep_failed", **named, error=type(error).__name__, exc_info=error)
    except BillingError as error:
        log.warning("upkeep_waits", **named, reason=error.code)
    except Exception as error:  # An error of one part must not stop the others, or the next round.
        log.error("upkeep_failed", **named, error=type(error).__name__, exc_info=error)
    else:
        return True
    return False


async def purge(context: Context) -> dict[str, int]:
    """Delete expired rows, merge counts of more than a day ago, and return the number of deleted rows by table.

    A table that fails is logged, and the others are purged. Nothing is done while another worker does it.
    """
    rules, deleted = context.rules, Counter[str]()

    async def purge_one(delete: Callable[[Connection], Awaitable[Mapping[str, int]]]) -> None:
        """Delete batch after batch, each in its own transaction, until one is not full."""
        goes_on = True
        while goes_on:
            async with context.database.transaction() as connection:
                batch = await delete(connection)
            deleted.update(batch)
            goes_on = max(batch.values(), default=0) >= retention.BATCH

    async def delete_events(connection: Connection) -> dict[str, int]:
        return {"events": await feed.purge(connection, days=rules.event_retention_days)}

    async def fold_counts() -> None:
        async with context.database.connection() as connection:
            await installation_counts.fold(connection)

    async with locks.exclusive(context.database, "upkeep") as ours:
        if not ours:
            return {}
        for table, statement in retention.statements(journal_days=rules.journal_retention_days).items():
            await _done(purge_one(partial(retention.delete, statement=statement)), table=table)
        await _done(purge_one(delete_events), table="events")
        await _done(fold_counts(), table="installation_counts")
    log.info("purged", **deleted)
    return dict(deleted)


async def reconcile_when_due(context: Context) -> bool:
    """Reconcile if a run is due, and return True if it was done here.

    An interrupted run is always due.
    """
    hours = context.rules.reconcile_interval
    if not hours:
        return False
    async with context.database.connection() as connection:
        if not await scan_rows.is_reconcile_due(connection, interval_hours=hours):
            return False
    try:
        result = await reconciling.reconcile(context, report=lambda _: None)
    except BillingError as error:
        if error.code == "already_running":
            return False
        raise
    log.info("reconciled", **reconciling.as_json(result))
    if result.reason is not None:
        log.error("reconcile_stopped", reason=result.reason)
    return True


_Part = Callable[[Context], Coroutine[Any, Any, object]]
_PARTS: Final[tuple[tuple[_Part, float], ...]] = (
    (purge, 600.0),
    (endpoints.forget_deleted, _LOOK_SECONDS),
    (cleanup.end_invitations, _LOOK_SECONDS),
    (cleanup.clear_all_ended, _LOOK_SECONDS),
    (emptied.delete_emptied, 10.0),
    (recent_events.look_when_due, _LOOK_SECONDS),
    (reconcile_when_due, _LOOK_SECONDS),
)
"""The parts of the periodic work, and about how many seconds after its end each of them is done again."""
