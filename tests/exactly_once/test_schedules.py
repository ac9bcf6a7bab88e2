"""Seat operations under held schedules (`verification.simulation`): no invariant breaks, and a break is noticed."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from verification.simulation import held_database
from verification.simulation.defects import DEFECTS, NOTICED_BY, planted, tried_first
from verification.simulation.driver import RATES
from verification.simulation.schedules import Outcome, play
from verification.simulation.world import INVITATIONS, is_paying

SEED = "20261122"
SCHEDULES = 40
CAUGHT_WITHIN = {"reservations not counted": 12, "no lock at admission": 20, "lower target not counted": 20}


@pytest.fixture
def held_database_url(database_url: str) -> str:
    asyncio.run(held_database.install(database_url))
    return database_url


def seeds(number: int) -> list[str]:
    return [f"{SEED}/{seed}" for seed in range(number)]


def test_seed_gives_the_same_again(held_database_url: str) -> None:
    first = play(held_database_url, [*seeds(5), f"{SEED}{INVITATIONS}0", f"{SEED}{INVITATIONS}1"])
    again = play(held_database_url, [one.seed for one in reversed(first)])
    assert [one.digest for one in again] == [one.digest for one in reversed(first)]


MENDED = [
    *("b/253", "c/178", "c/525", "d/124", "9/2550"),
    *(f"{SEED}/{number}" for number in (532, 650, 943, 1378, 1586, 2432, 2496, 4432, 5431, 5847)),
    f"{SEED}{INVITATIONS}26",
    "20261128/1700",
]
"""Each found a fault that was in the service: a raise that was lowered by hand, a plan that was ended by an attempt
whose answer was lost, a manager made by hand, seats taken by hand before a lowering or an addition was sent, a
change that was carried out again a day later, an end that had come about by then and was not seen, news of a plan
that was noted and not yet read, a purchase that was made twice because it was lowered by hand in between, seats
promised that a raise took away again, because somebody had raised them further by hand, a new owner who kept his
seat, because somebody had named another one before it was cleared, a seat promised beside somebody who had been
seen in it by a change that came to nothing, logins that asked 20 times a second whether their customer was there, each
time with a write, and a raise that was told refused, because somebody had raised the seats further by hand."""


def test_schedules_that_found_a_fault_find_none_any_more(held_database_url: str) -> None:
    outcomes = play(held_database_url, MENDED)
    assert [f"{one.seed} {verdict}" for one in outcomes for verdict in one.verdicts] == []


JUDGED_WRONGLY = ["20261128a/164", "20261128a/1550"]
"""A transfer whose third step is refused, while its answer shows the new owner first; and a `begin` that is cancelled
on its way, after which asyncpg's pool rolls back."""


def test_schedules_that_were_judged_wrongly_break_no_invariant(held_database_url: str) -> None:
    outcomes = play(held_database_url, JUDGED_WRONGLY)
    assert [f"{one.seed} {verdict}" for one in outcomes for verdict in one.verdicts] == []


@pytest.mark.parametrize("defect", DEFECTS)
def test_defect_can_be_planted_in_the_code_as_it_is(defect: str) -> None:
    with planted(defect):
        pass


@pytest.mark.parametrize("defect", CAUGHT_WITHIN)
def test_a_planted_defect_is_noticed(held_database_url: str, defect: str) -> None:
    tried = [*tried_first(defect), *seeds(CAUGHT_WITHIN[defect])]
    found: list[Outcome] = play(held_database_url, tried, defect)
    assert found[-1].verdicts


WAITS = (
    "named before payment",
    "number kept after the end",
    "ended without voiding",
    "invoice not read again",
)
"""Planted defects of purchases that wait for their payment."""
PAYING = [seed for seed in seeds(330) if is_paying(seed)]


def test_schedules_keep_every_invariant_when_purchases_wait_for_their_payment(held_database_url: str) -> None:
    tried = sorted({NOTICED_BY[defect] for defect in WAITS})
    outcomes = play(held_database_url, [*tried, *PAYING[:10]])
    assert [f"{one.seed} {verdict}" for one in outcomes for verdict in one.verdicts] == []


@pytest.mark.parametrize("defect", WAITS)
def test_schedule_notices_a_defect_when_a_purchase_waits(held_database_url: str, defect: str) -> None:
    found = play(held_database_url, [NOTICED_BY[defect], *PAYING], defect)
    assert any(verdict.startswith(("I12", "I17")) for verdict in found[-1].verdicts)


INVITED = (
    "ended invitation accepted",
    "seat kept after the acceptance",
    "expiry frees the seat of an acceptance",
)
"""Planted defects of invitations."""


@pytest.mark.parametrize("defect", INVITED)
def test_schedule_notices_a_defect_when_people_are_invited(held_database_url: str, defect: str) -> None:
    found = play(held_database_url, tried_first(defect), defect)
    assert any(verdict.startswith("I19") for verdict in found[-1].verdicts)


def noticing(url: str, defect: str, more: Sequence[str], is_meant: Callable[[str], bool]) -> str:
    """Return a seed that notices the planted defect by a verdict that is meant for it."""
    verdicts: list[str] = []
    for seed in [*tried_first(defect), *more]:
        [outcome] = play(url, [seed], defect)
        if any(map(is_meant, outcome.verdicts)):
            return seed
        verdicts += outcome.verdicts
    raise AssertionError(verdicts)


def is_of_i18(verdict: str) -> bool:
    return verdict.startswith("I18")


def test_schedule_notices_when_a_refusal_by_rate_is_taken_as_a_failure(held_database_url: str) -> None:
    """I18: every attempt was answered 429, and the step was reported as failed."""
    of_rates = [f"{SEED}{RATES}{number}" for number in range(SCHEDULES)]
    seed = noticing(held_database_url, "rate refusal is a failure", of_rates, is_of_i18)
    [outcome] = play(held_database_url, [seed])
    assert outcome.verdicts == []


def is_of_w1(verdict: str) -> bool:
    """W1: one change is made twice, or it is told as failed and took effect."""
    return "2 times" in verdict or ("is told failed" in verdict and "took effect" in verdict)


def test_schedule_notices_when_every_5xx_is_taken_as_kept(held_database_url: str) -> None:
    """W1: the rule of before, planted."""
    assert noticing(held_database_url, "every 5xx is kept", seeds(3 * SCHEDULES), is_of_w1)


def test_enough_defects_are_known() -> None:
    assert len(DEFECTS) >= 20
