"""A Stripe small enough for thousands of schedules a minute: versions, events, and answers with clocks that disagree.

Every change of an object is a version, and the number of the version stands in a field that the cache keeps. Two
stamps of one moment (`created` of an event, the Date of an answer) differ by two seconds at most: the assumption
under which the sync rule holds.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from app.domain.snapshots import Snapshot
from app.errors import ServiceUnavailable, StripeOutcomeUnknown
from app.stripe import parsing
from app.stripe.client import API_VERSION
from app.stripe.gateway import Fetched

Json = dict[str, Any]

CREATED = 1_700_000_000
OLD_API_VERSION = "2024-04-10"
PREFIXES = {"customer": "customer", "subscription": "customer.subscription", "product": "product"}
STALLED_SECONDS = (31.0, 45.0)
"""Longer than a lease: a worker that was stopped with an answer in its hands."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """`lag`: seconds by which `created` may differ from the moment of the write; `date`: by which Date is off."""

    lag: tuple[float, float]
    date: tuple[float, float]

    @classmethod
    def some(cls, rng: random.Random) -> Clocks:
        if rng.random() < 0.5:
            return cls(lag=(-1.5, 0.0), date=(-1.0, 1.0))
        return cls(lag=(0.0, 1.5), date=(-0.5, 1.0))


@dataclass(slots=True)
class StripeObject:
    """One object with its history; a version is the payload, or None once the object is gone."""

    kind: str
    id: str
    rng: random.Random
    clocks: Clocks
    emit: Callable[[StripeObject, Json], None]
    versions: list[Json] = field(default_factory=list)
    ended: bool = False
    created: int = 0
    """Second of its creation; of an id that is used again, that of the object which has it now."""

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def write(self) -> None:
        if not self.ended:
            number = len(self.versions) + 1
            self.created = self.created or math.floor(self.now)
            change = "created" if number == 1 else "updated"
            self._add(_payload(self.kind, self.id, number, self.created), change)

    async def use_id_again(self, pace: tuple[float, float]) -> None:
        """Give the id of a deleted product to a new one, in a later second than the first was created in."""
        await asyncio.sleep(self.rng.uniform(0.5, 12.0))
        self.ended = False
        self.created = max(self.created + 1, math.floor(self.now))
        self._add(_payload(self.kind, self.id, len(self.versions) + 1, self.created), "created")
        for _ in range(self.rng.randint(0, 3)):
            await asyncio.sleep(self.rng.uniform(*pace))
            self.write()

    def end(self) -> None:
        """Deleted, or cancelled; sometimes an update that was on its way is dated after the deletion."""
        if self.ended:
            return
        last = self.versions[-1]
        if self.kind == "subscription":
            number = len(self.versions) + 1
            ended = _payload(self.kind, self.id, number, self.created) | {"status": "canceled"}
        else:
            ended = last | {"deleted": True}
        self.ended = True
        self._add(ended, "deleted", payload=ended if self.kind == "subscription" else last)
        if self.kind == "customer" and self.rng.random() < 0.6:
            self.emit(self, self._event("updated", last, self.now + self.rng.uniform(0.0, 9.0)))

    def _add(self, version: Json, change: str, *, payload: Json | None = None) -> None:
        self.versions.append(version)
        self.emit(self, self._event(change, payload or version, self.now))

    def _event(self, change: str, payload: Json, at: float) -> Json:
        event = {
            "id": f"evt_{self.id}_{self.rng.getrandbits(48):x}",
            "object": "event",
            "type": f"{PREFIXES[self.kind]}.{change}",
            "created": math.floor(at + self.rng.uniform(*self.clocks.lag)),
            "api_version": API_VERSION,
            "livemode": False,
            "data": {"object": payload},
        }
        layout = self.rng.random()
        if layout < 0.06:
            event |= {"api_version": OLD_API_VERSION, "data": {"object": _old_layout(payload)}}
        elif layout < 0.12 and self.kind == "subscription":
            items = {"has_more": True, "data": payload["items"]["data"][:1]}
            event["data"] = {"object": payload | {"items": items}}
        return event

    def seen(self) -> Fetched:
        """What a read at this very moment finds, with the Date that it gets."""
        date = math.floor(self.now + self.rng.uniform(*self.clocks.date))
        snapshot = self.snapshot(len(self.versions))
        return Fetched(None if self.kind == "product" and self.ended else snapshot, date)

    def snapshot(self, number: int) -> Snapshot:
        return parsing.PARSERS[self.kind](self.versions[number - 1])

    async def wait(self) -> None:
        """On the way to Stripe, or back: mostly quick, sometimes slow, once in a while longer than the lease."""
        kind, rng = self.rng.random(), self.rng
        quick = (0.02, 0.4) if kind < 0.7 else (0.5, 4.0)
        slow = (4.0, 12.0) if kind < 0.98 else STALLED_SECONDS
        await asyncio.sleep(rng.uniform(*(quick if kind < 0.93 else slow)))

    async def answer(self, change: Callable[[], None] | None = None) -> Fetched:
        """A read, or a write of ours: effect and answer apart, and a Date that may be long after the reading."""
        await self.wait()
        lost = self.rng.random()
        if lost < 0.03:
            raise _lost(change)
        if change is not None:
            change()
        found = self.seen()
        if self.rng.random() < 0.1:
            gap = self.rng.uniform(0.2, 5.0)
            await asyncio.sleep(gap)
            found = Fetched(found.snapshot, found.at + math.floor(gap) if found.at else 0)
        await self.wait()
        if lost < 0.06:
            raise _lost(change)
        if change is not None and lost < 0.1:
            return Fetched(self.snapshot(1), found.at, stale=True)
        return found


def _lost(change: Callable[[], None] | None) -> ServiceUnavailable:
    return ServiceUnavailable() if change is None else StripeOutcomeUnknown()


class StandIn:
    """The gateway's reads, over the objects that it is told of."""

    def __init__(self) -> None:
        self.objects: dict[str, StripeObject] = {}
        self.fetches = 0

    async def fetch(self, kind: str, object_id: str) -> Fetched:
        self.fetches += 1
        return await self.objects[object_id].answer()

    async def account(self) -> str:
        """Answer whether Stripe is away at all: never here, where single answers are lost."""
        return "acct_bench"


