"""Every failure that the OpenAPI document declares is given over HTTP, and is as declared."""

import httpx
import pytest

from tests.contract.declared import pairs
from tests.contract.judging import judge
from tests.contract.world import World

FAILURES = sorted(pair for pair in pairs() if pair[1] >= httpx.codes.BAD_REQUEST)


@pytest.mark.parametrize(("operation", "status"), FAILURES, ids=[f"{n}-{s}" for n, s in FAILURES])
async def test_the_problem_is_as_declared(world: World, operation: str, status: int) -> None:
    await judge(world, operation, status)
