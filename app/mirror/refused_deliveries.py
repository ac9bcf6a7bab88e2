"""Count deliveries that were refused, and say in the log and to the doctor what to do about each reason.

Stripe sends a refused delivery again for three days and then gives it up. Without this, a wrong secret would show only
as answers with 400.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog

from app.errors import BillingError, InvalidWebhook, PayloadTooLarge
from app.postgres.installation_counts import InstallationCounts

log = structlog.get_logger(__name__)

NAME: Final = "webhook_refused"
REMEDIES: Final = {
    "signature": "Set STRIPE_WEBHOOK_SECRETS to the signing secret of the endpoint at Stripe, and restart the API.",
    "timestamp": "Set the clock of this machine, or find out what holds deliveries up for more than 5 minutes.",
    "missing": "Find out who sends requests without Stripe's signature, or what removes the header Stripe-Signature.",
    "malformed": "Find out who signs with this secret, or what changes the body or the headers on the way.",
    "too_large": "Look up the event's size at Stripe: the service takes 1 MiB.",
}
"""What to do, by reason."""

_LOG_SECONDS = 5.0


class RefusedDeliveries:
    """Counts the refusals of this process.

    A reason is logged at once, and then at most every 5 seconds with the number since. `clock` returns monotonic
    seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged_at: dict[str, float] = {}
        self._unlogged: dict[str, int] = {}

    def note(self, error: BillingError, counts: InstallationCounts) -> None:
        """Count the refusal that `error` tells. Other errors are no refusal: Stripe's next try may succeed."""
        reason = refusal_of(error)
        if reason is None:
            return
        counts.add(NAME, reason)
        number = self._unlogged.get(reason, 0) + 1
        now = self._clock()
        if now - self._logged_at.get(reason, -_LOG_SECONDS) < _LOG_SECONDS:
            self._unlogged[reason] = number
            return
        self._logged_at[reason], self._unlogged[reason] = now, 0
        log.warning("webhook_refused", reason=reason, number=number, remedy=REMEDIES[reason])


def refusal_of(error: BillingError) -> str | None:
    """Return the reason, one of REMEDIES, or None for an error that is no refusal of a delivery."""
    if isinstance(error, InvalidWebhook):
        return error.reason
    return "too_large" if isinstance(error, PayloadTooLarge) else None
