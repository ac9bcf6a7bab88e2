"""Fetching objects again, and landing our own writes: always under the object's lease, never inside a transaction.

The rule itself (marker, margin, serial, facts that stay) is in `app.mirror.store.rows`; this is its order of steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager

import structlog

from app.context import Context
from app.domain.snapshots import Snapshot
from app.errors import BillingError, ServiceUnavailable
from app.mirror.store import refreshes
from app.mirror.store import rows as mirror
from app.mirror.store.refreshes import Lease
from app.postgres.database import Connection, StatementRefused
from app.postgres.leases import kept
from app.stripe.gateway import Fetched
from app.stripe.parsing import MalformedObject
from app.stripe.rate_budget import BudgetSpent

log = structlog.get_logger(__name__)

FRESH_SECONDS = 10
_LEASE_WAIT_SECONDS = 12.0
_FRESH = "fresh"
_LANDING_TRIES = 6

Call = Callable[[], Awaitable[Fetched]]
Settle = Callable[[Connection, Snapshot | None], Awaitable[None]]


class Reading:
    """What a call has read of its object before it wrote: that lands, whatever becomes of the write.

    `serial`: the row's before that, so that it never takes the place of anything that landed since.
    """

    def __init__(self, context: Context, lease: Lease) -> None:
        self._context = context
        self._lease = lease
        self.serial = 0
        self.found: Fetched | None = None

    async def read(self) -> Fetched:
        self.found = await self._context.stripe.fetch(self._lease.kind, self._lease.id)
        return self.found


async def take_lease(context: Context, kind: str, object_id: str) -> Lease:
    """Wait for a refresh or another write of the same object. Raises ServiceUnavailable if that does not end.

    The lease is as long as `OPERATION_LEASE` and is renewed while it is worked under, see `app.postgres.leases`.
    """

    async def attempt() -> Lease | None:
        return await _try_lease(context, kind, object_id)

    lease = await context.lease_queues.ask(object_id, attempt, seconds=_LEASE_WAIT_SECONDS)
    if lease is None:
        raise _busy()
    return lease


async def _try_lease(context: Context, kind: str, object_id: str) -> Lease | None:
    async with context.database.connection() as connection:
        return await refreshes.take(connection, kind, object_id, lease_seconds=context.rules.operation_lease)


def _busy() -> ServiceUnavailable:
    return ServiceUnavailable("Another change of the same object is still running.", retry_after=2)


async def land(
    context: Context,
    lease: Lease,
    call: Call | Fetched,
    settle: Settle | None = None,
    reading: Reading | None = None,
) -> Snapshot | None:
    """Calls Stripe, applies the answer, and settles in the same transaction; releases the lease whatever happens.

    Where the row changed while the call ran (a webhook was faster), the object is fetched and applied anew: the
    answer that settles is always one that the row then shows. Returns None where Stripe has no such object.
    A `Fetched` in place of a call is an answer from before the lease, as of a create whose id nobody knew: it
    stands only where no news of the object has come since.
    """
    try:
        async with _held(context, lease):
            landed = await _land(context, lease, call, settle, reading)
    except BaseException:
        await asyncio.shield(_let_go(context, lease, reading))
        raise
    context.lease_queues.released(lease.id)
    return landed


def _held(context: Context, lease: Lease) -> AbstractAsyncContextManager[None]:
    seconds = context.rules.operation_lease

    async def renew(connection: Connection) -> None:
        await refreshes.renew(connection, lease, lease_seconds=seconds)

    return kept(context.database, seconds, renew)


async def _land(
    context: Context, lease: Lease, call: Call | Fetched, settle: Settle | None, reading: Reading | None
) -> Snapshot | None:
    for _ in range(_LANDING_TRIES):
        async with context.database.connection() as connection:
            serial = await mirror.serial_of(connection, lease.kind, lease.id)
        if reading is not None and reading.found is None:
            reading.serial = serial
        if isinstance(call, Fetched):
            fetched = call if serial == 0 and lease.hints == 0 else None
        else:
            fetched = await call()
        if fetched is None or fetched.stale or not _is_dated(fetched):
            fetched = await context.stripe.fetch(lease.kind, lease.id)
        async with context.database.transaction() as connection:
            applied = await _apply(connection, lease, fetched, serial)
            await _check_lease(connection, lease)
            if applied:
                if settle is not None:
                    await settle(connection, fetched.snapshot)
                await refreshes.landed(connection, lease)
                return fetched.snapshot
        call = _fetch_again(context, lease)
    raise ServiceUnavailable("The object changes faster than it can be read.", retry_after=2)


def _fetch_again(context: Context, lease: Lease) -> Call:
    async def fetch() -> Fetched:
        return await context.stripe.fetch(lease.kind, lease.id)

    return fetch


def _is_dated(fetched: Fetched) -> bool:
    """Without a date the marker could not rise, and older events would pass for newer ones."""
    return fetched.snapshot is None or fetched.at > 0


class _Overtaken(ServiceUnavailable):
    """The lease ran out and somebody else has taken it."""


async def _check_lease(connection: Connection, lease: Lease) -> None:
    """After the row was written, never before: a webhook's statement locks the row first and its refresh second."""
    if not await refreshes.still_held(connection, lease):
        raise _Overtaken("The object's lease ran out while Stripe was asked.", retry_after=2)


