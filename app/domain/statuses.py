"""Define what each subscription status allows.

Source of the statuses: https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entitlements:
    """What a status allows.

    `access`: members may use the products. `edits`: prices and items may change, and roles may become higher.
    `new_seats`: seats may be bought and filled. Reads and reductions (removing, leaving, a lower role, fewer seats,
    cancelling) are always allowed.
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
"""The terminal statuses: a subscription never leaves them."""


def entitlements(status: str, *, past_due_allows_new_seats: bool = False) -> Entitlements:
    """Return what a status allows. An unknown status allows nothing."""
    if status == "past_due" and past_due_allows_new_seats:
        return _OPEN
    return _STANDINGS.get(status, _CLOSED)


def is_live(status: str) -> bool:
    """Return True if the subscription has not ended, so its members cannot join another one."""
    return status not in ENDED


OPEN = tuple(status for status, allowed in _STANDINGS.items() if allowed.access)
"""The statuses in which a subscription's members may use its products."""

RENEWING = frozenset({"trialing", "active", "past_due", "unpaid"})
"""The statuses in which Stripe creates an invoice at the end of each period. In `unpaid` it remains a draft."""
