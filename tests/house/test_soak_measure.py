"""The measure of the soak: what grows without end is caught, and what warms up and then rests is not."""

import random

import pytest

from verification.soak import growth_of, is_flat

SAMPLES = 720
"""An hour, one in five seconds."""
HOURS = [number * 5 / 3600 for number in range(SAMPLES)]
LEAK = 12.5 * 1024 * 3600 / 2**20
"""MiB an hour of 1 kB a request at 12.5 requests a second: a process's share of 50 among four."""


def resident(*, leak: float = 0.0, warm: float = 0.0, noise: float = 0.3) -> list[float]:
    """Return the samples of a process of 100 MiB that warms up by `warm` MiB in the first minutes."""
    seed = random.Random(1)
    return [
        100 + warm * (1 - 0.5 ** (hour / 0.05)) + leak * hour + seed.uniform(-noise, noise) for hour in HOURS
    ]


@pytest.mark.parametrize("leak", [LEAK, LEAK / 5, 6.0])
def test_process_is_caught_when_it_leaks(leak: float) -> None:
    found = growth_of(HOURS, resident(leak=leak, warm=5))
    assert not found.is_flat and found.slope == pytest.approx(leak, rel=0.2)


@pytest.mark.parametrize("warm", [0.0, 5.0, 20.0])
def test_process_is_flat_when_it_only_warms_up(warm: float) -> None:
    assert growth_of(HOURS, resident(warm=warm)).is_flat


def test_count_is_flat_when_it_ends_as_high_as_it_was() -> None:
    assert is_flat([5, 9, 40, 41, 40, 42, 41, 43], 4)
    assert not is_flat([5, 9, 40, 41, 45, 50, 55, 60], 4)
