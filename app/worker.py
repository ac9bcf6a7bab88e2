"""The worker: refresh objects, finish operations, make events, do periodic work.

It refreshes noted objects, finishes operations whose process died, and makes events of what has changed. Any number of
workers may run. An object or operation that one of them has leased is skipped by the others, and periodic work is done
by one of them at a time.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Coroutine
from typing import Any
from uuid import uuid4

import structlog

from app.context import Context
from app.customers import erasure, seat_moves
from app.errors import BillingError
from app.events import announcing
from app.events.delivering import Deliverer
from app.mirror import refreshing as sync
from app.mirror.first_fill import check_account
from app.mirror.store import refreshes
from app.operating import upkeep, workers_store
from app.operations import lease_store, recovery
from app.postgres.database import Connection

log = structlog.get_logger(__name__)

CONCURRENCY = 8
PER_TENANT = 3
"""Jobs of one kind that one tenant may have at the same time, fewer than a breaker's FAILURES."""
ACCEPTED_SECONDS = 20.0
"""Seconds for which jobs that have begun may run after the worker was stopped."""
_IDLE_SECONDS = 0.2
_AWAY_SECONDS = 1.0


async def work(context: Context, stop: asyncio.Event, deliverer: Deliverer | None = None) -> None:
    """Work until `stop` is set, then finish the jobs that have begun, for at most ACCEPTED_SECONDS.

    Except for events, nothing is done while Stripe or the database does not answer, or if the Stripe key is of another
    account.
    """
    log.info("worker_started")
    stopping = asyncio.create_task(stop.wait())
    jobs = _Jobs(context)
    # Events rest on the database only, so they go on while Stripe does not answer.
    events = [asyncio.create_task(announcing.keep_announcing(context, stop))]
    if deliverer is not None:
        events.append(asyncio.create_task(deliverer.keep_delivering(stop)))
    periodic: asyncio.Task[None] | None = None
    reports = _Reports(context)
    while not stop.is_set():
        try:
            await reports.report_when_due()
            if periodic is None or periodic.done():
                # Another account answers 404 for every object of this cache, so a refresh would mark it absent.
                await check_account(context)
                periodic = _begin_upkeep(context, periodic)
            await jobs.begin_what_is_due()
            pause = _IDLE_SECONDS
        except BillingError as error:
            log.warning("worker_waits", reason=error.code)
            pause = _AWAY_SECONDS
        except Exception as error:  # If the worker ended, operations of lost hosts would stay unfinished.
            log.error("worker_waits", error=type(error).__name__, exc_info=error)
            pause = _AWAY_SECONDS
        await jobs.wait(stopping, pause)
    if periodic is not None:
        # The next worker continues an unfinished reconcile from its stored cursor.
        periodic.cancel()
        await asyncio.gather(periodic, return_exceptions=True)
    await jobs.finish(ACCEPTED_SECONDS)
    await reports.end()
    await asyncio.gather(*events)
    log.info("worker_stopped")


def _begin_upkeep(context: Context, ended: asyncio.Task[None] | None) -> asyncio.Task[None]:
    """Start the periodic work, again if it has ended, which no error that it expects brings about."""
    if ended is not None:
        error = None if ended.cancelled() else ended.exception()
        log.error("upkeep_ended", error=type(error).__name__, exc_info=error)
    return asyncio.create_task(upkeep.keep_up(context))


