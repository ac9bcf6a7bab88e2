"""Name the types of events that the copy needs."""

from __future__ import annotations

from typing import Final

NEEDED_EVENTS: Final = frozenset(
    {
        *(f"customer.{name}" for name in ("created", "updated", "deleted")),
        *(f"customer.discount.{name}" for name in ("created", "updated", "deleted")),
        *(
            f"customer.subscription.{name}"
            for name in (
                "created",
                "updated",
                "deleted",
                "paused",
                "resumed",
                "pending_update_applied",
                "pending_update_expired",
            )
        ),
        *(
            f"invoice.{name}"
            for name in (
                "created",
                "updated",
                "finalized",
                "paid",
                "payment_failed",
                "payment_action_required",
                "marked_uncollectible",
                "voided",
                "deleted",
            )
        ),
        *(f"payment_method.{name}" for name in ("attached", "detached", "updated", "automatically_updated")),
        *(f"product.{name}" for name in ("created", "updated", "deleted")),
        *(f"price.{name}" for name in ("created", "updated", "deleted")),
    }
)
"""Without these the cache falls behind until the next look at recent events, or the next reconcile."""
