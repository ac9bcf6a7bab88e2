"""Bodies without end, and times that could tell; in full: `python -m verification.adversary.big_body` and `.timing`."""

from verification.adversary import big_body, timing


async def test_a_body_without_end_stops_at_its_limit(stripe_simulator: str, database_url: str) -> None:
    told, _, misses = await big_body.run(stripe_simulator, database_url, size=2**30, slow=False)
    assert misses == []
    assert [one.answer.status for one in told] == [413] * len(big_body.bodies())


async def test_foreign_ids_take_no_longer_than_absent_ones(stripe_simulator: str, database_url: str) -> None:
    """So few samples, beside other work, show a difference of another magnitude only."""
    found = await timing.run(stripe_simulator, database_url, samples=15)
    assert len(found) == 9
    assert all(abs(one.apart) < 50 for one in found.values())