class _Reports:
    """The reports of this worker, by which others see that it runs. They are made by the loop that does the work."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._id = uuid4()
        self._due_at = 0.0

    async def report_when_due(self) -> None:
        """Report every REPORT_SECONDS."""
        now = asyncio.get_running_loop().time()
        if now >= self._due_at:
            async with self._context.database.connection() as connection:
                await workers_store.report(connection, self._id, socket.gethostname())
            self._due_at = now + workers_store.REPORT_SECONDS

    async def end(self) -> None:
        """Report that the worker ends, if the database answers."""
        try:
            async with self._context.database.connection() as connection:
                await workers_store.forget(connection, self._id)
        except BillingError as error:
            log.warning("end_not_reported", reason=error.code)


class _Jobs:
    """The running jobs.

    There are up to CONCURRENCY refreshes and as many recoveries, so that a slow job delays no other. At most
    PER_TENANT of each are one tenant's, so that the backlog of one delays nobody else. Nothing is taken while the
    breaker of its kind of work is open. Two more jobs, of which neither waits for the other, move seats to logins whose
    addresses were verified, and erase customers that were deleted.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._refreshing = context.doing("refresh")
        self._refreshes: dict[asyncio.Task[Any], str] = {}
        self._recoveries: dict[asyncio.Task[Any], str] = {}
        self._moves: dict[asyncio.Task[Any], str] = {}
        self._erasures: dict[asyncio.Task[Any], str] = {}

    async def begin_what_is_due(self) -> None:
        """Lease due refreshes and orphaned operations, and start a job for each.

        It takes as many as there is room for.
        """
        breakers = self._context.breakers
        async with self._context.database.connection() as connection:
            if not breakers["background"].is_open:
                await self._begin_refreshes(connection)
            if not breakers["write"].is_open:
                await self._begin_recoveries(connection)
        if not self._moves:
            self._begin(self._moves, seat_moves.move_due(self._context, limit=CONCURRENCY))
        if not self._erasures:
            self._begin(self._erasures, erasure.erase_deleted(self._context))

    async def _begin_refreshes(self, connection: Connection) -> None:
        if free := CONCURRENCY - len(self._refreshes):
            for lease in await refreshes.due(
                connection,
                limit=free,
                lease_seconds=self._context.rules.operation_lease,
                per_tenant=PER_TENANT,
                busy=Counter(self._refreshes.values()),
            ):
                self._begin(self._refreshes, sync.refresh(self._refreshing, lease), lease.tenant)

    async def _begin_recoveries(self, connection: Connection) -> None:
        token = uuid4()
        if free := CONCURRENCY - len(self._recoveries):
            found = await lease_store.take_orphaned(
                connection,
                limit=free,
                lease_token=token,
                lease_seconds=self._context.rules.operation_lease,
                per_tenant=PER_TENANT,
                busy=Counter(self._recoveries.values()),
            )
            for operation_id, tenant in found.items():
                self._begin(self._recoveries, recovery.finish(self._context, operation_id, token), tenant)

    def _begin(
        self, running: dict[asyncio.Task[Any], str], job: Coroutine[Any, Any, Any], tenant: str = ""
    ) -> None:
        task = asyncio.create_task(_logged(job))
        running[task] = tenant
        task.add_done_callback(lambda ended: running.pop(ended, None))

    async def wait(self, stopping: asyncio.Task[Any], seconds: float) -> None:
        """Wait until there is room for another refresh or recovery, the worker is stopped, or `seconds` have passed."""
        await asyncio.wait(
            {stopping, *self._refreshes, *self._recoveries},
            timeout=seconds,
            return_when=asyncio.FIRST_COMPLETED,
        )

    async def finish(self, seconds: float) -> None:
        """Wait for all running jobs.

        Those that still run after `seconds` are cancelled: their leases run out, and another worker goes on with them.
        """
        if running := {*self._refreshes, *self._recoveries, *self._moves, *self._erasures}:
            _, late = await asyncio.wait(running, timeout=seconds)
            for job in late:
                job.cancel()
            await asyncio.gather(*late, return_exceptions=True)


async def _logged(job: Coroutine[Any, Any, Any]) -> None:
    try:
        await job
    except BillingError as error:
        log.warning("job_failed", reason=error.code)
    except Exception as error:  # An error about one object must not stop the work on others.
        log.error("job_failed", error=type(error).__name__, exc_info=error)
