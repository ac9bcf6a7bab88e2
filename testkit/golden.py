"""Golden scenarios: what one test made the service send to Stripe, report, and leave in its tables, normalised.

A change of the write protocol that is meant to keep its behaviour must keep these files. `GOLDEN=write` before pytest
writes them again; the difference then belongs into the commit that made it.
"""

import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from testkit.company import Service

FOLDER = Path(__file__).parents[1] / "tests" / "golden"
_KEY = re.compile(r"(op_[0-9a-f]+)/(\d+)/(\d+)(/\w+)?")
_NAMED = re.compile(
    r"(?P<email>(?i:[a-z-]+(?:\.[a-z-]+)*\.[0-9a-f]{6,}@example\.com))|(?P<kind>op|cus|sub|si|price|prod|pm|in(?!_flight\b)|di)_[0-9A-Za-z]{6,}"
)
_SECOND = re.compile(r"\b1[6-9]\d{8}\b")

_OPERATIONS = """select id, kind, state, subscription_id, seat_total from operations
    where created_at >= $1 order by created_at, id"""
_STEPS = """select position, action, role, customer_id, email, state, code, attempt,
        sent_at is not null as has_sent_key, unanswered_at is not null as has_unanswered
    from operation_steps where operation_id = $1 order by position"""
_RESERVATIONS = """select position, customer_id, email, released_at is not null as is_released
    from reservations where operation_id = $1 order by position"""


class _Names:
    """Replace what differs from run to run by the order in which it is first met."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def text(self, found: str) -> str:
        return _SECOND.sub("<second>", _NAMED.sub(self._name, found))

    def _name(self, match: re.Match[str]) -> str:
        kind, found = ("email", match[0].lower()) if match["email"] else (match["kind"], match[0])
        if found not in self._known:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._known[found] = f"<{kind} {self._counts[kind]}>"
        return self._known[found]

    def of(self, value: Any) -> Any:
        match value:
            case str():
                return self.text(value)
            case dict():
                return {name: self.of(inner) for name, inner in value.items()}
            case list():
                return [self.of(inner) for inner in value]
            case _:
                return value


@asynccontextmanager
async def golden(service: Service, request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Compare what the test does with its golden file, or write that file."""
    before = len(await service.stripe.requests())
    [now] = await service.fetch("select clock_timestamp() as at")
    yield
    requests = (await service.stripe.requests())[before:]
    found = json.dumps(await _scenario(service, requests, now["at"]), indent=1, sort_keys=True) + "\n"
    slug = re.sub(r"[^\w-]+", "_", request.node.name).strip("_")
    path = FOLDER / request.node.path.stem.removeprefix("test_") / f"{slug}.json"
    if os.environ.get("GOLDEN") == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found)
    assert path.read_text() == found, f"{path.name} is not what the test does now"


async def _scenario(service: Service, requests: list[Any], since: Any) -> list[Any]:
    names = _Names()
    found = []
    for operation in await service.fetch(_OPERATIONS, since):
        operation_id = operation["id"]
        told = {
            **{name: value for name, value in dict(operation).items() if name != "id"},
            "steps": [dict(row) for row in await service.fetch(_STEPS, operation_id)],
            "reservations": [dict(row) for row in await service.fetch(_RESERVATIONS, operation_id)],
            "requests": _requests_of(operation_id, requests),
        }
        found.append(names.of(told))
    return found


def _requests_of(operation_id: str, requests: list[Any]) -> dict[str, list[Any]]:
    """Return the requests of each step with the attempt in their key; repetitions with the same answer are one."""
    found: dict[str, list[Any]] = {}
    for entry in requests:
        match = _KEY.fullmatch(entry["idempotency_key"] or "")
        if match is None or match[1] != operation_id:
            continue
        told = {
            "attempt": int(match[3]),
            "key_suffix": match[4] or "",
            "method": entry["method"],
            "path": entry["path"],
            "params": {name: value for name, value in entry["params"].items() if name != "expand"},
            "status": entry["status"],
            "is_replay": entry["replayed"],
        }
        of_step = found.setdefault(match[2], [])
        if not of_step or of_step[-1] != told:
            of_step.append(told)
    return found
