"""What events cost in fetches (`verification.convergence.bursts`), in a few seconds of the real clock."""

from verification.convergence import bursts


def test_a_burst_is_coalesced_and_calm_traffic_needs_no_fetch(database_url: str) -> None:
    burst, calm = bursts.run(database_url, events=1_000, objects=30)
    assert burst.fetches <= 6, "a burst of five seconds, spaced by two"
    assert burst.current_after <= bursts.BARS["current_after"]
    assert calm.fetches_an_event <= bursts.BARS["fetches_an_event"]
