"""What a call to Stripe is made for, and which limit of Stripe's it counts against."""

from __future__ import annotations

from typing import Literal, Protocol

Work = Literal["interactive", "refresh", "bulk"]
"""`interactive`: somebody waits; `refresh`: an object that an event named; `bulk`: first fill and reconcile."""

_ACTIONS = frozenset({"create_preview", "search"})


class Budget(Protocol):
    async def acquire(self, work: Work, endpoint: str) -> None:
        """Returns when one call may begin at once. Raises ServiceUnavailable where it never may: nothing was sent."""

    async def slow_down(self) -> None:
        """Stripe has refused a call because there were too many of them."""


def endpoint_of(method: str, path: str) -> str:
    """Method and path template, as Stripe counts its limit for each endpoint: `GET /v1/customers/{id}`."""
    parts = path.strip("/").split("/")
    for position in (2, 4):
        if position < len(parts) and parts[position] not in _ACTIONS:
            parts[position] = "{id}"
    return f"{method.upper()} /{'/'.join(parts)}"
