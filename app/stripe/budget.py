"""Name the kinds of work that call Stripe, the endpoint against whose limit a call counts, and the call's object.

See docs/decisions/0031-grant-stripes-rate-call-by-call.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

Work = Literal["fresh", "interactive", "refresh", "bulk"]
"""`fresh`: a caller reads an object that has to be up to date; `interactive`: everything else that a caller waits for;
`refresh`: an object with a pending notification; `bulk`: first fill and reconcile."""
Kind = Literal["fresh", "write", "background"]
"""The kinds of work that have a breaker each, see `app.stripe.breaker`."""

KINDS: Final[tuple[Kind, ...]] = ("fresh", "write", "background")
KIND_OF: Final[Mapping[Work, Kind]] = {
    "fresh": "fresh",
    "interactive": "write",
    "refresh": "background",
    "bulk": "background",
}
_ACTIONS = frozenset({"create_preview", "search"})
_FIRST_ID: Final = 2
"""Position of the first id in the segments of a path such as `v1/customers/cus_1`."""


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


def subject_of(path: str, params: Mapping[str, Any]) -> str | None:
    """Return the id of the object that a call is about; None for a create, or a list of all objects.

    That is the first id of the path. Without one it is the subscription or the customer that `params` name.
    """
    parts = path.strip("/").split("/")
    if len(parts) > _FIRST_ID and parts[_FIRST_ID] not in _ACTIONS:
        return parts[_FIRST_ID]
    named = params.get("subscription") or params.get("customer")
    return named if isinstance(named, str) else None
