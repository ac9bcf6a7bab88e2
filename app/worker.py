"""The worker: drains the refresh table and finishes operations whose runner is gone. Start as many as you like."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import structlog

from app.cache import operations as operation_rows
from app.cache import refreshes
from app.errors import BillingError
from app.services import operations, recovery, sync
from app.services.context import Context

log = structlog.get_logger(__name__)

CONCURRENCY = 8
_IDLE_SECONDS = 0.2
_AWAY_SECONDS = 1.0


async def work(context: Context, stop: asyncio.Event) -> None:
    """Runs until `stop` is set, then finishes what it has begun."""
    log.info("worker_started")
    while not stop.is_set():
        try:
            busy = await _round(context)
        except BillingError as error:
            log.warning("worker_waits", reason=error.code)
            await _pause(stop, _AWAY_SECONDS)
            continue
        if not busy:
            await _pause(stop, _IDLE_SECONDS)
    log.info("worker_stopped")


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


async def _round(context: Context) -> bool:
    """One look at both queues; False when there was nothing to do."""
    token = uuid4()
    async with context.database.connection() as connection:
        leases = await refreshes.due(connection, limit=CONCURRENCY, lease_seconds=sync.LEASE_SECONDS)
        orphans = await operation_rows.take_orphaned(
            connection, limit=CONCURRENCY, lease_token=token, lease_seconds=operations.LEASE_SECONDS
        )
    jobs = [sync.refresh(context, lease) for lease in leases]
    jobs += [recovery.finish(context, operation_id, token) for operation_id in orphans]
    for result in await asyncio.gather(*jobs, return_exceptions=True):
        if isinstance(result, BillingError):
            log.warning("job_failed", reason=result.code)
        elif isinstance(result, Exception):
            log.error("job_failed", error=type(result).__name__, exc_info=result)
        elif isinstance(result, BaseException):
            raise result
    return bool(jobs)
