"""The operationId of a route, by the name of its function."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=256)
def operation_id(name: str) -> str:
    """Return the operationId of the route function `name`.

    `get_shared_subscription` becomes `getSharedSubscription`.
    """
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
