"""Commit events in groups: events that arrive while others are written share one statement and one commit.

A commit waits for the disk, independent of its size. So under load the waiting events of one kind are written
together, and each is answered after its commit. If no group is being written, an event is written at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from app.context import Context
from app.domain.snapshots import Snapshot
from app.mirror.store import fills
from app.mirror.store import rows as mirror
from app.mirror.store.rows import EventEffect, EventRecord
from app.postgres.database import Database
from app.postgres.failures import RowLocked, StatementRefused

LARGEST_GROUP = 64
UNDER_WAY = 1
"""Number of groups of one kind that are written at the same time."""


@dataclass(slots=True)
class _Delivery:
    event: EventRecord
    snapshot: Snapshot
    done: asyncio.Future[EventEffect]


@dataclass(slots=True)
class _Lane:
    """The waiting events of one kind, because a statement writes one table."""

    waiting: deque[_Delivery] = field(default_factory=deque)
    under_way: int = 0

    def take_group(self) -> list[_Delivery]:
        """Return up to LARGEST_GROUP of the oldest events, in order.

        An event with the same object or id as an earlier one waits for the next group.
        """
        group: list[_Delivery] = []
        put_back: list[_Delivery] = []
        taken: set[str] = set()
        for _ in range(min(LARGEST_GROUP, len(self.waiting))):
            delivery = self.waiting.popleft()
            names = {delivery.event.id, delivery.event.object_id}
            (put_back if taken & names else group).append(delivery)
            taken |= names
        self.waiting.extendleft(reversed(put_back))
        return group


class Ingest:
    """The events that this process has received and not committed yet."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._own_account: str | None = None

    async def own_account(self, context: Context) -> str:
        """Return the id of the account that this database mirrors. It never changes, so it is read once.

        Before the first fill it is the account of the API key.

        Raises:
            ServiceUnavailable: the database does not answer, or no account is stored and Stripe does not.
            StripeRejected: Stripe refused the read.
        """
        if self._own_account is None:
            async with context.database.connection() as connection:
                stored = await fills.stored_account(connection)
            self._own_account = stored[0] if stored else (await context.stripe.account()).id
        return self._own_account

    async def apply(
        self, database: Database, event: EventRecord, snapshot: Snapshot, *, margin: int
    ) -> EventEffect:
        """Apply an event as `mirror.apply_event` does; it is committed when this returns. `margin` is in seconds.

        Raises:
            ServiceUnavailable: the database does not answer.
            StatementRefused: PostgreSQL cannot store the payload.
        """
        lane = self._lanes.setdefault(mirror.mirror_of(snapshot).kind, _Lane())
        delivery = _Delivery(event, snapshot, asyncio.get_running_loop().create_future())
        lane.waiting.append(delivery)
        if lane.under_way < UNDER_WAY:
            lane.under_way += 1
            # It runs in its own task, so a request that is cancelled does not cancel the other events.
            task = asyncio.create_task(_drain(lane, database, margin))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await delivery.done


async def _drain(lane: _Lane, database: Database, margin: int) -> None:
    try:
        while group := lane.take_group():
            try:
                await _commit(group, database, margin)
            except (StatementRefused, RowLocked):
                await _commit_singly(group, database, margin)
    finally:
        lane.under_way -= 1


async def _commit(group: list[_Delivery], database: Database, margin: int) -> None:
    """Commit a group and answer its deliveries.

    A group of several that fails for one of its events is not answered.

    Raises:
        StatementRefused: PostgreSQL cannot store one of several payloads.
        RowLocked: another session holds the row of one of several objects.
    """
    try:
        async with database.connection() as connection:
            delivered = [(delivery.event, delivery.snapshot) for delivery in group]
            effects = await mirror.apply_events(connection, delivered, margin=margin)
    except BaseException as error:
        if isinstance(error, (StatementRefused, RowLocked)) and len(group) > 1:
            raise
        for delivery in group:
            if not delivery.done.done():
                delivery.done.set_exception(error)
        if not isinstance(error, Exception):
            raise
        return
    for delivery, effect in zip(group, effects, strict=True):
        if not delivery.done.done():
            delivery.done.set_result(effect)


async def _commit_singly(group: list[_Delivery], database: Database, margin: int) -> None:
    """Commit the events one by one, so that a refused event or a locked row does not fail the others."""
    for delivery in group:
        await _commit([delivery], database, margin)
