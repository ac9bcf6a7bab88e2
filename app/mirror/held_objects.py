"""Objects of Stripe that are read and written under their lease.

Stripe's answer is applied to the row in the transaction that the caller settles in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from app.context import Context
from app.domain.snapshots import Snapshot
from app.errors import ServiceUnavailable
from app.mirror.refreshing import (
    APPLY_TRIES,
    abandon,
    apply_fetched,
    check_lease,
    is_dated,
    renewed,
    take_lease,
)
from app.mirror.store import refreshes
from app.mirror.store import rows as mirror
from app.mirror.store.refreshes import Lease
from app.postgres.database import Connection
from app.stripe.gateway import Fetched


class HeldObject:
    """An object whose lease is held, for reading and writing it at Stripe and applying Stripe's answers to its row."""

    def __init__(self, context: Context, lease: Lease) -> None:
        self._context = context
        self._lease = lease
        self._found: Fetched | None = None
        self._serial_before = 0
        self.was_applied = False

    async def read(self) -> Fetched:
        """Return the object as Stripe has it now, after applying it: it binds others while Stripe is asked further.

        The row's serial is taken before the read, so the snapshot never replaces anything applied since.

        Raises:
            ServiceUnavailable: the lease was lost, or Stripe or the database does not answer.
            StripeRejected: Stripe refused the read.
            MalformedObject: the object lacks a field that its type promises.
            StatementRefused: PostgreSQL cannot store the snapshot.
        """
        lease = self._lease
        self._serial_before = await self._serial()
        self._found = await self._context.stripe.fetch(lease.kind, lease.id)
        if not self._found.stale and is_dated(self._found):
            async with self._context.database.transaction() as connection:
                if await apply_fetched(connection, lease, self._found, self._serial_before):
                    self._serial_before = await mirror.serial_of(connection, lease.kind, lease.id)
                await check_lease(connection, lease)
        return self._found

    async def _serial(self) -> int:
        async with self._context.database.connection() as connection:
            return await mirror.serial_of(connection, self._lease.kind, self._lease.id)

    @asynccontextmanager
    async def applied(self, answer: Fetched, *, is_older: bool = False) -> AsyncIterator[Applied]:
        """Apply an answer, and open the transaction in which the row shows it.

        If the row changed since it was read, for example by a webhook, or if the answer is a replay, the object is
        fetched again. With `is_older` the answer is from before the lease, for example of a create. It is applied only
        if no row exists and no notification of the object is pending.

        Raises:
            ServiceUnavailable: the object changed 6 times during the reads, the lease was lost, or Stripe or the
                database does not answer.
            StripeRejected: Stripe refused a read.
            MalformedObject: the object lacks a field that its type promises.
            StatementRefused: PostgreSQL cannot store the snapshot.
        """
        fetched: Fetched | None = answer
        serial = self._serial_before
        for tries in range(APPLY_TRIES):
            if is_older or tries or self._found is None:
                serial = await self._serial()
            if tries or (is_older and (serial or self._lease.notifications)):
                fetched = None
            if fetched is None or fetched.stale or not is_dated(fetched):
                fetched = await self._context.stripe.fetch(self._lease.kind, self._lease.id)
            async with self._context.database.transaction() as connection:
                applied = await apply_fetched(connection, self._lease, fetched, serial)
                await check_lease(connection, self._lease)
                if applied:
                    yield Applied(connection, fetched.snapshot)
                    await refreshes.mark_applied(connection, self._lease)
            if applied:
                self.was_applied = True
                return
        raise ServiceUnavailable("The object changes faster than it can be read.", retry_after=2)


class Applied(NamedTuple):
    """The transaction in which an object's row shows `snapshot`, which is None if Stripe has no such object."""

    connection: Connection
    snapshot: Snapshot | None


@asynccontextmanager
async def held(context: Context, kind: str, object_id: str) -> AsyncIterator[HeldObject]:
    """Take an object's lease, and renew it until the block ends.

    If the block has applied no answer, a worker fetches the object again, because a write may have taken effect.

    Raises:
        ServiceUnavailable: the lease is still held after 12 seconds, or the database does not answer.
    """
    lease = await take_lease(context, kind, object_id)
    one = HeldObject(context, lease)
    try:
        async with renewed(context, lease):
            yield one
    finally:
        if one.was_applied:
            context.lease_queues.released(lease.key)
        else:
            await asyncio.shield(abandon(context, lease))
