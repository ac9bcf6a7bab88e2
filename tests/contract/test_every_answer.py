"""Every answer that the OpenAPI document declares is given over HTTP, and is as declared."""

import httpx
import pytest

from tests.contract.cases import case_of, exercised
from tests.contract.declared import breaches, check, operations, pairs
from tests.contract.world import World


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


@pytest.mark.parametrize(
    ("operation", "status"), sorted(pairs()), ids=[f"{name}-{status}" for name, status in sorted(pairs())]
)
async def test_the_answer_is_as_declared(world: World, operation: str, status: int) -> None:
    case = case_of(operation, status)
    assert case is not None, "say in tests/contract how a caller gets this answer"
    response = await case(world)
    assert response.status_code == status, response.text
    assert response.headers["x-request-id"]
    check(operations()[operation], response)
    if status >= httpx.codes.BAD_REQUEST and operation != "readyz":
        assert response.json()["status"] == status
