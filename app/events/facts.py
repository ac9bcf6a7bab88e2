"""Decide which events the facts of a moment make. It is pure: facts and states in, events and new states out.

A fact says what one transaction has changed. What depends on several rows (the owner, the number of seats) is compared
with what the last event of that subscription said, so that it is right in whatever order the transactions ended. See
docs/decisions/0052-number-events-after-their-transaction.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, NamedTuple

from app.domain.snapshots import JsonObject

STATELESS_KINDS: Final = frozenset(
    {
        *(f"invitation.{what}" for what in ("created", "accepted", "declined", "expired", "revoked")),
        "operation.settled",
    }
)
"""Kinds of which no state in the snapshot tells, so that a consumer learns of them by their event alone."""
SEAT_KINDS: Final = frozenset({"seat.assigned", "seat.role_changed", "seat.released"})
CHANGED: Final = "subscription.changed"
OWNER: Final = "owner"
"""The kind of a fact that says: look at the owner again."""
PRODUCT: Final = "product"
"""The kind of a fact that says: look at the seats of the product's subscriptions again."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What one transaction has changed. `kind` is the type of an event, or `owner` or `product`."""

    number: int
    kind: str
    subscription_id: str | None
    customer_id: str | None
    product_id: str | None
    source: str
    operation_id: str | None
    data: JsonObject
    at: datetime


@dataclass(frozen=True, slots=True)
class Level:
    """A subscription as it is now.

    `owner_id` is None if the customer does not exist. `data` is what `subscription.changed` says of it.
    """

    subscription_id: str
    is_present: bool
    payer_id: str
    owner_id: str | None
    data: JsonObject


@dataclass(frozen=True, slots=True)
class Stream:
    """What the events of a subscription have said. `sequence` is that of its newest event, 0 without one.

    `total` is None if the subscription was never shared.
    """

    sequence: int = 0
    owner_id: str | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """An event that has no number yet. `source` and `operation_id` become part of its data."""

    type: str
    subscription_id: str | None
    customer_id: str | None
    source: str
    operation_id: str | None
    at: datetime
    data: JsonObject


class Judgement(NamedTuple):
    """Whose access is to be judged, because a subscription has changed.

    `of_product`: the cause is a product, and the event belongs to the subscription that gives the access.
    """

    customer_id: str
    subscription_id: str
    source: str
    operation_id: str | None
    of_product: bool = False


class Expansion(NamedTuple):
    """What is to be looked at page by page: the customers of a subscription, or the subscriptions of a product."""

    subscription_id: str | None
    product_id: str | None
    source: str
    operation_id: str | None
    of_product: bool = False


class Member(NamedTuple):
    """A customer whose metadata names a subscription."""

    customer_id: str
    role: str


@dataclass(slots=True)
class World:
    """The state of one moment, as far as the facts concern it.

    `members` holds the members of subscriptions without a stream. `owned` holds, by customer, the subscriptions that
    the customer pays for or owns. `flagged` are the products that give seats.
    """

    levels: Mapping[str, Level]
    streams: Mapping[str, Stream]
    members: Mapping[str, Sequence[Member]]
    owned: Mapping[str, Sequence[str]]
    flagged: frozenset[str]


@dataclass(slots=True)
class Announcement:
    """What the facts make. `streams` holds those that have changed or begun, `born` the latter."""

    drafts: list[Draft] = field(default_factory=list)
    streams: dict[str, Stream] = field(default_factory=dict)
    born: set[str] = field(default_factory=set)
    judgements: list[Judgement] = field(default_factory=list)
    expansions: list[Expansion] = field(default_factory=list)


def instant_text(seconds: float | None) -> str | None:
    """Return a Unix second as RFC 3339."""
    return None if seconds is None else f"{datetime.fromtimestamp(int(seconds), UTC):%Y-%m-%dT%H:%M:%SZ}"


def seat_total(items: Iterable[JsonObject], flagged: frozenset[str]) -> int | None:
    """Return the number of seats that items give, None if none of their products is shared."""
    quantities = [item["quantity"] or 0 for item in items if item["product_id"] in flagged]
    return sum(quantities) if quantities else None


def announce(facts: Sequence[Fact], world: World) -> Announcement:
    """Return what the facts, in their order, make of the world."""
    told = Announcement()
    last: dict[str, Fact] = {}
    for fact in facts:
        if fact.kind == PRODUCT:
            told.expansions.append(
                Expansion(None, fact.product_id, fact.source, fact.operation_id, of_product=True)
            )
        elif fact.kind == OWNER and fact.subscription_id is None:
            last.update(dict.fromkeys(world.owned.get(fact.customer_id or "", ()), fact))
        elif fact.subscription_id is not None:
            _tell(told, fact, fact.subscription_id, world)
            if fact.kind in (CHANGED, OWNER):
                last[fact.subscription_id] = fact
    for subscription_id, fact in last.items():
        compare(told, subscription_id, fact, world)
    return told


