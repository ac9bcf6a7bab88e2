"""A share of the orders of people; all of them are `python -m verification.people`, see verification/README.md."""

import pytest

from verification.people.defects import DEFECTS
from verification.people.playing import judged
from verification.planting import in_place

SEEDS = [f"test/{number}" for number in range(15)]
NOTICED_BY = {
    "a seat never moves": SEEDS,
    "an unverified address receives seats": SEEDS,
    "additions take the last candidate": ["20261127/4", "20261127/28"],
}
"""Orders that notice a planted defect. Somebody has two customers in the last two."""


@pytest.mark.timeout(300)
async def test_random_orders_bring_every_person_to_their_seats(
    database_url: str, stripe_simulator: str
) -> None:
    assert await judged(database_url, stripe_simulator, SEEDS, None) == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", NOTICED_BY)
async def test_random_orders_notice_a_planted_defect(
    database_url: str, stripe_simulator: str, name: str
) -> None:
    """P1: seats that do not reach their person, or that reach somebody else."""
    with in_place(DEFECTS[name].changes()):
        found = await judged(database_url, stripe_simulator, NOTICED_BY[name], DEFECTS[name].breaks)
    assert [verdict.split()[1] in DEFECTS[name].breaks for verdict in found][-1:] == [True]
