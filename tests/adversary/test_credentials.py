"""Bad tokens and floods of key ids, in small; in full: `python -m verification.adversary.tokens` and `.key_flood`."""

from verification.adversary import key_flood, tokens


def test_the_corpus_is_large_enough() -> None:
    assert sum(len(cases) for cases in tokens.corpus().values()) >= 150


async def test_bad_credentials_open_nothing_and_leave_no_row(
    stripe_simulator: str, database_url: str
) -> None:
    seen = await tokens.run(stripe_simulator, database_url, share=0.25, families=["hs"])
    assert seen.misses == []
    assert seen.credentials > 40
    assert set(seen.answers) <= {0, 400, 401, 431}


async def test_a_flood_of_key_ids_while_the_host_hangs(stripe_simulator: str, database_url: str) -> None:
    """Not how fast, but that: the host is left alone, and valid tokens are as good as ever."""
    seen = await key_flood.run(stripe_simulator, database_url, rate=300, seconds=4.0, rotation=False)
    assert seen.misses == []
    assert len(seen.fetches) <= 1
    assert seen.asked[401] > 500
    assert seen.valid[200] == 4 * key_flood.VALID_A_SECOND
