"""What the doctor finds of operations that do not end or took effect late, and of a Stripe that does not answer."""

from __future__ import annotations

from typing import NamedTuple

from app.context import Context
from app.errors import BillingError, Conflict
from app.mirror import recent_events
from app.mirror.first_fill import check_account
from app.mirror.store import audit
from app.operating.findings import Finding
from app.operations import backlog_store
from app.postgres.database import Connection
from app.stripe.gateway import WebhookEndpoint

PENDING_SECONDS = 900.0
"""Age from which an operation is reported."""
LATE_DAYS = 14
"""Days for which a late effect is reported."""
_LIMIT = 500


class Asked(NamedTuple):
    """What Stripe answered to the doctor. `endpoints` is None if it did not answer, and `findings` says so then."""

    findings: list[Finding]
    endpoints: list[WebhookEndpoint] | None = None
    lost: recent_events.Lost | None = None


async def ask_stripe(context: Context) -> Asked:
    """Return what Stripe answers: the webhook endpoints, and the events that never arrived.

    Raises:
        Conflict: `wrong_account`: the Stripe key belongs to another account than the cache.
    """
    try:
        account = await check_account(context)
        endpoints = await context.stripe.webhook_endpoints()
        return Asked([], endpoints, await recent_events.find_lost(context, account))
    except Conflict:
        raise
    except BillingError as error:
        fix = (
            "Check STRIPE_API_KEY and the way to Stripe. All other findings are from the database, and the webhook "
            "endpoints were not examined."
        )
        return Asked([Finding("stripe", "-", error.detail, fix)])


async def late(connection: Connection) -> list[Finding]:
    """Return the effects of the last LATE_DAYS days that came after their operation was settled."""
    return [
        Finding(
            "late_effect",
            row["subscription_id"],
            f"operation {row['operation_id']} took effect after it had been settled as {row['settled_as']}: "
            f"{row['type']} of {row['customer_id'] or row['subscription_id']}",
            "Decide with the customer whether the effect may stay. It is not undone by itself.",
            "notice",
        )
        for row in await audit.late_effects(connection, days=LATE_DAYS, limit=_LIMIT)
    ]


async def unending(connection: Connection) -> list[Finding]:
    """Return the operations that have run for more than PENDING_SECONDS. They keep their seats reserved."""
    return [
        Finding(
            "operation",
            row.id,
            f"{row.kind} of {row.subscription_id or 'a purchase'} has not ended for {row.age / 60:.0f} minutes; it "
            "keeps its seats reserved",
            "Solve the reason in the worker's log. To end it without sending anything more, run "
            f"`coseat operations release {row.id}`.",
        )
        for row in await backlog_store.unending(connection, seconds=PENDING_SECONDS, limit=_LIMIT)
    ]