def _tell(told: Announcement, fact: Fact, subscription_id: str, world: World) -> None:
    """Tell one fact about a subscription, unless its birth tells it."""
    if subscription_id in told.born:
        if fact.kind == CHANGED or fact.kind in SEAT_KINDS:
            return
    elif subscription_id not in world.streams:
        if fact.kind == CHANGED:
            _bear(told, fact, subscription_id, world)
        return
    if fact.kind == OWNER:
        return
    told.drafts.append(_draft(fact, fact.kind, _shown(fact), fact.customer_id))
    if fact.kind in SEAT_KINDS and fact.customer_id is not None:
        told.judgements.append(Judgement(fact.customer_id, subscription_id, fact.source, fact.operation_id))
    if fact.kind == CHANGED:
        stream = told.streams.get(subscription_id, world.streams.get(subscription_id, Stream()))
        _tell_total(told, subscription_id, stream, fact, seat_total(fact.data["items"], world.flagged))
        if fact.data.get("changes_access"):
            told.expansions.append(Expansion(subscription_id, None, fact.source, fact.operation_id))


def _bear(told: Announcement, fact: Fact, subscription_id: str, world: World) -> None:
    """Tell a subscription that is seen for the first time, with its owner, seats and members as they are now."""
    level = world.levels.get(subscription_id)
    if level is None or not level.is_present:
        return
    told.born.add(subscription_id)
    told.drafts.append(_draft(fact, CHANGED, shown_state(level.data), None))
    owner = {"owner_id": level.owner_id, "previous_owner_id": None}
    told.drafts.append(_draft(fact, "owner.changed", owner, level.owner_id))
    told.streams[subscription_id] = Stream(owner_id=level.owner_id)
    _tell_total(
        told,
        subscription_id,
        told.streams[subscription_id],
        fact,
        seat_total(level.data["items"], world.flagged),
    )
    for member in world.members.get(subscription_id, ()):
        told.drafts.append(_draft(fact, "seat.assigned", {"role": member.role}, member.customer_id))
    told.expansions.append(Expansion(subscription_id, None, fact.source, fact.operation_id))


def compare(told: Announcement, subscription_id: str, fact: Fact, world: World) -> None:
    """Tell the owner and the number of seats if they are not what the last event said."""
    level = world.levels.get(subscription_id)
    stream = told.streams.get(subscription_id, world.streams.get(subscription_id))
    if level is None or stream is None or not level.is_present:
        return
    if level.owner_id != stream.owner_id:
        told.streams[subscription_id] = replace(stream, owner_id=level.owner_id)
        owner = {"owner_id": level.owner_id, "previous_owner_id": stream.owner_id}
        told.drafts.append(
            replace(_draft(fact, "owner.changed", owner, level.owner_id), subscription_id=subscription_id)
        )
        for customer_id in {level.owner_id, stream.owner_id, level.payer_id} - {None}:
            told.judgements.append(
                Judgement(str(customer_id), subscription_id, fact.source, fact.operation_id)
            )
    stream = told.streams.get(subscription_id, stream)
    _tell_total(told, subscription_id, stream, fact, seat_total(level.data["items"], world.flagged))


def _tell_total(
    told: Announcement, subscription_id: str, stream: Stream, fact: Fact, total: int | None
) -> None:
    """Tell the number of seats if it is not what the last event said. The end of sharing is a total of 0."""
    if total is None and stream.total is not None:
        total = 0
    if total == stream.total:
        return
    told.streams[subscription_id] = replace(stream, total=total)
    data = {"total": total, "previous_total": stream.total}
    told.drafts.append(replace(_draft(fact, "seats.changed", data, None), subscription_id=subscription_id))


def _draft(fact: Fact, kind: str, data: JsonObject, customer_id: str | None) -> Draft:
    return Draft(kind, fact.subscription_id, customer_id, fact.source, fact.operation_id, fact.at, data)


def _shown(fact: Fact) -> JsonObject:
    """Return the data of a fact as its event shows it."""
    if fact.kind == CHANGED:
        return shown_state(fact.data)
    if fact.kind.startswith("invitation."):
        return {**fact.data, "expires_at": instant_text(fact.data["expires_at"])}
    return fact.data


def shown_state(data: JsonObject) -> JsonObject:
    """Return a subscription's state as `subscription.changed` shows it."""
    return {
        "status": data["status"],
        "cancel_at": instant_text(data["cancel_at"]),
        "cancel_at_period_end": data["cancel_at_period_end"],
        "ended_at": instant_text(data["ended_at"]),
        "items": data["items"],
    }
