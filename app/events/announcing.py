"""Make events of facts: number them, and judge the access that they change.

One transaction at a time does this, so positions are committed in their order and no reader of the feed skips one. The
transaction sees one state of the database, so a fact and what it changed are seen together. See
docs/decisions/0052-number-events-after-their-transaction.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from secrets import token_hex
from typing import Final

import structlog

from app.context import Context, Rules
from app.domain.seats import Seats
from app.domain.snapshots import JsonObject
from app.errors import BillingError
from app.events import facts as deciding
from app.events.facts import Announcement, Draft, Expansion, Fact, Judgement, Level, Stream, World
from app.events.store import announcing as store
from app.events.store.announcing import Log, OpenExpansion
from app.mirror.store import subscriptions
from app.postgres.database import Connection, StatementRefused

log = structlog.get_logger(__name__)

PAGE: Final = 500
"""Facts, and customers of an expansion, that one transaction takes."""
_IDLE_SECONDS: Final = 0.1
_AWAY_SECONDS: Final = 1.0
_SUBSCRIPTIONS: Final = 200
_EXPANSIONS: Final = 50


async def keep_announcing(context: Context, stop: asyncio.Event) -> None:
    """Make events of facts until `stop` is set."""
    stopping = asyncio.create_task(stop.wait())
    while not stop.is_set():
        pause = _IDLE_SECONDS
        try:
            if await announce_pending(context):
                pause = 0.0
        except BillingError as error:
            log.warning("events_wait", reason=error.code)
            pause = _AWAY_SECONDS
        except Exception as error:  # The facts stay, and the next try may succeed.
            log.error("events_wait", error=type(error).__name__, exc_info=error)
            pause = _AWAY_SECONDS
        await asyncio.wait({stopping}, timeout=pause)


async def announce_pending(context: Context) -> bool:
    """Make events of the oldest facts, and do one page of the expansions; return True if there may be more to do.

    Nothing is done while another process does it.
    """
    if not await has_pending(context):
        return False
    try:
        async with context.database.snapshot() as connection:
            taken = await store.take_log(connection)
            return False if taken is None else await _Round(connection, context.rules, taken).run()
    except StatementRefused as error:
        if error.sqlstate != _OVERTAKEN:
            raise
        return False


async def has_pending(context: Context) -> bool:
    """Return True if there are facts or pages to be done, or the log is to be opened."""
    async with context.database.connection() as connection:
        return await store.has_work(connection)


_OVERTAKEN = "40001"
"""PostgreSQL's code for a row that another transaction has changed since the state that this one sees."""


