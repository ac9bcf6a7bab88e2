"""How many writes of one caller this process works on at the same time.

A write holds its place for as long as Stripe takes. Without a bound, a few callers whose writes all wait would fill
the places of this process, and everybody else's reads would wait behind them.
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
    """The counts of this process. A person and a key that acts for them share one count."""

    def __init__(self, settings: Settings) -> None:
        self._of_user = settings.user_in_flight
        self._of_key = settings.service_key_in_flight
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        """The number of callers that have writes in flight."""
        return len(self._counts)

    def begin(self, actor: Actor, scope: Scope) -> None:
        """Count the request of `scope` until `end`; once, however often it is asked.

        Raises RateLimited `too_many_in_flight`.
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
        """End the count of the request, if it was counted. An operation that goes on after a 202 does not count."""
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
