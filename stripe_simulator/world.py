"""One account's world: versioned objects with their indexes, events, idempotency records, and transactions over them.

Stored objects are never changed in place: an update stores a new dictionary, so versions, events and list pages can
share structure. Keys that begin with an underscore are the simulator's own and never leave it.
"""

import heapq
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from . import API_VERSION
from .clock import Clock
from .errors import no_such
from .history import EventRecord, Version
from .identifiers import LENGTHS, account_seed, token
from .journal import Journal
from .objects import Obj
from .schedule import due

INDEXED: dict[str, tuple[str, ...]] = {
    "customer": ("email",),
    "price": ("product", "lookup_key"),
    "subscription": ("customer",),
    "payment_method": ("customer",),
    "tax_id": ("customer",),
    "invoice": ("customer", "_subscription"),
    "invoiceitem": ("customer",),
    "setup_intent": ("customer",),
    "invoice_payment": ("invoice",),
    "charge": ("customer", "payment_intent"),
    "refund": ("charge",),
    "dispute": ("charge",),
    "credit_note": ("invoice",),
    "customer_balance_transaction": ("customer",),
    "discount": ("customer",),
    "promotion_code": ("_code",),
    "billing.meter_event": ("_stream", "identifier"),
    "billing.meter": ("event_name",),
}
CLOCKED = ("subscription", "invoice", "payment_intent", "subscription_schedule")
"""Kinds of objects that change by themselves as time passes."""

REQUEST_LOG_SIZE = 200_000
KEY_LIFETIME_SECONDS = 86_400
PREVIEWS_KEPT = 100


@dataclass(slots=True)
class Stored:
    """The remembered first answer to an idempotency key; ``at`` is the account's time."""

    fingerprint: str
    status: int
    body: bytes
    request_id: str
    at: float


def created_of(obj: Obj) -> int:
    """Seconds since the epoch; invoice items and discounts call it by other names."""
    return int(obj.get("created") or obj.get("date") or obj.get("start") or 0)


