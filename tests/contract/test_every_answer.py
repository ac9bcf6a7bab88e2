"""Every success that the OpenAPI document declares is given over HTTP, and is as declared; every pair has a case."""

import httpx
import pytest

from tests.contract.cases import exercised
from tests.contract.declared import breaches, pairs
from tests.contract.judging import judge
from tests.contract.world import World

SUCCESSES = sorted(pair for pair in pairs() if pair[1] < httpx.codes.BAD_REQUEST)


def test_every_declared_answer_has_a_case_and_every_case_is_declared() -> None:
    assert exercised() == set(pairs())


def test_the_judge_is_not_blind() -> None:
    reference = {"$ref": "#/components/schemas/Seats"}
    seats = {"total": 5, "used": 2, "reserved": 0, "available": 3, "over_allocated": 0}
    assert breaches(reference, seats) == []
    assert breaches(reference, {**seats, "total": "5"}) and breaches(reference, {"total": 5})
    instant = {"type": "string", "format": "date-time"}
    assert breaches(instant, "2026-01-15T12:00:00Z") == []
    assert breaches(instant, "2026-01-15 noon") and breaches(instant, "2026-01-15T12:00:00")


@pytest.mark.parametrize(("operation", "status"), SUCCESSES, ids=[f"{n}-{s}" for n, s in SUCCESSES])
async def test_the_answer_is_as_declared(world: World, operation: str, status: int) -> None:
    await judge(world, operation, status)
