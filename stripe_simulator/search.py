"""Stripe's search: a small query language over an index that runs behind the objects."""

import re
import time
from typing import Any

from .call import Call
from .errors import refused
from .listing import limit_of
from .objects import Obj
from .wire import wire
from .world import World

DEFAULT_DELAY_SECONDS = 2.0

_CLAUSE = re.compile(
    r"""\s*(?P<not>-)?(?P<field>[a-z_]+)(?:\[(?P<quote>["'])(?P<key>.*?)(?P=quote)\])?\s*
        (?P<op>:|~|>=|<=|>|<)\s*(?:"(?P<dq>(?:[^"\\]|\\.)*)"|'(?P<sq>(?:[^'\\]|\\.)*)'|(?P<bare>[^\s]+))\s*""",
    re.VERBOSE,
)
_JOINER = re.compile(r"(AND|OR)\b\s*", re.IGNORECASE)


def _parse(query: str) -> tuple[list[dict[str, Any]], str]:
    clauses: list[dict[str, Any]] = []
    joiners: set[str] = set()
    position = 0
    while position < len(query):
        match = _CLAUSE.match(query, position)
        if match is None:
            raise refused("We were unable to parse your search query.", "query")
        clauses.append(match.groupdict())
        position = match.end()
        joiner = _JOINER.match(query, position)
        if joiner is not None:
            joiners.add(joiner.group(1).upper())
            position = joiner.end()
        elif position < len(query):
            joiners.add("AND")
    if not clauses or len(joiners) > 1:
        raise refused("We were unable to parse your search query. You cannot combine AND and OR.", "query")
    return clauses, joiners.pop() if joiners else "AND"


def _holds(obj: Obj, clause: dict[str, Any]) -> bool:
    value = obj.get(clause["field"])
    if clause["key"] is not None:
        value = value.get(clause["key"]) if isinstance(value, dict) else None
    wanted = next(text for text in (clause["dq"], clause["sq"], clause["bare"]) if text is not None)
    wanted = re.sub(r"\\(.)", r"\1", wanted)
    if wanted == "null":
        result = value is None
    elif value is None:
        result = False
    elif clause["op"] == ":":
        result = str(value).lower() == wanted.lower()
    elif clause["op"] == "~":
        result = wanted.lower() in str(value).lower()
    else:
        left, right = float(value), float(wanted)
        result = {">": left > right, "<": left < right, ">=": left >= right, "<=": left <= right}[
            clause["op"]
        ]
    return result != bool(clause["not"])


def _indexed(world: World, obj: Obj, horizon: float) -> Obj | None:
    """The last state that the index has seen by now."""
    for number in reversed(world.versions_of.get(obj["id"], [])):
        version = world.versions[number]
        if version.wall <= horizon:
            return version.state
    return None


def search(call: Call, kind: str, url: str) -> Obj:
    """Matches newest first; ``page`` is the cursor of the answer before."""
    world, params = call.tx.world, call.params
    clauses, joiner = _parse(params["query"])
    horizon = time.time() - float(world.settings.get("search_delay_s", DEFAULT_DELAY_SECONDS))
    every = all if joiner == "AND" else any
    limit = limit_of(params)
    offset = int(params.get("page") or 0) if str(params.get("page") or "0").isdigit() else -1
    if offset < 0:
        raise refused("Invalid page token.", "page")
    collection = world.collection(kind)
    matches = []
    for identifier in reversed(collection.order):
        state = _indexed(world, {"id": identifier}, horizon)
        if (
            state is not None
            and not state.get("deleted")
            and every(_holds(state, clause) for clause in clauses)
        ):
            matches.append(state)
    rows = matches[offset : offset + limit]
    more = len(matches) > offset + limit
    return {
        "object": "search_result",
        "data": [wire(call.tx, row) for row in rows],
        "has_more": more,
        "next_page": str(offset + limit) if more else None,
        "url": url,
    }