class Collection:
    """The objects of one kind in order of creation, so that a list page costs what it returns."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.objects: dict[str, Obj] = {}
        self.order: list[str] = []
        self.position: dict[str, int] = {}
        self.created: list[int] = []
        self.in_time_order = True
        self.indexes: dict[str, dict[Any, list[str]]] = {name: {} for name in INDEXED.get(kind, ())}

    def put(self, obj: Obj) -> None:
        identifier = obj["id"]
        previous = self.objects.get(identifier)
        if identifier not in self.position:
            created = created_of(obj)
            if self.created and created < self.created[-1]:
                self.in_time_order = False
            self.position[identifier] = len(self.order)
            self.order.append(identifier)
            self.created.append(created)
        self.objects[identifier] = obj
        for name, index in self.indexes.items():
            value = obj.get(name)
            if value is not None and (previous is None or previous.get(name) != value):
                index.setdefault(value, []).append(identifier)

    def remove(self, identifier: str) -> None:
        self.objects.pop(identifier, None)

    def find(self, name: str, value: Any) -> list[str]:
        """Ids of the objects whose indexed field has the value, in order of creation."""
        ids = set(self.indexes[name].get(value, ()))
        return sorted(
            (key for key in ids if (obj := self.objects.get(key)) is not None and obj.get(name) == value),
            key=self.position.__getitem__,
        )


@dataclass(slots=True)
class RequestEntry:
    """One line of the request log; times are real, in seconds."""

    id: str
    method: str
    path: str
    params: Obj
    idempotency_key: str | None
    actor: str
    started: float
    status: int | None = None
    ended: float | None = None
    replayed: bool = False
    first_version: int | None = None
    last_version: int | None = None

    def dump(self) -> Obj:
        return {name: getattr(self, name) for name in self.__slots__}


class World:
    def __init__(self, api_key: str, journal: Journal) -> None:
        self.api_key = api_key
        self.journal = journal
        self.seed = account_seed(api_key)
        self.account_id = "acct_" + token(self.seed, 0, 16)
        self.clock = Clock()
        self.random = random.Random(self.seed)
        self.settings: Obj = {}
        self.started = int(time.time())
        self.reset()

    def reset(self) -> None:
        """An empty account; ids go on from where they were, so that none is ever used twice."""
        self.collections: dict[str, Collection] = {}
        self.item_parents: dict[str, str] = {}
        self.versions: list[Version] = []
        self.versions_of: dict[str, list[int]] = {}
        self.events: list[EventRecord] = []
        self.event_position: dict[str, int] = {}
        self.stored: dict[str, Stored] = {}
        self.in_flight: set[str] = set()
        self.requests: deque[RequestEntry] = deque(maxlen=REQUEST_LOG_SIZE)
        self.counter: int = getattr(self, "counter", 0)
        self._due: list[tuple[int, str, str]] = []
        self.previews: dict[str, list[Obj]] = {}

    def keep_preview(self, identifier: str, lines: list[Obj]) -> None:
        """The lines of the latest previews can be paged; the journal knows nothing of them."""
        self.previews[identifier] = lines
        while len(self.previews) > PREVIEWS_KEPT:
            del self.previews[next(iter(self.previews))]

    def take_due(self) -> tuple[int, str, str]:
        """Takes the earliest noted moment off the list; the object may have changed since."""
        return heapq.heappop(self._due)

    def earliest_due(self) -> int | None:
        return self._due[0][0] if self._due else None

    def collection(self, kind: str) -> Collection:
        found = self.collections.get(kind)
        if found is None:
            found = self.collections[kind] = Collection(kind)
        return found

    def get(self, kind: str, identifier: str) -> Obj | None:
        found = self.collections.get(kind)
        return found.objects.get(identifier) if found is not None else None

    def new_id(self, prefix: str) -> str:
        self.counter += 1
        length = LENGTHS[prefix]
        body = token(self.seed, self.counter, length if length < 20 else length - 1)
        return prefix + (body if length < 20 else "1" + body)

    def apply(self, entry: Obj) -> list[EventRecord]:
        """Takes one transaction's journal entry into memory, when it is made and again at replay."""
        actor = entry["actor"]
        self.counter = max(self.counter, entry["counter"])
        for change in entry["changes"]:
            kind, identifier, state = change
            self._apply_change(kind, identifier, state, actor, entry["at"], entry["wall"])
        records = []
        for event, waiting in entry["events"]:
            record = EventRecord(event, set(waiting))
            self.event_position[event["id"]] = len(self.events)
            self.events.append(record)
            records.append(record)
        key = entry.get("key")
        if key is not None:
            self.stored[key["key"]] = Stored(
                key["fingerprint"], key["status"], key["body"].encode(), key["request_id"], entry["at"]
            )
        return records

    def _apply_change(
        self, kind: str, identifier: str, state: Obj | None, actor: Obj, at: float, wall: float
    ) -> None:
        number = len(self.versions) + 1
        self.versions.append(Version(number, kind, identifier, actor, at, wall, state))
        own = self.versions_of.setdefault(identifier, [])
        if own:
            self.versions[own[-1]].supersede()
        own.append(number - 1)
        collection = self.collection(kind)
        if state is None:
            collection.remove(identifier)
            return
        collection.put(state)
        if kind == "subscription":
            for item in state["_items"]:
                self.item_parents[item["id"]] = identifier
        if kind in CLOCKED and (moment := due(state)) is not None:
            heapq.heappush(self._due, (moment, kind, identifier))

    def remembered(self, key: str) -> Stored | None:
        """The answer stored under an idempotency key, until it is a day old."""
        stored = self.stored.get(key)
        if stored is not None and self.clock.now() - stored.at > KEY_LIFETIME_SECONDS:
            del self.stored[key]
            return None
        return stored

    def event(self, identifier: str) -> EventRecord | None:
        position = self.event_position.get(identifier)
        return None if position is None else self.events[position]


