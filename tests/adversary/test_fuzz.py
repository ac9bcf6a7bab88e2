"""A few hundred of the cases that `python -m verification.adversary.fuzz` sends by the thousand."""

import pytest

from verification.adversary.fuzz import ENOUGH_LINKS, PRINCIPALS, fuzz_some
from verification.adversary.fuzzing import declared_links

CASES = 300


@pytest.mark.timeout(300)
def test_every_answer_is_as_declared(stripe_simulator: str, database_url: str) -> None:
    each = CASES // len(PRINCIPALS)
    tally = fuzz_some(stripe_simulator, database_url, PRINCIPALS, each, seed=2026, coverage=False)
    assert tally.broken == {}
    assert tally.errors == []
    assert tally.server_errors == 0
    assert tally.cases >= CASES
    assert len(tally.links) >= 10


def test_the_document_links_its_operations() -> None:
    assert declared_links() >= 2 * ENOUGH_LINKS