def _payload(kind: str, object_id: str, number: int, created: int) -> Json:
    common = {"id": object_id, "object": kind, "created": created}
    if kind == "subscription":
        items = [_item(object_id, position, number) for position in range(2)]
        embedded = {"has_more": False, "data": items}
        return common | {"customer": "cus_payer", "status": "active", "currency": "usd", "items": embedded}
    if kind == "product":
        return common | {"active": True, "name": f"v{number}", "metadata": {"billing_sellable": "true"}}
    return common | {
        "name": f"v{number}",
        "email": f"v{number}@example.com",
        "metadata": _memberships(number),
    }


def _memberships(number: int) -> dict[str, str]:
    """None, one by the guide's keys, further ones, or both forms for one subscription: another one each version."""
    role = "manager" if number % 3 == 0 else "user"
    guide = {"billing_shared_subscription_id": "sub_m1", "billing_shared_subscription_role": role}
    return (guide if number % 4 in (1, 2) else {}) | (
        {f"billing_sub_m{1 + number % 2}": "user", "billing_sub_m3": role} if number % 4 > 1 else {}
    )


def _item(object_id: str, position: int, number: int) -> Json:
    return {
        "id": f"si_{object_id}_{position}",
        "price": {"id": "price_seat", "product": "prod_team"},
        "quantity": number,
        "current_period_start": CREATED + number,
        "current_period_end": CREATED + number + 1,
    }


def _old_layout(payload: Json) -> Json:
    """Readable, and not what it seems: an older version kept the same facts elsewhere."""
    if payload["object"] != "subscription":
        return payload | {"name": None, "description": payload.get("name")}
    moved = ("current_period_start", "current_period_end")
    items = [
        {name: value for name, value in item.items() if name not in moved}
        for item in payload["items"]["data"]
    ]
    return payload | {"current_period_start": CREATED, "items": {"has_more": False, "data": items}}
