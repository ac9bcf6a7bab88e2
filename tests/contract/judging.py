"""One declared answer: asked for over HTTP and held against the document."""

import httpx

from tests.contract.cases import case_of
from tests.contract.declared import check, operations
from tests.contract.world import World


async def judge(world: World, operation: str, status: int) -> None:
    case = case_of(operation, status)
    assert case is not None, "say in tests/contract/cases.py how a caller gets this answer"
    response = await case(world)
    assert response.status_code == status, response.text
    assert response.headers["x-request-id"]
    check(operations()[operation], response)
    if status >= httpx.codes.BAD_REQUEST and operation != "readyz":
        assert response.json()["status"] == status
