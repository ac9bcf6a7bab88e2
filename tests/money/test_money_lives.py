"""A share of the money lives; all of them are `python -m verification.money`, see verification/README.md."""

import pytest

from verification.money.defects import DEFECTS
from verification.money.lives import Outcome, play_all
from verification.planting import in_place

LIVES = 40


async def played(database_url: str, stripe_simulator: str, seeds: list[str]) -> list[Outcome]:
    return await play_all(database_url, stripe_simulator, seeds, lambda _, outcome: not outcome.verdicts)


@pytest.mark.timeout(300)
async def test_random_lives_break_no_invariant_of_money(database_url: str, stripe_simulator: str) -> None:
    seeds = [f"test/{number}" for number in range(LIVES)]
    outcomes = await played(database_url, stripe_simulator, seeds)
    assert [(one.seed, one.verdicts) for one in outcomes if one.verdicts] == []
    assert len(outcomes) == LIVES
    assert sum(one.succeeded for one in outcomes) > 4 * LIVES


@pytest.mark.timeout(300)
async def test_random_lives_notice_when_what_was_billed_counts_as_paid(
    database_url: str, stripe_simulator: str
) -> None:
    """M1: credits for seats that nobody paid."""
    seeds = [f"test/{number}" for number in range(LIVES)]
    with in_place(DEFECTS["M1 everything that was billed counts as paid"].changes()):
        outcomes = await played(database_url, stripe_simulator, seeds)
    assert [verdict[0] for verdict in outcomes[-1].verdicts][:1] == ["a"]
