"""What the doctor finds of deliveries: Stripe's to this service, and this service's to the application's endpoints."""

from __future__ import annotations

from app.events.store import deliveries
from app.events.store.endpoints import BY_OPERATOR
from app.mirror import recent_events, refused_deliveries
from app.mirror.store import event_looks
from app.operating.findings import Finding, Severity
from app.postgres import installation_counts
from app.postgres.database import Connection

LAG_SECONDS = 60.0
_HOUR_SECONDS = 3600.0


async def of_stripe(connection: Connection, lost: recent_events.Lost | None) -> list[Finding]:
    """Return what is wrong with Stripe's deliveries. `lost` is None if Stripe could not be compared with them."""
    accepted = await event_looks.last_accepted(connection)
    return [*await _refused(connection, accepted, lost), *_lost(accepted, lost)]


async def _refused(
    connection: Connection, accepted: float | None, lost: recent_events.Lost | None
) -> list[Finding]:
    """Return the deliveries that were refused within the last hour.

    Anybody can send such requests, so they are a notice while Stripe's own arrive: then the secret is right.
    """
    refused = await installation_counts.within_an_hour(connection, refused_deliveries.NAME)
    are_missing = accepted is None or (accepted > _HOUR_SECONDS if lost is None else bool(lost.events))
    return [
        Finding(
            "webhook",
            "-",
            f"{number} deliveries were refused within an hour, reason: {reason}",
            refused_deliveries.REMEDIES[reason]
            if are_missing
            else "Stripe's own deliveries arrive, so somebody else may have sent these. If they go on, find out who.",
            "fix" if are_missing and reason != "missing" else "notice",
        )
        for reason, number in refused.items()
    ]


def _lost(accepted: float | None, lost: recent_events.Lost | None) -> list[Finding]:
    if lost is None or not lost.events:
        return []
    last = "none was ever accepted" if accepted is None else f"the last one was accepted {accepted:.0f} s ago"
    problem = f"{len(lost.events)} of {lost.seen} events of the last hour never arrived; {last}"
    fix = "Compare the endpoint's URL and secret with STRIPE_WEBHOOK_SECRETS. A worker fetches what they changed."
    return [Finding("webhook", "-", problem, fix)]


async def to_endpoints(connection: Connection) -> list[Finding]:
    """Return the application's endpoints that are disabled or late."""
    found = []
    for one in await deliveries.backlog(connection):
        if one["status"] == "disabled":
            reason = one["disabled_reason"]
            remedy = f"Mend it, then run `coseat events endpoints enable {one['id']}`: nothing is skipped."
            severity: Severity = "notice" if reason == BY_OPERATOR else "fix"
            found.append(Finding("webhook_endpoint_disabled", one["id"], reason, remedy, severity))
        elif (age := one["oldest_seconds"] or 0.0) > LAG_SECONDS:
            problem = f"Its oldest event that was not taken is {age:.0f} s old."
            remedy = (
                f"`coseat events endpoints test {one['id']}` says what it answers. Check that a worker runs, with the "
                "WEBHOOK_ENCRYPTION_KEYS and INVITATION_SECRETS of the API."
            )
            found.append(Finding("webhook_endpoint_behind", one["id"], problem, remedy))
    return found
