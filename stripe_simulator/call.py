"""One API call as its handler sees it, with the small rules that many resources share."""

from dataclasses import dataclass
from typing import Any

from .errors import invalid, no_such
from .objects import Obj
from .wire import EMBEDDED_LIST_SIZE, changed, subscription, wire
from .world import Transaction

METADATA_KEYS = 50
METADATA_KEY_LENGTH = 40
METADATA_VALUE_LENGTH = 500


@dataclass(slots=True)
class Call:
    """A request; ``lookup`` is where its answer's references are found, if not in the transaction that is kept."""

    tx: Transaction
    params: Obj
    ids: list[str]
    lookup: Transaction | None = None

    @property
    def id(self) -> str:
        return self.ids[0]


def metadata(old: Obj, given: Any) -> Obj:
    """Stripe's merge: ``""`` as a value deletes a key, ``""`` as a whole deletes all; values are not trimmed."""
    if given is None:
        return old
    if given == "":
        return {}
    if not isinstance(given, dict):
        raise invalid("Invalid metadata: metadata must be an object.", "metadata")
    merged = dict(old)
    for key, value in given.items():
        if value == "" or value is None:
            merged.pop(key, None)
            continue
        if len(key) > METADATA_KEY_LENGTH:
            raise invalid(
                f"Metadata keys can have up to {METADATA_KEY_LENGTH} characters, but you passed in a key that is "
                f"{len(key)} characters. Invalid key: {key}",
                f"metadata[{key}]",
            )
        if len(value) > METADATA_VALUE_LENGTH:
            raise invalid(
                f"Metadata values can have up to {METADATA_VALUE_LENGTH} characters, but you passed in a value that is "
                f"{len(value)} characters. Invalid value: {value}",
                f"metadata[{key}]",
            )
        merged[key] = value
    if len(merged) > METADATA_KEYS:
        raise invalid(f"You cannot set more than {METADATA_KEYS} metadata keys.", "metadata")
    return merged


def text(given: Any) -> str | None:
    """A clearable string: ``""`` unsets."""
    return given if given not in ("", None) else None


def create(tx: Transaction, obj: Obj, event: str) -> Obj:
    tx.store(obj["object"], obj)
    shown = wire(tx, obj)
    tx.emit(event, shown)
    return shown


def update(tx: Transaction, old: Obj, new: Obj, event: str) -> Obj:
    """Stores ``new`` and tells of the difference; nothing at all happens when nothing differs."""
    shown_before = wire(tx, old)
    shown = wire(tx, new)
    differences = changed(shown_before, shown)
    if differences or new != old:
        tx.store(new["object"], new)
    if differences or _changed_beyond(tx, old, new):
        tx.emit(event, shown, differences)
    return shown


def _changed_beyond(tx: Transaction, old: Obj, new: Obj) -> bool:
    """Whether a subscription's items differ that are too far down the list to be embedded in the event."""
    if new["object"] != "subscription" or max(len(old["_items"]), len(new["_items"])) <= EMBEDDED_LIST_SIZE:
        return False
    whole = [subscription(tx, sub, len(sub["_items"])) for sub in (old, new)]
    return bool(changed(*whole))


def reference(tx: Transaction, kind: str, identifier: str, param: str) -> Obj:
    """An object named by a parameter rather than by the path: a missing one is HTTP 400."""
    found = tx.get(kind, identifier)
    if found is None or found.get("deleted"):
        raise no_such(kind, identifier, param, 400)
    return found
