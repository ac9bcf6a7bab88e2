"""Stripe's list pages: newest first, two cursors, filters by time of creation."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import Any

from .errors import invalid, no_such
from .objects import Obj
from .request_parameters import whole
from .world import Collection, Transaction, created_of

DEFAULT_LIMIT = 10
MAX_LIMIT = 100


def limit_of(params: Obj) -> int:
    """1 to 100, 10 when not given."""
    limit = whole(params.get("limit", DEFAULT_LIMIT), "limit")
    if limit < 1:
        raise invalid(
            f"This value must be greater than or equal to 1 (it currently is '{limit}').",
            "limit",
            "parameter_invalid_integer",
        )
    if limit > MAX_LIMIT:
        raise invalid(
            f"This value must be less than or equal to 100 (it currently is '{limit}').",
            "limit",
            "parameter_invalid_integer",
        )
    return limit


def time_bounds(given: Any, name: str = "created") -> tuple[float, float]:
    """The inclusive bounds, in whole seconds, that a ``created``-like filter asks for."""
    low, high = float("-inf"), float("inf")
    if given is None:
        return low, high
    if not isinstance(given, dict):
        moment = whole(given, name)
        return moment, moment
    for word, raw in given.items():
        value = whole(raw, f"{name}[{word}]")
        if word == "gt":
            low = max(low, value + 1)
        elif word == "gte":
            low = max(low, value)
        elif word == "lt":
            high = min(high, value - 1)
        elif word == "lte":
            high = min(high, value)
    return low, high


def page(
    tx: Transaction,
    kind: str,
    params: Obj,
    url: str,
    wire: Callable[[Transaction, Obj], Obj],
    *,
    among: list[str] | None = None,
    match: Callable[[Obj], bool] | None = None,
) -> Obj:
    """One page of the objects of a kind (or of the ids ``among``, oldest first) that ``match``."""
    collection = tx.world.collection(kind)
    limit = limit_of(params)
    if params.get("starting_after") and params.get("ending_before"):
        raise invalid(
            "Received both starting_after and ending_before parameters. Please pass in only one.",
            "starting_after",
        )
    low, high = time_bounds(params.get("created"))
    forward = params.get("ending_before")
    found: list[Obj] = []
    for identifier in _walk(collection, among, params, low, high):
        obj = collection.objects.get(identifier)
        if obj is None or obj.get("deleted"):
            continue
        if not low <= created_of(obj) <= high:
            continue
        if match is not None and not match(obj):
            continue
        found.append(obj)
        if len(found) > limit:
            break
    rows = found[:limit]
    if forward:
        rows.reverse()
    return {
        "object": "list",
        "data": [wire(tx, obj) for obj in rows],
        "has_more": len(found) > limit,
        "url": url,
    }


def _walk(
    collection: Collection, among: list[str] | None, params: Obj, low: float, high: float
) -> Iterator[str]:
    """Ids from the cursor on: newest first, or oldest first when the page ends before a cursor."""
    after, before = params.get("starting_after"), params.get("ending_before")
    cursor = after or before
    name = "starting_after" if after else "ending_before"
    if cursor and cursor not in collection.position:
        raise no_such(collection.kind, cursor, name, 400)
    order = collection.order if among is None else among
    if cursor:
        edge = _edge(collection, among, cursor)
        if before:
            start = edge + 1 if edge < len(order) and order[edge] == cursor else edge
            for index in range(start, len(order)):
                yield order[index]
            return
        top = edge
    else:
        top = len(order)
    if among is None and collection.in_time_order:
        if high != float("inf"):
            top = min(top, bisect_right(collection.created, high))
        bottom = bisect_left(collection.created, low) if low != float("-inf") else 0
    else:
        bottom = 0
    for index in range(top - 1, bottom - 1, -1):
        yield order[index]


def _edge(collection: Collection, among: list[str] | None, cursor: str) -> int:
    position = collection.position[cursor]
    if among is None:
        return position
    return bisect_left(among, position, key=collection.position.__getitem__)


def sequence(rows: list[Obj], params: Obj, url: str, kind: str) -> Obj:
    """A page over rows that are already wire forms in list order (items, invoice lines)."""
    limit = limit_of(params)
    ids = [row["id"] for row in rows]
    start, stop, has_more = 0, len(rows), False
    if params.get("starting_after"):
        if params["starting_after"] not in ids:
            raise no_such(kind, params["starting_after"], "starting_after", 400)
        start = ids.index(params["starting_after"]) + 1
    if params.get("ending_before"):
        if params["ending_before"] not in ids:
            raise no_such(kind, params["ending_before"], "ending_before", 400)
        stop = ids.index(params["ending_before"])
        has_more = stop > limit
        start = max(0, stop - limit)
    else:
        has_more = stop - start > limit
        stop = min(stop, start + limit)
    return {"object": "list", "data": rows[start:stop], "has_more": has_more, "url": url}
