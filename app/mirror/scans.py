"""Read whole lists from Stripe in parallel, in ranges of creation time that are split while runners are idle.

The distribution of an account's objects over time is unknown, so each kind begins as one range. A runner that has read
a page gives parts of the remaining time to idle runners. The rate budget limits the rate, not the number of runners.
See docs/decisions/0030-read-lists-in-ranges-that-are-split-at-run-time.md.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog

from app.context import Context
from app.errors import Conflict, NotFound, ServiceUnavailable
from app.mirror.store import rows as mirror
from app.mirror.store import scans as scan_rows
from app.mirror.store.scans import ListScan, Purpose, Range
from app.postgres.database import Connection, ValueRefused
from app.stripe.gateway import PAGE_SIZE, Account
from app.stripe.pages import Page

log = structlog.get_logger(__name__)

KINDS = ("product", "price", "customer", "subscription", "invoice")
"""Kinds with a list. Payment methods have none: they are read at the first read of their customer."""
RUNNERS = 40
"""Pages that are read at the same time: Stripe's limit for the account if a page takes half a second."""
RUNNERS_A_KIND = 16
"""A kind's list has the lower limit of one endpoint, so more ranges would only add half empty pages."""
_WORTH_SPLITTING, _WORTH_SPLITTING_EARLY = 5.0, 20.0
"""Pages that a part should have. Each part adds about half an empty page, so few runners make short parts."""
_OLDEST = 1_293_840_000
"""A second in 2011, before Stripe's first account, for accounts without a creation time."""
_TRIES = 10
_LONGEST_PAUSE = 30.0
_OVERLAP_SECONDS = 60


