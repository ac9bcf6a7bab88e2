"""Read single fields of Stripe's JSON, which is untrusted: a wrong type raises MalformedObject.

The functions take an object and a key. They return None for a missing key unless their docstring says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeGuard

from app.domain.ids import is_free_id
from app.domain.metadata import REPLACED
from app.domain.snapshots import (
    JsonObject,
)

Json = Mapping[str, Any]


_LARGEST = 2**63 - 1
LATEST_INSTANT = 253_402_300_799
"""The last Unix second of the year 9999. A later one is probably in milliseconds, and has no date."""


_NOT_STORABLE = re.compile(r"[\x00\ud800-\udfff]")


class MalformedObject(ValueError):
    """Raised when an object lacks what its type promises. The message names the field, never its value."""


def is_id(value: object) -> TypeGuard[str]:
    """Return True if `value` can be an id.

    The account's owner may choose the ids of products, so no stricter form holds for all.
    """
    return isinstance(value, str) and is_free_id(value)


def storable(value: str) -> str:
    """Return the text with a mark in place of NUL and of lone surrogates, which PostgreSQL cannot store.

    They are replaced and not removed, so that no text becomes another one that confers something.
    """
    if value.isascii() and "\x00" not in value:
        return value
    return _NOT_STORABLE.sub(REPLACED, value)


def string(source: Json, key: str) -> str | None:
    """Return a text that can be stored."""
    value = source.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise MalformedObject(f"{key} is not a string")
    return storable(value)


def required_string(source: Json, key: str) -> str:
    """Return a text that is neither missing nor empty."""
    value = string(source, key)
    if not value:
        raise MalformedObject(f"{key} is missing")
    return value


def object_id(source: Json) -> str:
    """Return the object's own id, which must not be missing."""
    value = source.get("id")
    if not is_id(value):
        raise MalformedObject("id is not an id")
    return value


def integer(source: Json, key: str) -> int | None:
    """Return a whole number of at most 63 bits."""
    value = source.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _LARGEST:
        raise MalformedObject(f"{key} is not a whole number in range")
    return value


def amount(source: Json, key: str) -> int:
    """Return a whole number, 0 if it is missing."""
    return integer(source, key) or 0


def instant(source: Json, key: str) -> int | None:
    """Return a Unix second in the years 1970 to 9999."""
    value = integer(source, key)
    if value is not None and not 0 <= value <= LATEST_INSTANT:
        raise MalformedObject(f"{key} is not an instant in the years 1970 to 9999")
    return value


def mapping(source: Json, key: str) -> JsonObject | None:
    """Return an object."""
    value = source.get(key)
    if value is None or type(value) is dict:
        return value
    raise MalformedObject(f"{key} is not an object")


def array(source: Json, key: str) -> list[Any]:
    """Return a list, empty if it is missing."""
    value = source.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedObject(f"{key} is not a list")
    return value


def mappings(source: Json, key: str) -> list[Json]:
    """Return a list of objects, empty if it is missing."""
    values = array(source, key)
    if not all(type(value) is dict for value in values):
        raise MalformedObject(f"{key} holds something else than objects")
    return values


def reference(source: Json, key: str) -> str | None:
    """Return an id, or the id of an expanded object."""
    value = source.get(key)
    return string(value, "id") if type(value) is dict else string(source, key)


def metadata_of(source: Json) -> dict[str, str]:
    """Return the object's metadata without values that are no texts, empty if it is missing."""
    values = mapping(source, "metadata") or {}
    return {storable(key): storable(value) for key, value in values.items() if isinstance(value, str)}


def decimal_string(source: Json, key: str) -> str | None:
    """Return a decimal as a text. Stripe sends texts, which the SDK's parser may have converted to Decimal."""
    value = source.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
        raise MalformedObject(f"{key} is not a decimal")
    return storable(str(value))


def scalar(source: Json, key: str) -> str | int | bool | None:
    """Return a text, a whole number, or true or false."""
    value = source.get(key)
    return (
        string(source, key)
        if isinstance(value, str)
        else value
        if isinstance(value, bool)
        else integer(source, key)
    )


def picked(source: Json | None, names: tuple[str, ...]) -> JsonObject | None:
    """Return the plain values of some keys of an object, None without an object."""
    return None if source is None else plain_values(source, names)


def plain_values(source: Json, names: tuple[str, ...]) -> JsonObject:
    """Return the plain values of some keys. They are checked although they are stored as JSON."""
    return {name: (decimal_string if name.endswith("_decimal") else scalar)(source, name) for name in names}
