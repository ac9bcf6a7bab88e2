"""What each subscription status allows: the one table (decision: the status table of the rules)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entitlements:
    """What a status allows beyond reading and reducing.

    `access`: members may use the products. `edits`: prices, items and higher roles may change. `new_seats`: seats may
    be bought and filled. What reduces (removing, leaving, a lower role, fewer seats, cancelling) needs none of them.
    """

    access: bool
    edits: bool
    new_seats: bool


_OPEN = Entitlements(access=True, edits=True, new_seats=True)
_NO_NEW_SEATS = Entitlements(access=True, edits=True, new_seats=False)
_CLOSED = Entitlements(access=False, edits=False, new_seats=False)

_STANDINGS = {
    "active": _OPEN,
    "trialing": _OPEN,
    "past_due": _NO_NEW_SEATS,
    "incomplete": _CLOSED,
    "unpaid": _CLOSED,
    "paused": _CLOSED,
    "canceled": _CLOSED,
    "incomplete_expired": _CLOSED,
}

ENDED = frozenset({"canceled", "incomplete_expired"})
"""Terminal at Stripe: a cached row in one of these never goes back."""


def entitlements(status: str, *, past_due_allows_new_seats: bool = False) -> Entitlements:
    """A status that Stripe may add one day gives nothing until it is written down here."""
    if status == "past_due" and past_due_allows_new_seats:
        return _OPEN
    return _STANDINGS.get(status, _CLOSED)


def is_live(status: str) -> bool:
    """Does a membership of such a subscription stand in the way of another one? Only an ended one does not."""
    return status not in ENDED


OPEN = tuple(status for status, allowed in _STANDINGS.items() if allowed.access)
"""The statuses in which a subscription's people may use its products."""

RENEWING = frozenset({"trialing", "active", "past_due", "unpaid"})
"""The statuses in which Stripe makes an invoice at the end of each period; while it is unpaid they stay drafts."""
