"""Bound the requests of a process that wait for Stripe, so that cached reads always find a place.

See docs/decisions/0045-stop-calling-stripe-while-it-does-not-answer.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import ServiceUnavailable

_RETRY_AFTER = 1


class StripeWaits:
    """The count of one process. `most`: the requests that may wait at the same time; None: any number."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self.now = 0

    @property
    def is_full(self) -> bool:
        """Return True if no more requests may wait."""
        return self._most is not None and self.now >= self._most

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Count a request that waits until the block ends.

        Raises:
            ServiceUnavailable: `stripe_unavailable`: as many as may wait do already.
        """
        if self.is_full:
            raise ServiceUnavailable(
                "As many requests as may wait for Stripe do so already. Send the request again after Retry-After.",
                retry_after=_RETRY_AFTER,
            )
        self.now += 1
        try:
            yield
        finally:
            self.now -= 1
