"""Bound the writes of one caller that this process runs at the same time.

A write occupies a place in the process until Stripe answers. Without a bound, a few callers with many slow writes
would occupy all places, and the reads of all other callers would wait
(docs/decisions/0010-bound-the-writes-of-one-caller-that-are-in-flight.md).
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from starlette.types import Scope

from app.errors import RateLimited
from app.identity.actors import Actor
from app.identity.principals import ServiceKey
from app.settings import Settings

RETRY_AFTER: Final = 1
_STATE = "write_in_flight"


class WritesInFlight:
    """The counts of this process.

    An end user and a key that acts for them share one count.
    """

    def __init__(self, settings: Settings) -> None:
        self._of_user = settings.user_in_flight
        self._of_key = settings.service_key_in_flight
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return the number of callers that have writes in flight."""
        return len(self._counts)

    def begin(self, actor: Actor, scope: Scope) -> None:
        """Count the request of `scope` until `end`.

        Calling it twice for a request counts once.

        Raises:
            RateLimited: `too_many_in_flight`: the caller has as many writes running as the settings allow.
        """
        state = scope["state"]
        if _STATE in state:
            return
        name, most = self._bound(actor)
        if self._counts[name] >= most:
            raise RateLimited(
                f"{most} writes of this caller are still running. Wait for the answer to one of them, then try again.",
                code="too_many_in_flight",
                retry_after=RETRY_AFTER,
            )
        self._counts[name] += 1
        state[_STATE] = name

    def end(self, scope: Scope) -> None:
        """End the count of the request, if it was counted.

        An operation that continues after a 202 is not counted any more.
        """
        name = scope["state"].pop(_STATE, None)
        if name is None:
            return
        self._counts[name] -= 1
        if not self._counts[name]:
            del self._counts[name]

    def _bound(self, actor: Actor) -> tuple[str, int]:
        if actor.customer_id is not None:
            return actor.customer_id, self._of_user
        # A key that acts for nobody, or a login without a customer.
        return actor.principal.key, self._of_key if isinstance(actor.principal, ServiceKey) else self._of_user
