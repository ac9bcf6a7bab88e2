"""A year of the clock, short: one subscription of each shape. The full one is `python -m verification.money.year`."""

import pytest

from verification.money import year

STATUSES = {"active", "trialing", "past_due", "paused", "canceled", "incomplete", "incomplete_expired"}


@pytest.mark.timeout(300)
async def test_the_cache_is_the_truth_at_every_step_of_a_year(
    stripe_simulator: str, database_url: str
) -> None:
    seen = await year.run(stripe_simulator, database_url)
    assert set(seen) == STATUSES
