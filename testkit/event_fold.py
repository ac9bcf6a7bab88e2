"""Fold events into the state that they promise, and read the same state from the database."""

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.domain.statuses import OPEN
from app.mirror.store.access import best_access
from app.postgres.database import Connection

Json = Mapping[str, Any]


@dataclass
class Folded:
    """What a consumer knows. Seats and access without an entry are none."""

    seats: dict[tuple[str, str], str] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    owners: dict[str, str | None] = field(default_factory=dict)
    statuses: dict[str, str] = field(default_factory=dict)
    access: dict[tuple[str, str], tuple[str, str, str]] = field(default_factory=dict)
    revisions: dict[tuple[str, str], int] = field(default_factory=dict)
    sequences: dict[str, int] = field(default_factory=dict)
    gaps: list[str] = field(default_factory=list)

    def take(self, event: Json) -> None:
        """Take in one event of the feed, or one row of the snapshot."""
        self.count(event)
        self.apply(event)

    def count(self, event: Json) -> None:
        """Note a gap before an event."""
        subscription_id = event["subscription_id"]
        if "id" not in event or subscription_id is None:
            return
        before = self.sequences.get(subscription_id)
        if before is not None and event["previous_sequence"] != before:
            self.gaps.append(f"{subscription_id}: {event['sequence']} after {before}")
        self.sequences[subscription_id] = event["sequence"]

    def apply(self, event: Json) -> None:
        """Take in what an event says, without a look at its number."""
        subscription_id, customer_id, data = event["subscription_id"], event["customer_id"], event["data"]
        match event["type"]:
            case "seat.assigned" | "seat.role_changed":
                self.seats[subscription_id, customer_id] = data["role"]
            case "seat.released":
                self.seats.pop((subscription_id, customer_id), None)
            case "seats.changed":
                self.totals[subscription_id] = data["total"]
            case "owner.changed":
                self.owners[subscription_id] = data["owner_id"]
            case "subscription.changed":
                self.statuses[subscription_id] = data["status"]
            case "access.changed":
                self._take_access((customer_id, data["product_id"]), data)

    def _take_access(self, key: tuple[str, str], data: Json) -> None:
        if data["revision"] <= self.revisions.get(key, 0):
            return
        self.revisions[key] = data["revision"]
        if data["has_access"]:
            self.access[key] = (data["via"], data["role"], data["subscription_id"])
        else:
            self.access.pop(key, None)

    def state(self) -> dict[str, Any]:
        """Return what is compared with the truth."""
        return {
            "seats": self.seats,
            "totals": {one: total for one, total in self.totals.items() if total},
            "owners": {one: owner for one, owner in self.owners.items() if owner is not None},
            "statuses": self.statuses,
            "access": self.access,
        }


@dataclass
class Beginner:
    """A consumer that begins with the snapshot. It drops later events that a row of the snapshot contains already."""

    state: Folded = field(default_factory=Folded)
    rows: int = 0
    _contained: dict[tuple[str, str | None, str | None], int] = field(default_factory=dict)

    def take_row(self, row: Json) -> None:
        """Take in one row of the snapshot."""
        self.rows += 1
        self.state.take(row)
        # An access is told by its revision, so the sequence counts for the other rows.
        if row["type"] != "access.changed":
            self._contained[_concern(row)] = row["sequence"]

    def take(self, event: Json) -> None:
        """Take in one event after the place that the snapshot has named."""
        self.state.count(event)
        if event["sequence"] is None or event["sequence"] > self._contained.get(_concern(event), 0):
            self.state.apply(event)


def _concern(event: Json) -> tuple[str, str | None, str | None]:
    kind = event["type"].partition(".")[0]
    return kind, event["subscription_id"], event["customer_id"] if kind == "seat" else None


def folded(events: Iterable[Json]) -> Folded:
    """Fold events in their order."""
    state = Folded()
    for event in events:
        state.take(event)
    return state


Ask = Callable[..., Awaitable[list[Any]]]
"""Run a query with its values, and return the rows."""


async def written_events(connection: Connection) -> list[dict[str, Any]]:
    """Return every event in the order of the log."""
    return await _events(connection.fetch)


async def _events(ask: Ask) -> list[dict[str, Any]]:
    rows = [dict(row) for row in await ask("select * from events where position > $1 order by position", 0)]
    for row in rows:
        # A connection of the harness has no codec for JSON.
        row["data"] = json.loads(row["data"]) if isinstance(row["data"], str) else row["data"]
    return rows


def begun(known: Mapping[str, Any]) -> Folded:
    """Return the fold of no event onto a state that is `known`."""
    copied = {name: dict(value) for name, value in known.items()}
    return Folded(copied["seats"], copied["totals"], copied["owners"], copied["statuses"], copied["access"])


async def event_mismatches(ask: Ask, known: Mapping[str, Any]) -> list[str]:
    """Say where the events, folded onto the state `known` at the end of the fill, are not the state of the copy."""
    state = begun(known)
    for event in await _events(ask):
        state.take(event)
    return [f"events: {one}" for one in mismatches(state, await state_now(ask))]


def mismatches(state: Folded, expected: Mapping[str, Any]) -> list[str]:
    """Say where a fold is not what is expected, and where its sequences have gaps."""
    found = [f"gap in {gap}" for gap in state.gaps]
    for name, told in state.state().items():
        found += [
            f"{name} {key}: told {told.get(key)}, is {expected[name].get(key)}"
            for key in sorted(told.keys() | expected[name].keys())
            if told.get(key) != expected[name].get(key)
        ]
    return found


async def truth(connection: Connection) -> dict[str, Any]:
    """Return the state that events promise, as the copy has it."""
    return await state_now(connection.fetch)


async def state_now(ask: Ask) -> dict[str, Any]:
    """Return the state that events promise, by a function that runs a query."""
    subscriptions = await ask(
        """select s.id, s.status, o.id as owner_id, coalesce((
            select sum((i ->> 'quantity')::bigint) from jsonb_array_elements(s.items) i
            join products p on p.id = i ->> 'product_id' and p.supports_sharing), 0)::bigint as total
        from subscriptions s
        left join customers o on o.id = coalesce(s.owner_id, s.customer_id) and o.existence = 'present'
        where s.existence = 'present' and $1""",
        True,
    )
    known = {row["id"] for row in subscriptions}
    seats = await ask("select subscription_id, customer_id, role from memberships where $1", True)
    access = await ask(
        f"""select every_customer.id as customer_id, every_product.id as product_id, b.via, b.role, b.id
        from customers every_customer cross join products every_product
        cross join lateral (
            {best_access(customer="every_customer.id", product="every_product.id", open_statuses="$1")}) b
        where b.status = any($1)""",
        list(OPEN),
    )
    return {
        "seats": {
            (row["subscription_id"], row["customer_id"]): row["role"]
            for row in seats
            if row["subscription_id"] in known
        },
        "totals": {row["id"]: row["total"] for row in subscriptions if row["total"]},
        "owners": {row["id"]: row["owner_id"] for row in subscriptions if row["owner_id"] is not None},
        "statuses": {row["id"]: row["status"] for row in subscriptions},
        "access": {
            (row["customer_id"], row["product_id"]): (row["via"], row["role"], row["id"]) for row in access
        },
    }
