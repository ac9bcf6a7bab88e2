"""The sync rule under random schedules (`verification.convergence`), and that a broken rule would be noticed."""

import pytest

from verification.convergence.convergence import in_virtual_time, prepare, run
from verification.convergence.defects import DEFECTS

SEED = 20261122
ENOUGH = {"no margin": 300, "deleted revived": 300}
"""Schedules; 120 for the other defects."""


@pytest.fixture
def watched_database_url(database_url: str) -> str:
    in_virtual_time(prepare(database_url))
    return database_url


@pytest.mark.parametrize("seed", range(SEED, SEED + 8))
def test_every_schedule_ends_at_the_truth_and_never_goes_back(watched_database_url: str, seed: int) -> None:
    tally = in_virtual_time(run(watched_database_url, schedules=250, seed=seed))
    assert tally.schedules == 250
    assert tally.is_clean, tally.violations[:10]


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_broken_rule_is_caught(watched_database_url: str, defect: str) -> None:
    schedules = ENOUGH.get(defect, 120)
    tally = in_virtual_time(run(watched_database_url, schedules=schedules, seed=SEED, defect=defect))
    assert tally.violations
