"""Read the log of events, and the state on which it builds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.context import Context
from app.domain.ids import SubscriptionId
from app.domain.seats import is_shareable
from app.domain.snapshots import JsonObject
from app.errors import CursorExpired, FieldError, InvalidRequest, ServiceUnavailable
from app.events import facts as deciding
from app.events.places import place_of, position_of
from app.events.store import announcing, feed
from app.events.store.feed import Bounds, Rank, State, StatePlace
from app.mirror.store import subscriptions
from app.postgres.database import Connection

_OF_SNAPSHOT: Final[JsonObject] = {"source": None, "operation_id": None}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events to read: those of these types, and of this subscription; None for all."""

    types: Sequence[str] | None
    subscription_id: SubscriptionId | None


@dataclass(frozen=True, slots=True)
class SnapshotPlace:
    """A place in the snapshot. `after` is the log's newest position at the first page.

    `state` is None once all states were read, and then `access` counts.
    """

    after: int
    state: StatePlace | None
    access: tuple[str, str] = ("", "")


def named_position(place: str | None, ends: Bounds, *, pointer: str) -> int | None:
    """Return the position that a caller's place names, None without one.

    Raises:
        InvalidRequest: it is no place.
        CursorExpired: events after it were deleted, or the log has never reached it.
    """
    if place is None:
        return None
    position = position_of(place)
    if position is None:
        detail = "It is no place in the log. Send a next_cursor or the id of an event stream as it was given."
        raise InvalidRequest(f"{pointer}: {detail}", errors=[FieldError(pointer, "invalid", detail)])
    if not ends.purged_to <= position <= ends.newest:
        raise CursorExpired()
    return position


async def events(context: Context, after: str | None, wanted: Filter, *, limit: int) -> JsonObject:
    """Return one page of events, oldest first. Without `after` it begins with the oldest that is kept.

    Raises:
        InvalidRequest: `after` is no place.
        CursorExpired: events after it were deleted, or the log has never reached it.
        ServiceUnavailable: the database does not answer.
    """
    async with context.database.reading_snapshot() as connection:
        ends = await feed.bounds(connection)
        begin = named_position(after, ends, pointer="query/after")
        begin = ends.purged_to if begin is None else begin
        found = await feed.page(
            connection,
            after=begin,
            types=wanted.types,
            subscription_id=wanted.subscription_id,
            limit=limit + 1,
        )
        more = len(found) > limit
        found = found[:limit]
        if more:
            reached = found[-1]["position"]
        else:
            looked = await feed.looked_to(connection, after=begin, subscription_id=wanted.subscription_id)
            more, reached = looked is not None, looked or ends.newest
    return {"data": found, "has_more": more, "next_cursor": place_of(reached)}


async def snapshot(
    context: Context, place: SnapshotPlace | None, *, limit: int
) -> tuple[list[JsonObject], SnapshotPlace, bool]:
    """Return up to `limit` rows of the state, the place of the last one, and whether there are more.

    Raises:
        ServiceUnavailable: `not_filled` before the first event, or the database does not answer.
    """
    async with context.database.reading_snapshot() as connection:
        ends = await feed.bounds(connection)
        if not ends.opened:
            raise ServiceUnavailable(
                "The copy of Stripe's objects is not filled yet. Ask again after the event sync.completed.",
                code="not_filled",
                retry_after=5,
            )
        here = place or SnapshotPlace(ends.newest, StatePlace("", -1, ""))
        rows: list[JsonObject] = []
        if here.state is not None:
            found = await feed.states(connection, here.state, limit + 1)
            more = len(found) > limit
            found = found[:limit]
            rows = await _rows(context, connection, found)
            here = SnapshotPlace(here.after, found[-1].place if more else None)
            if more:
                return rows, here, True
        # A page of states is not filled up with accesses, so that each page is of one kind.
        if rows:
            return rows, here, True
        accesses = await feed.accesses(connection, here.access, limit + 1)
    kept = accesses[:limit]
    if kept:
        here = SnapshotPlace(here.after, None, (kept[-1]["customer_id"], kept[-1]["product_id"]))
    return [_access_row(row) for row in kept], here, len(accesses) > limit


async def _rows(context: Context, connection: Connection, found: Sequence[State]) -> list[JsonObject]:
    ids = {state.place.subscription_id for state in found}
    levels = await announcing.levels(connection, ids)
    told = await announcing.streams(connection, ids)
    seats = await _seats(context, connection, found)
    rows = []
    for state in found:
        level = levels[state.place.subscription_id]
        row: JsonObject = {
            "subscription_id": level.subscription_id,
            "customer_id": None,
            "sequence": told[level.subscription_id].sequence,
        }
        match state.place.rank:
            case Rank.STATE:
                row |= {"type": deciding.CHANGED, "data": deciding.shown_state(level.data)}
            case Rank.OWNER:
                owner = {"owner_id": level.owner_id, "previous_owner_id": None}
                row |= {"type": "owner.changed", "customer_id": level.owner_id, "data": owner}
            case Rank.SEATS:
                if level.subscription_id not in seats:
                    continue
                numbers = {**seats[level.subscription_id], "previous_total": None}
                row |= {"type": "seats.changed", "data": numbers}
            case _:
                row |= {
                    "type": "seat.assigned",
                    "customer_id": state.place.customer_id,
                    "data": {"role": state.role},
                }
        rows.append({**row, "data": {**row["data"], **_OF_SNAPSHOT}})
    return rows


async def _seats(
    context: Context, connection: Connection, found: Sequence[State]
) -> dict[str, dict[str, int]]:
    """Return the seats of the subscriptions of which they are shown and which are shared."""
    asked = {state.place.subscription_id for state in found if state.place.rank == Rank.SEATS}
    views = await subscriptions.subscription_views(connection, asked) if asked else {}
    return {
        one: view.seats(owner_uses_seat=context.rules.owner_uses_seat).as_members()
        for one, view in views.items()
        if is_shareable(view.seat_items())
    }


def _access_row(row: JsonObject) -> JsonObject:
    names = ("product_id", "via", "role", "subscription_id", "revision")
    return {
        "type": "access.changed",
        "subscription_id": row["subscription_id"],
        "customer_id": row["customer_id"],
        "sequence": row["sequence"],
        "data": {**{name: row[name] for name in names}, "has_access": True, **_OF_SNAPSHOT},
    }