@dataclass(slots=True)
class _Round:
    """One transaction. Before the log is open it takes in the state that is there, and writes no event."""

    connection: Connection
    rules: Rules
    log: Log
    streams: dict[str, Stream] = field(default_factory=dict)
    drafts: list[Draft] = field(default_factory=list)

    async def run(self) -> bool:
        before = self.log
        if not before.filled:
            return False
        if not before.opened:
            if before.filled_until is None:
                await store.note_fill(self.connection)
                return True
            if not await store.knows_fill(self.connection, before.filled_until):
                return False
        # Before the log is open, what no state contains waits until an event can tell of it.
        waiting = frozenset[str]() if before.opened else deciding.STATELESS_KINDS
        taken = await store.facts(self.connection, PAGE, without=waiting)
        if taken:
            await self._tell(taken)
        opening_ended = before.opened or await self._open_next()
        open_expansions = await store.expansions(self.connection, _EXPANSIONS)
        ended = await self._expand(open_expansions)
        is_behind = len(taken) == PAGE or len(ended) < len(open_expansions) or not opening_ended
        is_behind = is_behind or len(open_expansions) == _EXPANSIONS
        if not before.opened and not is_behind and not await store.expansions(self.connection, 1):
            self.drafts = []
            counts, at = await store.open_log(self.connection)
            self.drafts.append(Draft("sync.completed", None, None, "api", None, at, {"counts": counts}))
            self.log = replace(before, opened=True)
        await self._write()
        return is_behind or bool(open_expansions) or not before.opened

    async def _tell(self, taken: Sequence[Fact]) -> None:
        concerned = {fact.subscription_id for fact in taken if fact.subscription_id is not None}
        customers = {fact.customer_id for fact in taken if fact.kind == deciding.OWNER and fact.customer_id}
        owned = await store.owned(self.connection, customers)
        concerned |= {one for several in owned.values() for one in several}
        world = await self._world(concerned, taken)
        world.owned = owned
        told = deciding.announce(taken, world)
        await self._keep(told)
        await store.forget(self.connection, taken, told.born)
        await self._judge(told.judgements)

    async def _world(self, subscription_ids: set[str], taken: Sequence[Fact] = ()) -> World:
        levels = await store.levels(self.connection, subscription_ids)
        known = await store.streams(self.connection, subscription_ids)
        items = [item for level in levels.values() for item in level.data["items"]]
        items += [item for fact in taken if fact.kind == deciding.CHANGED for item in fact.data["items"]]
        flagged = await store.flagged(self.connection, {item["product_id"] for item in items})
        members = await store.members(self.connection, levels.keys() - known.keys())
        return World(levels, known, members, {}, flagged)

    async def _keep(self, told: Announcement) -> None:
        self.drafts += told.drafts
        for subscription_id, stream in told.streams.items():
            self.streams[subscription_id] = stream
        await store.expand(self.connection, told.expansions)

    async def _open_next(self) -> bool:
        """Take in the next subscriptions silently; return True if there are none."""
        page = await store.levels_after(self.connection, self.log.opened_to or "", _SUBSCRIPTIONS)
        if not page:
            return True
        world = await self._world({level.subscription_id for level in page})
        for level in page:
            total = deciding.seat_total(level.data["items"], world.flagged)
            self.streams[level.subscription_id] = Stream(0, level.owner_id, total)
        await store.expand(
            self.connection, [Expansion(level.subscription_id, None, "reconcile", None) for level in page]
        )
        await store.keep_opening(self.connection, page[-1].subscription_id)
        return False

    async def _expand(self, found: Sequence[OpenExpansion]) -> list[int]:
        """Do one page of each expansion, and return those that have reached their end."""
        ended: list[int] = []
        of_subscriptions = [one for one in found if one.subscription_id is not None]
        if of_subscriptions:
            each = max(1, PAGE // len(of_subscriptions))
            page = await store.customers_of(self.connection, of_subscriptions, each)
            asked = [
                Judgement(customer_id, str(one.subscription_id), one.source, one.operation_id, one.of_product)
                for one in of_subscriptions
                for customer_id in page[one.number]
            ]
            await self._judge(asked)
            for one in of_subscriptions:
                if len(page[one.number]) < each:
                    ended.append(one.number)
                else:
                    await store.advance(self.connection, one.number, page[one.number][-1])
        await store.end_expansions(self.connection, ended)
        for one in found:
            if one.product_id is not None and await self._count_again(one, one.product_id):
                await store.end_expansions(self.connection, [one.number])
                ended += [one.number]
        return ended

    async def _count_again(self, one: OpenExpansion, product_id: str) -> bool:
        """Count the seats of the next subscriptions of a product again; return True if these were the last."""
        page = await store.levels_of_product(self.connection, product_id, one.reached, _SUBSCRIPTIONS)
        world = await self._world({level.subscription_id for level in page})
        world.streams = {**world.streams, **self.streams}
        told = Announcement()
        for level in page:
            fact = _fact_of(one, level, self.log.at)
            deciding.compare(told, level.subscription_id, fact, world)
            told.expansions.append(
                Expansion(level.subscription_id, None, one.source, one.operation_id, of_product=True)
            )
        await self._keep(told)
        if len(page) < _SUBSCRIPTIONS:
            return True
        await store.advance(self.connection, one.number, page[-1].subscription_id)
        return False

    async def _judge(self, asked: Sequence[Judgement]) -> None:
        changes = await store.judge(self.connection, asked)
        if not changes:
            return
        await store.keep_access(self.connection, changes)
        for change in changes:
            cause = asked[change.number - 1]
            envelope = cause.subscription_id
            if cause.of_product:
                envelope = change.subscription_id or change.former_subscription_id or envelope
            data: JsonObject = {
                "product_id": change.product_id,
                "has_access": change.has_access,
                "via": change.via,
                "role": change.role,
                "subscription_id": change.subscription_id,
                "revision": change.revision,
            }
            self.drafts.append(
                Draft(
                    "access.changed",
                    envelope,
                    change.customer_id,
                    cause.source,
                    cause.operation_id,
                    self.log.at,
                    data,
                )
            )

    async def _write(self) -> None:
        """Give the drafts their numbers and write them. Before the log is open they are dropped."""
        if self.log.opened and self.drafts:
            await self._number()
        await store.keep_streams(self.connection, self.streams)

    async def _number(self) -> None:
        wanted = {draft.subscription_id for draft in self.drafts if draft.subscription_id is not None}
        known = await store.streams(self.connection, wanted - self.streams.keys())
        self.streams = {**known, **self.streams}
        seats = await self._seats()
        position, rows = self.log.position, []
        for draft in self.drafts:
            position += 1
            row: JsonObject = {
                "position": position,
                "id": f"evt_{token_hex(12)}",
                "type": draft.type,
                "created": draft.at.isoformat(),
                "subscription_id": draft.subscription_id,
                "customer_id": draft.customer_id,
                "data": _data(draft, seats),
            }
            if draft.subscription_id is not None:
                stream = self.streams.get(draft.subscription_id, Stream())
                row["previous_sequence"] = stream.sequence or None
                row["sequence"] = max(stream.sequence, self.log.sequence_floor) + 1
                self.streams[draft.subscription_id] = replace(stream, sequence=row["sequence"])
            rows.append(row)
        await store.write(self.connection, rows)
        await store.keep_log(self.connection, position=position)

    async def _seats(self) -> dict[str | None, Seats]:
        """Return the seats, as they are now, of the subscriptions whose number of seats is told."""
        told = {one.subscription_id for one in self.drafts if one.type == "seats.changed"} - {None}
        if not told:
            return {}
        views = await subscriptions.subscription_views(self.connection, {str(one) for one in told})
        return {one: view.seats(owner_uses_seat=self.rules.owner_uses_seat) for one, view in views.items()}


def _data(draft: Draft, seats: Mapping[str | None, Seats]) -> JsonObject:
    """Return the data of an event. Of seats it has the total as it is told, and what is used and reserved now."""
    data = draft.data
    if draft.type == "seats.changed":
        now = seats.get(draft.subscription_id, Seats(0, 0, 0))
        data = {**now._replace(total=data["total"]).as_members(), "previous_total": data["previous_total"]}
    return {**data, "source": draft.source, "operation_id": draft.operation_id}


def _fact_of(one: OpenExpansion, level: Level, at: datetime) -> Fact:
    """Return the fact as which a product's change reaches one of its subscriptions."""
    return Fact(
        0,
        deciding.OWNER,
        level.subscription_id,
        None,
        one.product_id,
        one.source,
        one.operation_id,
        {},
        at,
    )