async def _apply(connection: Connection, lease: Lease, fetched: Fetched, serial: int) -> bool:
    if fetched.snapshot is None:
        return await mirror.mark_absent(connection, lease.kind, lease.id, serial=serial, marker=fetched.at)
    return await mirror.apply_fetched(connection, fetched.snapshot, serial=serial, marker=fetched.at)


async def _let_go(context: Context, lease: Lease, reading: Reading | None) -> None:
    """The write may have taken effect: its object is wanted again, and the worker will see what became of it."""
    found = None if reading is None else reading.found
    if reading is not None and found is not None and not found.stale and _is_dated(found):
        try:
            async with context.database.transaction() as connection:
                await _apply(connection, lease, found, reading.serial)
                await _check_lease(connection, lease)
        except (BillingError, StatementRefused) as error:
            log.warning("reading_not_landed", object_id=lease.id, error=type(error).__name__)
    try:
        async with context.database.connection() as connection:
            await refreshes.run_again(connection, lease)
    except BillingError as error:
        log.warning("lease_not_released", object_id=lease.id, reason=error.code)
    context.lease_queues.released(lease.id)


async def release(context: Context, lease: Lease) -> None:
    """Give up a lease under which nothing was read or written."""
    async with context.database.connection() as connection:
        await refreshes.release(connection, lease)
    context.lease_queues.released(lease.id)


async def read_through(context: Context, kind: str, object_id: str) -> Snapshot | None:
    """The object as Stripe has it now, landed in the cache."""
    lease = await take_lease(context, kind, object_id)
    return await land(context, lease, _fetch_again(context, lease))


async def read_news(context: Context, objects: Mapping[str, str | None]) -> None:
    """Reads those objects (an id by its kind) of which an event has told more than their rows show."""
    async with context.database.connection() as connection:
        wanted = await refreshes.wanted(connection, [one for one in objects.values() if one is not None])
    for kind, object_id in objects.items():
        if object_id not in wanted:
            continue
        lease = await take_lease(context, kind, object_id)
        if lease.hints:
            await land(context, lease, _fetch_again(context, lease))
        else:
            # Somebody else has read it while this waited for the lease.
            await release(context, lease)


async def freshen(context: Context, kind: str, object_id: str) -> None:
    """Ask Stripe now, but for one object at most once in FRESH_SECONDS for all callers, unless there is news of it."""
    if not await _is_stale(context, kind, object_id):
        return

    async def attempt() -> Lease | str | None:
        # Many callers may wait for the same lease: the first of them reads the object for all.
        if not await _is_stale(context, kind, object_id):
            return _FRESH
        return await _try_lease(context, kind, object_id)

    found: Lease | str | None = await context.lease_queues.ask(
        object_id, attempt, seconds=_LEASE_WAIT_SECONDS
    )
    if found is None:
        raise _busy()
    if not isinstance(found, Lease):
        return
    if await _is_stale(context, kind, object_id):
        await land(context, found, _fetch_again(context, found))
    else:
        await release(context, found)


async def _is_stale(context: Context, kind: str, object_id: str) -> bool:
    async with context.database.connection() as connection:
        old = await mirror.is_older_than(connection, kind, object_id, seconds=FRESH_SECONDS)
        return old or bool(await refreshes.wanted(connection, [object_id]))


async def refresh(context: Context, lease: Lease) -> bool:
    """One leased refresh: applied (then True), done again, or put off with the reason."""
    try:
        return await _refresh(context, lease)
    finally:
        context.lease_queues.released(lease.id)


async def _refresh(context: Context, lease: Lease) -> bool:
    try:
        async with context.database.connection() as connection:
            serial = await mirror.serial_of(connection, lease.kind, lease.id)
        async with _held(context, lease):
            fetched = await context.stripe.fetch(lease.kind, lease.id)
        if not _is_dated(fetched):
            raise MalformedObject("the answer has no date")
        async with context.database.transaction() as connection:
            applied = await _apply(connection, lease, fetched, serial)
            await _check_lease(connection, lease)
            await (refreshes.landed if applied else refreshes.run_again)(connection, lease)
        return applied
    except BudgetSpent:
        # Nothing was asked: that is no attempt.
        async with context.database.connection() as connection:
            await refreshes.run_again(connection, lease)
    except _Overtaken:
        log.info("refresh_overtaken", object_id=lease.id)
    except (BillingError, MalformedObject) as error:
        reason = error.code if isinstance(error, BillingError) else str(error)
        log.warning(
            "refresh_failed", object_id=lease.id, kind=lease.kind, attempts=lease.attempts, reason=reason
        )
        await _put_off(context, lease, reason, counted=await _is_counted(context, lease, error))
    except Exception as error:
        # What nobody foresaw counts as an attempt too: else the object would come back for ever, and never as dead.
        await _put_off(context, lease, type(error).__name__)
        raise
    return False


async def _is_counted(context: Context, lease: Lease, error: BillingError | MalformedObject) -> bool:
    """In an outage of hours no object dies: the last attempt counts only while Stripe answers others."""
    if not isinstance(error, ServiceUnavailable) or lease.attempts + 1 < refreshes.MAX_ATTEMPTS:
        return True
    try:
        await context.stripe.account()
    except ServiceUnavailable:
        return False
    return True


async def _put_off(context: Context, lease: Lease, reason: str, *, counted: bool = True) -> None:
    async with context.database.connection() as connection:
        await (refreshes.failed if counted else refreshes.postponed)(connection, lease, reason)
