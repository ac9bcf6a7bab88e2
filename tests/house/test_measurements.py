"""What the measurements conclude from their rounds, and which checkout they refuse."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import checkout
from benchmarks.cores import Halves, kept
from benchmarks.rounds import in_turn
from benchmarks.verdicts import median_interval
from testkit import seeding
from testkit.databases import CHECKOUT


@pytest.mark.parametrize(
    ("number", "low", "high", "coverage"),
    [(1, 1, 1, 0.0), (5, 1, 5, 0.938), (6, 1, 6, 0.969), (9, 2, 8, 0.961), (20, 6, 15, 0.959)],
)
def test_interval_is_the_narrowest_that_covers_the_median(
    number: int, low: int, high: int, coverage: float
) -> None:
    """The ranks and coverages of the usual table of confidence limits for the median."""
    found = median_interval([float(value) for value in range(number, 0, -1)])
    assert (found.low, found.high, round(found.coverage, 3)) == (low, high, coverage)


def test_rounds_measure_every_target_once_and_begin_with_another_each_time() -> None:
    assert list(in_turn(["this", "other"], 3)) == ["this", "other", "other", "this", "this", "other"]


def test_thread_is_kept_to_its_half_of_the_cores_only_within_the_block() -> None:
    # On macOS there is no such call, and both halves are empty.
    of_thread: Callable[[int], set[int]] = getattr(os, "sched_getaffinity", lambda _: set())
    halves, everywhere = Halves.of_machine(), of_thread(0)
    assert halves.first | halves.second == everywhere
    assert halves.are_apart == (len(everywhere) > 1) == (not halves.first & halves.second)
    with kept(halves.second):
        assert of_thread(0) == halves.second
    assert of_thread(0) == everywhere


def test_module_is_found_in_the_room_that_holds_it() -> None:
    assert checkout.module("seeding") is seeding
    with pytest.raises(ModuleNotFoundError, match="no module `absent` in testkit or benchmarks"):
        checkout.module("absent")


def test_comparison_is_refused_when_the_other_checkout_has_no_interpreter(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.against", str(tmp_path)]
    ran = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "run `make .venv/.ready` in the other checkout" in ran.stderr
