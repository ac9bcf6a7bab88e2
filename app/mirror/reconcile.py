"""Compare the mirror with Stripe's lists, object by object, and repair it by the sync rule.

A list is no proof. So a missing object is inserted, an object that differs is fetched again under its lease, and an
object that no list shows is read by its id before its row is marked absent. Rows are removed last. If too many rows
would be removed, none is: a wrong list must not empty the mirror. See docs/how-to/fill-and-reconcile.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from app.context import Context
from app.domain.snapshots import Snapshot
from app.errors import Conflict, StripeRejected
from app.mirror import refreshing as sync
from app.mirror import scans
from app.mirror.first_fill import check_account
from app.mirror.scans import KINDS, Report, ScannedInterval
from app.mirror.store import refreshes, unreadable
from app.mirror.store import rows as mirror
from app.mirror.store import scans as scan_rows
from app.mirror.store.refreshes import Lease
from app.mirror.store.scans import Finding, ListScan, Range
from app.postgres import locks
from app.postgres.database import Connection
from app.stripe.pages import Page
from app.stripe.parsing import MalformedObject

log = structlog.get_logger(__name__)

REMOVALS = 20
REMOVED_SHARE = 0.01
"""A run removes at most this fraction of a kind's rows, or REMOVALS rows if that is more."""
_CONCURRENCY = 8


@dataclass(slots=True)
class Counts:
    """The numbers of one kind.

    `missing` objects have no row, `stale` rows differ, and `orphaned` rows are in no list. `unclear` objects were
    incomplete in their list and were fetched one by one. `unreadable` objects cannot be read. `repaired` counts rows
    that were inserted, refreshed or removed.
    """

    read: int = 0
    missing: int = 0
    stale: int = 0
    orphaned: int = 0
    unclear: int = 0
    unreadable: int = 0
    repaired: int = 0
    removed: int = 0


@dataclass(slots=True)
class Reconciled:
    """The result of a run. `outcome` is `finished`, or `stopped` for `reason`, and then no row was removed.

    `requests` is the number of calls to Stripe of this run. `unrepaired` is the number of objects whose rows it leaves
    missing, stale, orphaned or unreadable; 0 for a dry run.
    """

    outcome: str
    dry_run: bool
    requests: int
    reason: str | None = None
    kinds: dict[str, Counts] = field(default_factory=dict)
    unrepaired: int = 0

    @property
    def drift(self) -> int:
        """Return the number of rows that were missing, stale or orphaned."""
        return sum(kind.missing + kind.stale + kind.orphaned for kind in self.kinds.values())


async def reconcile(
    context: Context, *, dry_run: bool = False, allow_removals: int | None = None, report: Report
) -> Reconciled:
    """Compare and repair the mirror; an interrupted run is continued. A dry run only reads and compares the lists.

    `allow_removals` is the number of rows of each kind that may be removed, instead of the usual bound. `report` is
    called after each page.

    Raises:
        Conflict: `wrong_account`, or `already_running` if another process reconciles.
        ServiceUnavailable: Stripe or the database did not answer for some minutes.
        StripeRejected: Stripe refused a read.
    """
    account = await check_account(context)
    in_bulk = context.doing("bulk")
    async with locks.exclusive(context.database, "reconcile") as ours:
        if not ours:
            raise Conflict("Another process is reconciling this cache.", code="already_running")
        scan = await scans.open_scan(in_bulk, "reconcile", account, dry_run=dry_run)
        repair = _Repair(in_bulk, scan, dry_run, allow_removals)
        pages, _ = await scans.read(in_bulk, scan, account, repair.compare, report)
        reason = None if dry_run else await repair.run()
        result = await repair.result(reason, requests=1 + pages + repair.requests)
        async with context.database.connection() as connection:
            await scan_rows.finish(connection, scan, result.outcome, as_json(result))
    return result


def as_json(result: Reconciled) -> dict[str, Any]:
    """Return the result as the JSON report."""
    kinds = {
        kind: {name: getattr(counts, name) for name in Counts.__slots__}
        for kind, counts in result.kinds.items()
    }
    return {
        "outcome": result.outcome,
        "reason": result.reason,
        "dry_run": result.dry_run,
        "requests": result.requests,
        "drift": result.drift,
        "unrepaired": result.unrepaired,
        "kinds": kinds,
    }