class Transaction:
    """Changes that take effect together or not at all; reads see the transaction's own writes."""

    def __init__(self, world: World, actor: Obj) -> None:
        self.world = world
        self.actor = actor
        self.at = world.clock.now()
        self.now = int(self.at)
        self.changes: dict[tuple[str, str], Obj | None] = {}
        self.events: list[tuple[Obj, list[str]]] = []
        self.after_commit: list[Callable[[], None]] = []

    def get(self, kind: str, identifier: str | None) -> Obj | None:
        if not identifier:
            return None
        key = (kind, identifier)
        if key in self.changes:
            return self.changes[key]
        return self.world.get(kind, identifier)

    def need(self, kind: str, identifier: str | None, param: str = "id", status: int = 404) -> Obj:
        """The live object; a missing or deleted one raises Stripe's ``resource_missing``."""
        found = self.get(kind, identifier)
        if found is None or found.get("deleted"):
            raise no_such(kind, identifier or "", param, status)
        return found

    def find(self, kind: str, name: str, value: Any) -> list[Obj]:
        """Objects by an indexed field, oldest first."""
        ids = self.world.collection(kind).find(name, value)
        known = set(ids)
        ids += [key[1] for key, state in self.changes.items() if key[0] == kind and key[1] not in known]
        found = (self.get(kind, identifier) for identifier in ids)
        return [obj for obj in found if obj is not None and obj.get(name) == value and not obj.get("deleted")]

    def all(self, kind: str) -> Iterator[Obj]:
        for identifier in self.world.collection(kind).order:
            obj = self.get(kind, identifier)
            if obj is not None and not obj.get("deleted"):
                yield obj

    def new_id(self, prefix: str) -> str:
        return self.world.new_id(prefix)

    def store(self, kind: str, obj: Obj) -> Obj:
        self.changes[(kind, obj["id"])] = obj
        if kind == "subscription":
            for item in obj["_items"]:
                self.world.item_parents[item["id"]] = obj["id"]
        return obj

    def remove(self, kind: str, identifier: str) -> None:
        self.changes[(kind, identifier)] = None

    def emit(self, event_type: str, obj: Obj, previous: Obj | None = None) -> None:
        """Records an event about the wire form ``obj``; who receives it is settled now, as at Stripe."""
        data: Obj = {"object": obj}
        if previous is not None:
            data["previous_attributes"] = previous
        endpoints = [
            endpoint["id"]
            for endpoint in self.all("webhook_endpoint")
            if endpoint["status"] == "enabled" and _wants(endpoint["enabled_events"], event_type)
        ]
        lag = float(self.world.settings.get("created_lag_s") or 0.0)
        if lag and self.world.settings.get("lag_jitter", True):
            lag = self.world.random.uniform(0.0, lag)
        event = {
            "id": self.new_id("evt_"),
            "object": "event",
            "api_version": API_VERSION,
            "created": int(self.at - lag),
            "data": data,
            "livemode": False,
            "pending_webhooks": len(endpoints),
            "request": {
                "id": self.actor.get("request"),
                "idempotency_key": self.actor.get("idempotency_key"),
            },
            "type": event_type,
        }
        self.events.append((event, endpoints))

    def commit(self, key: Obj | None = None) -> list[EventRecord]:
        """Journals and applies the changes; ``key`` is the idempotency record of the answer they led to."""
        if not self.changes and not self.events and key is None:
            return []
        entry: Obj = {
            "account": self.world.api_key,
            "actor": self.actor,
            "at": self.at,
            "wall": time.time(),
            "counter": self.world.counter,
            "changes": [[kind, identifier, state] for (kind, identifier), state in self.changes.items()],
            "events": self.events,
        }
        if key is not None:
            entry["key"] = key
        self.world.journal.append(entry)
        return self.world.apply(entry)


def _wants(enabled: Iterable[str], event_type: str) -> bool:
    return any(pattern in ("*", event_type) for pattern in enabled)


@dataclass(slots=True)
class Worlds:
    """Every account that a key has named so far."""

    journal: Journal
    by_key: dict[str, World] = field(default_factory=dict)

    def of(self, api_key: str) -> World:
        world = self.by_key.get(api_key)
        if world is None:
            world = self.by_key[api_key] = World(api_key, self.journal)
        return world

    def replay(self) -> None:
        for entry in self.journal.replay():
            world = self.of(entry["account"])
            if "changes" in entry:
                world.apply(entry)
            elif "clock" in entry:
                world.clock.restore(entry["clock"])
            elif "delivered" in entry:
                event_id, endpoint_id, failed = entry["delivered"]
                record = world.event(event_id)
                if record is not None:
                    record.settle(endpoint_id, failed=failed)
            elif "settings" in entry:
                world.settings = entry["settings"]
            elif "reset" in entry:
                world.reset()
                world.settings = {}
        self.journal.open()
