"""Refresh mirrored objects and apply the results of our own writes: under the object's lease, outside a transaction.

This module orders the steps. `app.mirror.store.rows` holds the rule that decides whether a snapshot is applied. See
docs/explanation/sync.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager

import structlog

from app.context import Context
from app.domain.snapshots import Snapshot
from app.errors import BillingError, ServiceUnavailable, StripeRejected
from app.mirror.store import refreshes, unreadable
from app.mirror.store import rows as mirror
from app.mirror.store.object_keys import key_of
from app.mirror.store.refreshes import Lease
from app.postgres.database import Connection, ValueRefused
from app.postgres.leases import renewing_lease
from app.stripe.breaker import StripeAway
from app.stripe.gateway import Fetched
from app.stripe.parsing import MalformedObject
from app.stripe.rate_budget import BudgetSpent

log = structlog.get_logger(__name__)

FRESH_SECONDS = 10
"""`freshen` asks Stripe for one object at most once in this time."""
FRESH_PATIENCE_SECONDS = 7.0
"""Longest time that a caller of `freshen` waits."""
_LEASE_WAIT_SECONDS = 12.0
_FRESH = "fresh"
APPLY_TRIES = 6
_ATTEMPTS_IN_GOOD_FAITH = 3
"""Attempts after which a refresh that gets no answer asks whether Stripe answers anything at all."""

Call = Callable[[], Awaitable[Fetched]]
Settle = Callable[[Connection, Snapshot | None], Awaitable[None]]


async def take_lease(context: Context, kind: str, object_id: str) -> Lease:
    """Take the object's lease, after a refresh or another write of the same object has released it.

    The lease lasts `OPERATION_LEASE` and is renewed while work runs under it, see `app.postgres.leases`.

    Raises:
        ServiceUnavailable: the lease is still held after 12 seconds, or the database does not answer.
    """

    async def attempt() -> Lease | None:
        return await _try_lease(context, kind, object_id)

    lease = await context.lease_queues.ask(key_of(kind, object_id), attempt, seconds=_LEASE_WAIT_SECONDS)
    if lease is None:
        raise _busy()
    return lease


async def _try_lease(context: Context, kind: str, object_id: str) -> Lease | None:
    async with context.database.connection() as connection:
        return await refreshes.take(connection, kind, object_id, lease_seconds=context.rules.operation_lease)


def _busy() -> ServiceUnavailable:
    return ServiceUnavailable("Another change of the same object is still running.", retry_after=2)


async def apply(
    context: Context,
    lease: Lease,
    call: Call | Fetched,
    settle: Settle | None = None,
) -> Snapshot | None:
    """Call Stripe, apply the answer, run `settle` in the same transaction, and release the lease in any case.

    If the row changed during the call, for example by a webhook, the object is fetched and applied again. So `settle`
    always gets a snapshot that the row then shows, or None if Stripe has no such object.

    A `Fetched` as `call` is an answer from before the lease, for example of a create whose id was not known. It is
    applied only if no row exists and no notification of the object is pending; otherwise the object is fetched.

    Raises:
        ServiceUnavailable: the object changed 6 times during the reads, the lease was lost, or Stripe or the database
            does not answer.
        BillingError: what `call` and `settle` raise.
        MalformedObject: the object lacks a field that its type promises.
        StatementRefused: PostgreSQL cannot store the snapshot.
    """
    try:
        async with renewed(context, lease):
            applied = await _call_and_apply(context, lease, call, settle)
    except BaseException:
        await asyncio.shield(abandon(context, lease))
        raise
    context.lease_queues.released(lease.key)
    return applied


def renewed(context: Context, lease: Lease) -> AbstractAsyncContextManager[None]:
    """Renew the lease until the block ends."""
    seconds = context.rules.operation_lease

    async def renew(connection: Connection) -> None:
        await refreshes.renew(connection, lease, lease_seconds=seconds)

    return renewing_lease(context.database, seconds, renew)


async def _call_and_apply(
    context: Context,
    lease: Lease,
    call: Call | Fetched,
    settle: Settle | None,
) -> Snapshot | None:
    for _ in range(APPLY_TRIES):
        async with context.database.connection() as connection:
            serial = await mirror.serial_of(connection, lease.kind, lease.id)
        if isinstance(call, Fetched):
            fetched = call if serial == 0 and lease.notifications == 0 else None
        else:
            fetched = await call()
        if fetched is None or fetched.stale or not is_dated(fetched):
            fetched = await context.stripe.fetch(lease.kind, lease.id)
        async with context.database.transaction() as connection:
            applied = await apply_fetched(connection, lease, fetched, serial)
            await check_lease(connection, lease)
            if applied:
                if settle is not None:
                    await settle(connection, fetched.snapshot)
                await refreshes.mark_applied(connection, lease)
                return fetched.snapshot
        call = _fetch_again(context, lease)
    raise ServiceUnavailable("The object changes faster than it can be read.", retry_after=2)


def _fetch_again(context: Context, lease: Lease) -> Call:
    async def fetch() -> Fetched:
        return await context.stripe.fetch(lease.kind, lease.id)

    return fetch


def is_dated(fetched: Fetched) -> bool:
    """Return True if the answer has a date.

    Without a date the marker could not rise, so older events would be applied.
    """
    return fetched.snapshot is None or fetched.at > 0


class _LeaseLost(ServiceUnavailable):
    """The lease ran out and another holder has taken it."""


async def check_lease(connection: Connection, lease: Lease) -> None:
    """Check that the lease is still held; call it after the row is written.

    A webhook's statement locks the row first and its refresh second, so the opposite order could deadlock.

    Raises:
        ServiceUnavailable: the lease was lost.
    """
    if not await refreshes.still_held(connection, lease):
        raise _LeaseLost("The object's lease ran out while Stripe was asked.", retry_after=2)


async def apply_fetched(connection: Connection, lease: Lease, fetched: Fetched, serial: int) -> bool:
    """Apply a snapshot to its row, or mark it absent; False if the row is newer.

    `serial`: the row's number when it was read before the fetch.

    Raises:
        StatementRefused: PostgreSQL cannot store the snapshot.
    """
    if fetched.snapshot is None:
        return await mirror.mark_absent(connection, lease.kind, lease.id, serial=serial, marker=fetched.at)
    return await mirror.apply_fetched(connection, fetched.snapshot, serial=serial, marker=fetched.at)


async def abandon(context: Context, lease: Lease) -> None:
    """Release the lease after a failure.

    The write may have taken effect, so a worker fetches the object again.
    """
    try:
        async with context.database.connection() as connection:
            await refreshes.run_again(connection, lease)
    except BillingError as error:
        log.warning("lease_not_released", object_id=lease.id, reason=error.code)
    context.lease_queues.released(lease.key)


async def release(context: Context, lease: Lease) -> None:
    """Release a lease under which nothing was read or written. Raises ServiceUnavailable."""
    async with context.database.connection() as connection:
        await refreshes.release(connection, lease)
    context.lease_queues.released(lease.key)


async def read_through(context: Context, kind: str, object_id: str) -> Snapshot | None:
    """Return the object as Stripe has it now, after applying it to the mirror; None if Stripe has no such object.

    Raises what `take_lease` and `apply` raise.
    """
    lease = await take_lease(context, kind, object_id)
    return await apply(context, lease, _fetch_again(context, lease))


async def refresh_if_notified(context: Context, objects: Mapping[str, str | None]) -> None:
    """Refresh each of the objects, given as id by kind, that has a pending notification.

    Raises what `take_lease` and `apply` raise.
    """
    async with context.database.connection() as connection:
        wanted = await refreshes.wanted(
            connection, [(kind, object_id) for kind, object_id in objects.items() if object_id is not None]
        )
    for kind, object_id in objects.items():
        if object_id is None or (kind, object_id) not in wanted:
            continue
        lease = await take_lease(context, kind, object_id)
        if lease.notifications:
            await apply(context, lease, _fetch_again(context, lease))
        else:
            # Another holder has refreshed the object while this call waited for the lease.
            await release(context, lease)


async def freshen(context: Context, kind: str, object_id: str, *, seeks: bool = False) -> None:
    """Refresh an object that was synced more than FRESH_SECONDS ago or has a pending notification.

    `seeks`: Stripe is asked also for an object that the copy does not have. All callers share the limit of one read in
    FRESH_SECONDS. The read goes on even if the caller stops waiting.

    Raises:
        ServiceUnavailable: Stripe does not answer in time, or the lease is still held; at once while the breaker is
            open, or if too many requests wait for Stripe. Or the database does not answer.
        BillingError: what `apply` raises.
        StripeRejected: the object cannot be read.
        StatementRefused: PostgreSQL cannot store the snapshot.
    """
    if not await _is_stale(context, kind, object_id, seeks=seeks):
        return
    breaker = context.breakers["fresh"]
    breaker.admit()
    with context.stripe_waits.one_more():
        reading = asyncio.ensure_future(_freshen(context.doing("fresh"), kind, object_id, seeks=seeks))
        try:
            await breaker.patiently(FRESH_PATIENCE_SECONDS, reading)
        except TimeoutError as error:
            raise ServiceUnavailable("Stripe does not answer in time.", retry_after=2) from error


async def _freshen(context: Context, kind: str, object_id: str, *, seeks: bool) -> None:
    async def attempt() -> Lease | str | None:
        # Many callers may wait for the same lease. The first of them reads the object for all.
        if not await _is_stale(context, kind, object_id, seeks=seeks):
            return _FRESH
        return await _try_lease(context, kind, object_id)

    found: Lease | str | None = await context.lease_queues.ask(
        key_of(kind, object_id), attempt, seconds=_LEASE_WAIT_SECONDS
    )
    if found is None:
        raise _busy()
    if not isinstance(found, Lease):
        return
    if not await _is_stale(context, kind, object_id, seeks=seeks):
        await release(context, found)
        return
    try:
        await apply(context, found, _fetch_again(context, found))
    except MalformedObject as error:
        raise StripeRejected(
            f"Stripe's answer for this object cannot be read: {error}. Without fresh=true the last readable state is "
            "shown. `coseat doctor` tells the operator what to correct."
        ) from error


async def _is_stale(context: Context, kind: str, object_id: str, *, seeks: bool) -> bool:
    async with context.database.connection() as connection:
        is_old = await mirror.is_older_than(connection, kind, object_id, seconds=FRESH_SECONDS)
        if is_old is None and seeks:
            is_old = not await refreshes.was_read(connection, kind, object_id, seconds=FRESH_SECONDS)
        return bool(is_old) or bool(await refreshes.wanted(connection, [(kind, object_id)]))


async def refresh(context: Context, lease: Lease) -> bool:
    """Refresh the leased object; True if the snapshot was applied, False if the refresh is to be repeated.

    A failure is recorded with the refresh and counts as an attempt; after 8 attempts the refresh is dead until a new
    event or a replay. An outage of Stripe is not counted. An object that cannot be read is recorded as such.

    Raises:
        ServiceUnavailable: the failure cannot be recorded because the database does not answer.
        Exception: an error that no rule covers. It is recorded as an attempt first.
    """
    try:
        return await _refresh(context, lease)
    finally:
        context.lease_queues.released(lease.key)


async def _refresh(context: Context, lease: Lease) -> bool:
    try:
        async with context.database.connection() as connection:
            serial = await mirror.serial_of(connection, lease.kind, lease.id)
        async with renewed(context, lease):
            fetched = await context.stripe.fetch(lease.kind, lease.id)
        if not is_dated(fetched):
            raise ServiceUnavailable("Stripe's answer has no date, so nothing shows what it is newer than.")
        async with context.database.transaction() as connection:
            applied = await apply_fetched(connection, lease, fetched, serial)
            await check_lease(connection, lease)
            await (refreshes.mark_applied if applied else refreshes.run_again)(connection, lease)
        return applied
    except BudgetSpent:
        # Stripe was not asked, so this is no attempt.
        async with context.database.connection() as connection:
            await refreshes.run_again(connection, lease)
    except _LeaseLost:
        log.info("refresh_lease_lost", object_id=lease.id)
    except BillingError as error:
        log.warning(
            "refresh_failed", object_id=lease.id, kind=lease.kind, attempts=lease.attempts, reason=error.code
        )
        await _put_off(context, lease, error.code, counted=await _is_counted(context, lease, error))
    except MalformedObject as error:
        await _set_aside(context, lease, str(error))
    except ValueRefused as error:
        await _set_aside(context, lease, f"PostgreSQL cannot store it ({error.sqlstate})")
    except Exception as error:
        # An unforeseen error counts as an attempt too. Otherwise the refresh would repeat forever and never be dead.
        await _put_off(context, lease, type(error).__name__)
        raise
    return False


async def _set_aside(context: Context, lease: Lease, reason: str) -> None:
    """Record that the object cannot be read, and end its refresh: to fetch it again would change nothing.

    Its next event, reconcile and `coseat replay` read it again. Its row stays as it was.
    """
    log.warning("object_unreadable", object_id=lease.id, kind=lease.kind, reason=reason)
    async with context.database.transaction() as connection:
        if not await refreshes.still_held(connection, lease):
            return
        await unreadable.note(connection, lease.kind, lease.id, reason)
        await refreshes.mark_applied(connection, lease)


async def _is_counted(context: Context, lease: Lease, error: BillingError) -> bool:
    """Return False if Stripe answers nothing else either: no refresh dies of an outage, or waits for long after it."""
    if isinstance(error, StripeAway):
        return False
    if not isinstance(error, ServiceUnavailable) or lease.attempts < _ATTEMPTS_IN_GOOD_FAITH:
        return True
    try:
        await context.stripe.account()
    except ServiceUnavailable:
        return False
    return True


async def _put_off(context: Context, lease: Lease, reason: str, *, counted: bool = True) -> None:
    async with context.database.connection() as connection:
        await (refreshes.failed if counted else refreshes.postponed)(connection, lease, reason)