@dataclass(slots=True)
class _Repair:
    context: Context
    scan: ListScan
    dry_run: bool
    allow_removals: int | None
    requests: int = 0

    async def compare(
        self, connection: Connection, current: Range, page: Page, interval: ScannedInterval
    ) -> None:
        """Record the differences of a page, and apply it unless this is a dry run."""
        kind = current.kind
        found = await scan_rows.compare(connection, page.snapshots)
        found.update(dict.fromkeys(page.cut_short, _UNCLEAR))
        found.update(dict.fromkeys(page.unreadable, _UNREADABLE))
        if interval.first <= interval.last:
            rows = await scan_rows.orphaned_rows(
                connection, kind, first=interval.first, last=interval.last, seen=interval.seen
            )
            found.update(dict.fromkeys(rows, _ORPHANED))
        if found:
            repaired = None if self.dry_run else _MISSING
            await scan_rows.record(connection, self.scan, kind, found, repaired=repaired)
        if self.dry_run:
            return
        differing = [snapshot for snapshot in page.snapshots if snapshot.id in found]
        await mirror.apply_page(connection, differing, marker=page.at)
        read_well = [snapshot.id for snapshot in page.snapshots]
        await unreadable.note_page(connection, kind, read_well=read_well, reasons=page.unreadable)
        equal = [object_id for object_id in read_well if found.get(object_id, _MISSING) == _MISSING]
        await refreshes.clear_dead(connection, kind, equal, before=page.at - self.context.rules.margin)

    async def run(self) -> str | None:
        """Repair what was found; return the reason if no row was removed."""
        await self._each(self._fetch_noted, "stale")
        await self._each(self._fetch_again, "unclear")
        if reason := await self._too_many():
            return reason
        await self._each(self._remove, "orphaned")
        return None

    async def _each(self, act: Callable[[str, str], Awaitable[None]], *findings: Finding) -> None:
        async with self.context.database.connection() as connection:
            waiting = await scan_rows.unsettled(connection, self.scan, *findings)
        todo = iter(waiting)

        async def act_on_next() -> None:
            for kind, object_id in todo:
                try:
                    await act(kind, object_id)
                except Exception as error:  # One object that cannot be repaired must not keep the others.
                    log.error("object_not_repaired", kind=kind, object_id=object_id, exc_info=error)
                    await self._settle(kind, object_id, "failed")

        await asyncio.gather(*(act_on_next() for _ in range(_CONCURRENCY)))

    async def _fetch_noted(self, kind: str, object_id: str) -> None:
        """Refresh an object of which the page has notified, unless a worker has refreshed it already."""
        lease = await sync.take_lease(self.context, kind, object_id)
        if lease.notifications:
            await self._fetch(lease)
            return
        await sync.release(self.context, lease)
        await self._settle(kind, object_id, "repaired")

    async def _fetch_again(self, kind: str, object_id: str) -> None:
        await self._fetch(await sync.take_lease(self.context, kind, object_id))

    async def _fetch(self, lease: Lease) -> None:
        self.requests += 1
        done = await sync.refresh(self.context, lease)
        await self._settle(lease.kind, lease.id, "repaired" if done else "failed")

    async def _too_many(self) -> str | None:
        """Return a reason if more orphaned rows than the bound are gone from Stripe, None otherwise.

        Only if the orphaned rows exceed the bound, they are read by id until so many are confirmed or none is left.
        """
        async with self.context.database.connection() as connection:
            waiting = await scan_rows.unsettled(connection, self.scan, "orphaned")
            found = await scan_rows.counts(connection, self.scan)
        for kind in KINDS:
            candidates = [object_id for its_kind, object_id in waiting if its_kind == kind]
            if not candidates:
                continue
            gone = sum(n for its_kind, _, outcome, n in found if its_kind == kind and outcome == "removed")
            bound = await self._bound(kind, gone)
            if gone + len(candidates) <= bound:
                continue
            confirmed = gone
            for object_id in candidates:
                if await self._is_gone(kind, object_id):
                    confirmed += 1
                else:
                    await self._settle(kind, object_id, "unfounded")
                if confirmed > bound:
                    return (
                        f"{len(candidates)} rows of kind {kind} are in no list, and more than {bound} of them are gone "
                        "from Stripe, so nothing was removed. If that is right, allow it with --allow-removals."
                    )
        return None

    async def _bound(self, kind: str, gone: int) -> int:
        if self.allow_removals is not None:
            return self.allow_removals
        async with self.context.database.unhurried() as connection:
            rows = await scan_rows.rows_present(connection, kind) + gone
        return max(REMOVALS, int(rows * REMOVED_SHARE))

    async def _is_gone(self, kind: str, object_id: str) -> bool:
        self.requests += 1
        try:
            snapshot: Snapshot | None = (await self.context.stripe.fetch(kind, object_id)).snapshot
        except (MalformedObject, StripeRejected):
            return False
        return snapshot is None or snapshot.deleted

    async def _remove(self, kind: str, object_id: str) -> None:
        """Mark a row absent if a read of the object by its id, under its lease, confirms it; otherwise refresh it."""
        lease = await sync.take_lease(self.context, kind, object_id)
        self.requests += 1
        if not await sync.refresh(self.context, lease):
            await self._settle(kind, object_id, "failed")
            return
        async with self.context.database.connection() as connection:
            still_there = await scan_rows.is_present(connection, kind, object_id)
        await self._settle(kind, object_id, "unfounded" if still_there else "removed")

    async def _settle(self, kind: str, object_id: str, outcome: str) -> None:
        async with self.context.database.connection() as connection:
            await scan_rows.settle(connection, self.scan, kind, object_id, outcome)

    async def result(self, reason: str | None, *, requests: int) -> Reconciled:
        """Return the result of the run from the stored findings."""
        async with self.context.database.unhurried() as connection:
            totals = await scan_rows.totals(connection, self.scan)
            found = await scan_rows.counts(connection, self.scan)
        kinds = {kind: Counts(read=totals.get(kind, (0, 0))[1]) for kind in KINDS}
        unrepaired = 0
        for kind, finding, outcome, number in found:
            counts = kinds[kind]
            if outcome != "unfounded":
                setattr(counts, finding, getattr(counts, finding) + number)
            if outcome in ("repaired", "removed") and finding != "unclear":
                counts.repaired += number
            if outcome == "removed":
                counts.removed += number
            if outcome in (None, "failed") and not self.dry_run:
                unrepaired += number
        outcome = "stopped" if reason else "finished"
        return Reconciled(outcome, self.dry_run, requests, reason, kinds, unrepaired)


_MISSING: Finding = "missing"
_ORPHANED: Finding = "orphaned"
_UNCLEAR: Finding = "unclear"
_UNREADABLE: Finding = "unreadable"
