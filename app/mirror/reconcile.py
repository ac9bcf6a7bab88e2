"""Reconcile: the cache compared with Stripe's lists, object by object, and put right by the rule of the sync.

A list is a hint: what is missing is inserted, what differs is fetched again under its lease, and what no list shows
is asked for by its id before its row is taken for absent. Reading comes first; rows are removed last, and not at all
where more would go than an honest account loses between two runs: a wrong list must not empty the cache.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from app.context import Context
from app.domain.snapshots import Snapshot
from app.errors import Conflict
from app.mirror import refreshing as sync
from app.mirror import scans
from app.mirror.first_fill import check_account
from app.mirror.scans import KINDS, Report, ScannedInterval
from app.mirror.store import rows as mirror
from app.mirror.store import scans as scan_rows
from app.mirror.store.refreshes import Lease
from app.mirror.store.scans import Finding, ListScan, Range
from app.postgres import locks
from app.postgres.database import Connection
from app.stripe.gateway import Page

REMOVALS = 20
REMOVED_SHARE = 0.01
"""Of a kind's rows: a run removes no more than this, or than REMOVALS rows where that is more."""
_CONCURRENCY = 8


@dataclass(slots=True)
class Counts:
    """Of one kind. `orphaned` rows stand in no list; `repaired` counts what was inserted, fetched anew and removed.

    `unclear` objects came incomplete in their list, or without a readable layout, and were fetched one by one.
    """

    read: int = 0
    missing: int = 0
    stale: int = 0
    orphaned: int = 0
    unclear: int = 0
    repaired: int = 0
    removed: int = 0


@dataclass(slots=True)
class Reconciled:
    """`outcome`: finished, or stopped (nothing was removed). `requests`: calls to Stripe of this run."""

    outcome: str
    dry_run: bool
    requests: int
    reason: str | None = None
    kinds: dict[str, Counts] = field(default_factory=dict)

    @property
    def drift(self) -> int:
        return sum(kind.missing + kind.stale + kind.orphaned for kind in self.kinds.values())

    @property
    def unrepaired(self) -> int:
        return 0 if self.dry_run else self.drift - sum(kind.repaired for kind in self.kinds.values())


async def reconcile(
    context: Context, *, dry_run: bool = False, allow_removals: int | None = None, report: Report
) -> Reconciled:
    """Goes on with an interrupted run. A dry run reads and compares, and asks for no object by its id.

    `allow_removals`: rows of each kind that may be removed, instead of the usual bound.
    Raises Conflict `wrong_account`, and `already_running` while another process reconciles.
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
        kind = current.kind
        found = await scan_rows.compare(connection, page.snapshots)
        found.update(dict.fromkeys(page.cut_short, _UNCLEAR))
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

    async def run(self) -> str | None:
        """The reason for which nothing was removed, if there is one."""
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

        async def run() -> None:
            for kind, object_id in todo:
                await act(kind, object_id)

        await asyncio.gather(*(run() for _ in range(_CONCURRENCY)))

    async def _fetch_noted(self, kind: str, object_id: str) -> None:
        """The page noted it, so a worker may have been faster."""
        lease = await sync.take_lease(self.context, kind, object_id)
        if lease.notifications:
            await self._fetch(lease)
            return
        await sync.release(self.context, lease)
        await self._settle(object_id, "repaired")

    async def _fetch_again(self, kind: str, object_id: str) -> None:
        await self._fetch(await sync.take_lease(self.context, kind, object_id))

    async def _fetch(self, lease: Lease) -> None:
        self.requests += 1
        done = await sync.refresh(self.context, lease)
        await self._settle(lease.id, "repaired" if done else "failed")

    async def _too_many(self) -> str | None:
        """Asks, where the candidates exceed the bound, until the confirmed ones do too or none is left to ask."""
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
                    await self._settle(object_id, "unfounded")
                if confirmed > bound:
                    return (
                        f"{len(candidates)} rows of kind {kind} stand in no list, more than {bound} of them are gone "
                        "from Stripe: nothing was removed. If that is right, allow it with --allow-removals."
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
        snapshot: Snapshot | None = (await self.context.stripe.fetch(kind, object_id)).snapshot
        return snapshot is None or snapshot.deleted

    async def _remove(self, kind: str, object_id: str) -> None:
        """By the answer to a read of the object itself, under its lease; one that exists is just refreshed."""
        lease = await sync.take_lease(self.context, kind, object_id)
        self.requests += 1
        if not await sync.refresh(self.context, lease):
            await self._settle(object_id, "failed")
            return
        async with self.context.database.connection() as connection:
            still_there = await scan_rows.is_present(connection, kind, object_id)
        await self._settle(object_id, "unfounded" if still_there else "removed")

    async def _settle(self, object_id: str, outcome: str) -> None:
        async with self.context.database.connection() as connection:
            await scan_rows.settle(connection, self.scan, object_id, outcome)

    async def result(self, reason: str | None, *, requests: int) -> Reconciled:
        async with self.context.database.unhurried() as connection:
            totals = await scan_rows.totals(connection, self.scan)
            found = await scan_rows.counts(connection, self.scan)
        kinds = {kind: Counts(read=totals.get(kind, (0, 0))[1]) for kind in KINDS}
        for kind, finding, outcome, number in found:
            counts = kinds[kind]
            if outcome != "unfounded":
                setattr(counts, finding, getattr(counts, finding) + number)
            if outcome in ("repaired", "removed") and finding != "unclear":
                counts.repaired += number
            if outcome == "removed":
                counts.removed += number
        outcome = "stopped" if reason else "finished"
        return Reconciled(outcome, self.dry_run, requests, reason, kinds)


_MISSING: Finding = "missing"
_ORPHANED: Finding = "orphaned"
_UNCLEAR: Finding = "unclear"
