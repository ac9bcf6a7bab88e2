"""Name the kinds of work that call Stripe, and the endpoint against whose limit a call counts.

See docs/decisions/0031-grant-stripes-rate-call-by-call.md.
"""

from __future__ import annotations

from typing import Literal, Protocol

Work = Literal["interactive", "refresh", "bulk"]
"""`interactive`: a caller waits; `refresh`: an object with a pending notification; `bulk`: first fill and reconcile."""

_ACTIONS = frozenset({"create_preview", "search"})


class Budget(Protocol):
    """A rate budget that all processes share."""

    async def acquire(self, work: Work, endpoint: str) -> None:
        """Wait until one call may begin, which then has to begin at once.

        Raises:
            ServiceUnavailable: the call may not begin in time. Nothing was sent.
        """

    async def slow_down(self) -> None:
        """Lower the rate, because Stripe refused a call as one of too many. Raises ServiceUnavailable."""


def endpoint_of(method: str, path: str) -> str:
    """Return the method and path template by which Stripe counts its limit, such as `GET /v1/customers/{id}`."""
    parts = path.strip("/").split("/")
    for position in (2, 4):
        if position < len(parts) and parts[position] not in _ACTIONS:
            parts[position] = "{id}"
    return f"{method.upper()} /{'/'.join(parts)}"
