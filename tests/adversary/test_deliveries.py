"""Forged and empty deliveries, in part; all of them: `python -m verification.adversary.webhooks`."""

from verification.adversary import webhooks


async def test_what_is_forged_or_empty_has_no_effect(stripe_simulator: str, database_url: str) -> None:
    seen = await webhooks.run(stripe_simulator, database_url, every=3)
    assert seen.misses == []
    assert seen.deliveries > 80
    assert set(seen.by_kind) == {"refused", "ignored", "noted"}
    assert max(seen.answers) < 500