@dataclass(frozen=True, slots=True)
class ScannedInterval:
    """The seconds of creation, both inclusive, that a page covers completely; `seen` are all ids in them.

    `first` is greater than `last` if the page ends in the second in which it began.
    """

    first: int
    last: int
    seen: list[str]


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of this run: pages and objects that were read, and the estimated number of remaining pages."""

    pages: int
    objects: int
    pages_left: float


T = TypeVar("T")
Handle = Callable[[Connection, Range, Page, ScannedInterval], Awaitable[None]]
Report = Callable[[Progress], None]


async def open_scan(
    context: Context, purpose: Purpose, account: Account, *, dry_run: bool = False
) -> ListScan:
    """Return the interrupted list scan of that purpose, extended by the time since, or a new one.

    Raises:
        ServiceUnavailable: the database does not answer.
    """
    # A new list scan deletes all findings of the previous one, which may take long.
    async with context.database.unhurried() as connection, connection.transaction():
        scan = await scan_rows.resume(connection, purpose, dry_run=dry_run)
        if scan is None:
            scan = await scan_rows.start(connection, purpose, dry_run=dry_run, planned_at=account.at)
            for position, kind in enumerate(KINDS):
                await scan_rows.add_range(connection, scan, Range(position, kind, 0, None))
        elif account.at > scan.planned_at + _OVERLAP_SECONDS:
            _, position = await scan_rows.ranges(connection, scan)
            newer = scan.planned_at - _OVERLAP_SECONDS
            for offset, kind in enumerate(KINDS):
                await scan_rows.add_range(connection, scan, Range(position + offset, kind, newer, None))
            await scan_rows.extend_plan(connection, scan, account.at)
    return scan


async def read(
    context: Context, scan: ListScan, account: Account, handle: Handle, report: Report
) -> tuple[int, int]:
    """Read every range to its end; return the numbers of pages and objects that this run read.

    `handle` runs in the transaction that advances the range.

    Raises:
        Conflict: `already_running` if another process has taken over the list scan.
        ServiceUnavailable: Stripe or the database did not answer for some minutes.
        StripeRejected: Stripe refused a read.
        MalformedObject: a page is no list, or none of its objects has an id.
        Exception: what `handle` raises.
    """
    async with context.database.connection() as connection:
        todo, position = await scan_rows.ranges(connection, scan)
    reader = _Reader(context, scan, account.created or _OLDEST, handle, report, deque(todo), position)
    reader._open.update(part.kind for part in todo)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(RUNNERS):
                group.create_task(reader.run())
    except BaseExceptionGroup as failures:
        # One failure ends the scan. `from failures` would make a cycle: the group's member with the group as its cause.
        raise failures.exceptions[0] from None
    return reader.pages, reader.objects


@dataclass(slots=True)
class _Reader:
    context: Context
    scan: ListScan
    oldest: int
    handle: Handle
    report: Report
    todo: deque[Range]
    next_position: int
    pages: int = 0
    objects: int = 0
    _idle: int = 0
    _promised: int = 0
    _left: dict[int, float] = dataclasses.field(default_factory=dict)
    _open: Counter[str] = dataclasses.field(default_factory=Counter)
    _changed: asyncio.Condition = dataclasses.field(default_factory=asyncio.Condition)
    _active: int = 0

    async def run(self) -> None:
        """Read ranges until none is left and no other runner may split one."""
        while True:
            async with self._changed:
                self._idle += 1
                await self._changed.wait_for(lambda: self.todo or not self._active)
                self._idle -= 1
                if not self.todo:
                    return
                current = self.todo.popleft()
                self._active += 1
            try:
                await self._read(current)
            finally:
                async with self._changed:
                    self._active -= 1
                    self._open[current.kind] -= 1
                    self._left.pop(current.position, None)
                    self._changed.notify_all()

    async def _read(self, current: Range) -> None:
        finished = False
        while not finished:
            page = await _patiently(partial(self._fetch, current))
            before = current
            after, interval = _after(current, page)
            finished = not page.has_more
            if (after.last_created or self.oldest) < self.oldest:
                self.oldest = _OLDEST  # The account has objects from before its creation time.
            self._left[current.position] = (
                0.0 if finished else _pages_left(after, newest=self.scan.planned_at, oldest=self.oldest)
            )
            split = [] if finished else self._split(after)
            self._promised += len(split)
            self._open[current.kind] += len(split)
            try:
                await _patiently(partial(self._write_storable, current, page, after, interval, split))
            finally:
                self._promised -= len(split)
            current = after
            self.pages += 1
            self.objects += after.objects - before.objects
            self.report(Progress(self.pages, self.objects, sum(self._left.values())))
            if split:
                share = self._left[current.position] / (len(split) + 1)
                self._left.update({part.position: share for part in (current, *split)})
                self.todo.extend(split)
                async with self._changed:
                    self._changed.notify_all()

    async def _fetch(self, current: Range) -> Page:
        stripe = self.context.stripe
        try:
            return await stripe.page(
                current.kind,
                created_from=current.created_from,
                created_to=current.created_to,
                starting_after=current.last_id,
            )
        except NotFound:
            if current.last_id is None:
                raise
            # The last object of the previous page was deleted since, so the page begins with its second.
            return await stripe.page(
                current.kind,
                created_from=current.created_from,
                created_to=current.last_created,
                starting_after=None,
            )

    async def _write_storable(
        self, before: Range, page: Page, after: Range, interval: ScannedInterval, split: list[Range]
    ) -> None:
        """Write a page. If PostgreSQL refuses a value, the objects that it cannot store are recorded as unreadable."""
        try:
            await self._write(before, page, after, interval, split)
        except ValueRefused:
            storable = await mirror.without_refused(self.context.database, page.snapshots)
            refused = {str(one.id) for one in page.snapshots} - {one.id for one in storable}
            reasons = {**page.unreadable, **dict.fromkeys(refused, "PostgreSQL cannot store it")}
            rest = dataclasses.replace(page, snapshots=storable, unreadable=reasons)
            await self._write(before, rest, after, interval, split)

    async def _write(
        self, before: Range, page: Page, after: Range, interval: ScannedInterval, split: list[Range]
    ) -> None:
        async with self.context.database.transaction() as connection:
            await self.handle(connection, before, page, interval)
            for part in split:
                await scan_rows.add_range(connection, self.scan, part)
            finished = not page.has_more
            advanced = await scan_rows.advance(connection, self.scan, before, after, finished=finished)
            # After a lost answer the commit is repeated, although the range may have advanced already.
            if not advanced and not await scan_rows.is_at(connection, self.scan, after):
                raise Conflict("Another process has taken over this list scan.", code="already_running")

    def _split(self, after: Range) -> list[Range]:
        """Split older parts of equal duration off the rest of the range, for idle runners."""
        newest, oldest = after.last_created or 0, max(after.created_from, self.oldest)
        open_here = self._open[after.kind]
        free = min(self._idle - len(self.todo) - self._promised, RUNNERS_A_KIND - open_here)
        worth = _WORTH_SPLITTING_EARLY if open_here > RUNNERS_A_KIND // 2 else _WORTH_SPLITTING
        parts = min(free, int(self._left[after.position] / worth))
        inner = {oldest + (newest - oldest) * part // (parts + 1) for part in range(1, parts + 1)}
        found = []
        for bound in sorted(bound for bound in inner if after.created_from < bound < newest):
            found.append(Range(self.next_position, after.kind, after.created_from, bound - 1))
            self.next_position += 1
            after.created_from = bound
        return found


async def _patiently(step: Callable[[], Awaitable[T]]) -> T:
    """Repeat a step while a service is unavailable, so that an outage of minutes does not end a run of an hour."""
    for attempt in range(_TRIES):
        try:
            return await step()
        except ServiceUnavailable as error:
            log.warning("scan_waits", reason=error.code)
            await asyncio.sleep(min(_LONGEST_PAUSE, 2.0**attempt / 2))
    return await step()


def _after(current: Range, page: Page) -> tuple[Range, ScannedInterval]:
    ids = list(page.ids)
    newest = current.created_to if current.last_created is None else current.last_created
    # An object that was created after the page was read is not missing from it.
    last = page.at if newest is None else min(newest, page.at)
    end = page.ids[ids[-1]] if ids else current.last_created
    seen = [*current.open_ids, *ids, *page.unreadable]
    first = current.created_from if not page.has_more or end is None else end + 1
    open_ids = [] if end is None else [name for name, second in page.ids.items() if second == end]
    if end == current.last_created:
        open_ids = [*current.open_ids, *open_ids]
    after = dataclasses.replace(
        current,
        last_id=page.last_id or current.last_id,
        last_created=end,
        open_ids=list(dict.fromkeys(open_ids)),
        pages=current.pages + 1,
        objects=current.objects + len(page.snapshots) + len(page.cut_short),
    )
    return after, ScannedInterval(first, last, seen)


def _pages_left(after: Range, *, newest: int, oldest: int) -> float:
    """Estimate the remaining pages of a range from the density of all that was read of it.

    The density of a single page would mislead, because many objects may be created in one second.
    """
    reached = after.last_created or 0
    read = max(1, (newest if after.created_to is None else after.created_to) - reached)
    rest = max(0, reached - max(after.created_from, oldest))
    return max(1.0, after.objects * rest / read / PAGE_SIZE)
