"""Waiting for something that another process does."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], *, within: float = 10.0, every: float = 0.02) -> None:
    """Return once `condition` holds. Raises AssertionError if it does not `within` seconds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not so within {within} s: {condition}"
        time.sleep(every)
