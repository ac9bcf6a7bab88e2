"""Name an object of any kind by one text.

Stripe generates ids, and their prefix tells the kind. But the account's owner chooses the ids of products, and chose
those of customers and prices until 2018, so objects of different kinds may have the same id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_SEPARATOR: Final = "\x1f"
"""No id contains a control character."""
_PREFIXES: Final[Mapping[str, tuple[str, ...]]] = {"product": ("prod_",), "price": ("price_", "plan_")}
"""The prefixes of the kinds beside customers whose ids were chosen freely. No customer has an id with one of them."""


def key_of(kind: str, object_id: str) -> str:
    """Return the key of an object: its id, after its kind if the id is that of a product or price and was chosen."""
    prefixes = _PREFIXES.get(kind)
    if prefixes is None or object_id.startswith(prefixes):
        return object_id
    return f"{kind}{_SEPARATOR}{object_id}"


def id_of(kind: str, key: str) -> str:
    """Return the id of the object with this key. A bare id, which older releases have written, is returned as it is."""
    return key.removeprefix(f"{kind}{_SEPARATOR}")


def key_sql(kind: str, column: str) -> str:
    """Return the SQL expression for `key_of` of the id in a column."""
    prefixes = _PREFIXES.get(kind)
    if prefixes is None:
        return column
    generated = " or ".join(f"starts_with({column}, '{prefix}')" for prefix in prefixes)
    return f"case when {generated} then {column} else '{kind}' || chr({ord(_SEPARATOR)}) || {column} end"


def keys_of(object_id: str) -> list[str]:
    """Return the keys that objects of any kind with this id have."""
    return sorted({object_id, *(key_of(kind, object_id) for kind in _PREFIXES)})
