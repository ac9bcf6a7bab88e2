"""Seeded schedules (`verification.simulation`), 200 and then 21 with invitations: no invariant breaks."""

import asyncio

import pytest

from verification.simulation import held_database
from verification.simulation.schedules import play, seeds_of
from verification.simulation.world import INVITATIONS

SEED = "20261122"
SCHEDULES = 200
WITH_INVITATIONS = 20
AT_ONCE = 20
PARTS = [
    *(seeds_of(SEED, SCHEDULES)[first : first + AT_ONCE] for first in range(0, SCHEDULES, AT_ONCE)),
    # In the last one a person is seated while somebody else's seat moves from one customer to another.
    [f"{SEED}{INVITATIONS}{number}" for number in (*range(WITH_INVITATIONS), 232)],
]


@pytest.mark.parametrize("seeds", PARTS, ids=lambda seeds: seeds[0])
def test_schedules_keep_every_invariant(database_url: str, seeds: list[str]) -> None:
    asyncio.run(held_database.install(database_url))
    outcomes = play(database_url, seeds)
    assert [f"{one.seed} {verdict}" for one in outcomes for verdict in one.verdicts] == []
    assert min(one.steps for one in outcomes) >= 30
    assert min(one.actors for one in outcomes) >= 4
    assert sum(one.faults > 0 for one in outcomes) >= 0.8 * AT_ONCE
