"""Two hundred seeded schedules (`verification.simulation`): no invariant breaks."""

import asyncio

import pytest

from verification.simulation import held_database
from verification.simulation.schedules import play, seeds_of

SEED = "20261122"
SCHEDULES = 200
AT_ONCE = 20


@pytest.mark.parametrize("first", range(0, SCHEDULES, AT_ONCE))
def test_schedules_keep_every_invariant(database_url: str, first: int) -> None:
    asyncio.run(held_database.install(database_url))
    outcomes = play(database_url, seeds_of(SEED, SCHEDULES)[first : first + AT_ONCE])
    assert [f"{one.seed} {verdict}" for one in outcomes for verdict in one.verdicts] == []
    assert min(one.steps for one in outcomes) >= 30
    assert min(one.actors for one in outcomes) >= 4
    assert sum(one.faults > 0 for one in outcomes) >= 0.8 * AT_ONCE
