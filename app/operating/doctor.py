"""The doctor: find problems that an operator should solve.

Each has its object and a fix. Nothing is changed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from app.catalogue import store as catalogue
from app.context import Context, Rules
from app.domain import metadata as keys
from app.domain.ids import NOBODY
from app.domain.seats import capacity, is_shareable, lacking
from app.mirror.event_types import NEEDED_EVENTS
from app.mirror.store import event_looks, fills, refreshes, subscriptions, unreadable
from app.mirror.store import scans as scan_rows
from app.operating import delivery_findings
from app.operating import store as diagnosis
from app.operating.findings import Finding
from app.operating.operation_findings import ask_stripe, late, unending
from app.postgres.database import Connection
from app.postgres.servers import ROLE_SETTINGS
from app.stripe.client import API_VERSION
from app.stripe.gateway import WebhookEndpoint

WEBHOOK_PATH = "/webhooks/stripe"
EVENTS = NEEDED_EVENTS
"""What the webhook endpoint must send."""

_CLOCK_SECONDS = 60.0
_DAY_SECONDS = 86_400.0
_MEMBER_KEYS = f"{keys.MEMBER_OF} and {keys.MEMBER_ROLE}"


async def examine(context: Context) -> list[Finding]:
    """Return all problems that the cache and Stripe show.

    Raises:
        Conflict: `wrong_account`: the Stripe key belongs to another account than the cache.
        ServiceUnavailable: The database does not answer.
    """
    stripe = await ask_stripe(context)
    async with context.database.unhurried() as connection:
        return [
            *stripe.findings,
            *await unending(connection),
            *await late(connection),
            *await _metadata(connection),
            *await _memberships(connection),
            *await _unclaimed(connection),
            *await _seats(connection, context.rules),
            *await _payments(connection),
            *await _catalogue(connection, context.rules),
            *([] if stripe.endpoints is None else webhook_findings(stripe.endpoints)),
            *await _sync(connection),
            *await delivery_findings.of_stripe(connection, stripe.lost),
            *await _clocks(connection, context.stripe.clock_skew),
            *await _last_reconcile(connection),
            *await delivery_findings.to_endpoints(connection),
            *role_findings(await context.database.lacking_role_settings()),
        ]


def role_findings(lacking: Sequence[str]) -> list[Finding]:
    """Return what the database's role lacks behind a pooler, from the names of its settings."""
    return [
        Finding(
            "pooler",
            name,
            "is not set for the database's role, and a pooler passes no settings of a connection on",
            f"Run `alter role current_user set {name} = '{ROLE_SETTINGS[name]}'` on a direct connection, and let the "
            "pooler open its connections again.",
        )
        for name in lacking
    ]


async def _metadata(connection: Connection) -> list[Finding]:
    found = [
        Finding("metadata", row["id"], f"{row['key']} {row['problem']}", f"Correct or remove {row['key']}.")
        for row in await diagnosis.metadata_problems(connection)
    ]
    found += [
        Finding(
            "owner",
            subscription_id,
            f"{keys.OWNER} {_named(owner_id)}, so nobody can manage its members",
            f"Set {keys.OWNER} to an existing customer, or remove it: then the customer who pays is the owner.",
        )
        for subscription_id, owner_id in await diagnosis.ownerless(connection)
    ]
    found += [
        Finding(
            "login",
            ", ".join(ids),
            f"several customers have the same {keys.USER_ID}, so none of them is linked",
            f"Remove {keys.USER_ID} from all but one of them.",
        )
        for _, ids in await diagnosis.shared_logins(connection)
    ]
    return found


def _named(owner_id: str) -> str:
    return (
        "has a value that no customer has"
        if owner_id == NOBODY
        else f"names {owner_id}, which is not a customer"
    )


async def _memberships(connection: Connection) -> list[Finding]:
    found = []
    for row in await diagnosis.memberships(connection):
        subscription_id = row["subscription_id"]
        if row["is_owner"]:
            problem = f"owns {subscription_id} and also has a member's metadata for it"
        elif row["existence"] != "present":
            problem = f"is a member of {subscription_id}, which does not exist"
        else:
            problem = f"is a member of {subscription_id}, which is {row['status']}"
        named = [_MEMBER_KEYS] if row["is_guides"] else []
        named += [f"{keys.FURTHER_PREFIX}{subscription_id}"] if row["is_further"] else []
        found.append(Finding("membership", row["customer_id"], problem, f"Remove {' and '.join(named)}."))
    return found


async def _unclaimed(connection: Connection) -> list[Finding]:
    found = []
    for row in await diagnosis.unclaimed(connection):
        days = row["age"] / _DAY_SECONDS
        problem = f"has had an unclaimed seat on {row['subscription_id']} for {days:.0f} days"
        fix = "Ask the person to sign in with that address verified, or remove them."
        if row["has_login"]:
            problem += ", although a login has verified the address"
            fix = "Free a membership of that login's customer: then its next sign-in moves the seat."
        found.append(Finding("unclaimed", row["customer_id"], problem, fix, "notice"))
    return found + [
        Finding(
            "unclaimed",
            row["customer_id"],
            f"was created for a seat {row['age'] / _DAY_SECONDS:.0f} days ago and has none; it belongs to no login, "
            "and is in use at Stripe",
            "Delete it in the Dashboard if nobody needs it.",
            "notice",
        )
        for row in await diagnosis.ghosts(connection)
    ]


async def _seats(connection: Connection, rules: Rules) -> list[Finding]:
    found = []
    for subscription_id in await diagnosis.crowded(connection):
        view = await subscriptions.subscription_view(connection, subscription_id, asker=None)
        if view is None:
            continue
        seats = view.seats(owner_uses_seat=rules.owner_uses_seat)
        if not is_shareable(view.seat_items()):
            if view.members:
                found.append(
                    Finding(
                        "seats",
                        subscription_id,
                        f"has {view.members} members, but none of its products supports sharing",
                        f"Set {keys.SUPPORTS_SHARING} on its product, or remove the members.",
                    )
                )
        elif (missing := lacking(seats, capacity(seats))) is not None:
            found.append(
                Finding(
                    "seats",
                    subscription_id,
                    f"{missing['required']} people on {missing['total']} seats",
                    f"Buy {seats.over_allocated} more seats, or remove as many members.",
                )
            )
    return found


async def _payments(connection: Connection) -> list[Finding]:
    without_effect = [
        Finding(
            "purchase",
            row["subscription_id"],
            f"{row['invoice_id']} was paid for operation {row['operation_id']}, and the change never took effect",
            (
                "Refund it"
                if row["amount_paid"] is None
                else f"Refund {row['amount_paid']} {row['currency']} (minor units)"
            )
            + f", or make the change in the Dashboard, then run `coseat operations acknowledge {row['operation_id']}`.",
        )
        for row in await diagnosis.paid_without_effect(connection)
    ]
    return without_effect + [
        Finding(
            "payment",
            row["id"],
            f"was lowered to {row['left']} while {row['invoice_id']}, which bills {row['billed']} for the running "
            f"period, is {row['status']}",
            "Collect the invoice, or void it: the reduction gave no credit for it.",
            "notice",
        )
        for row in await diagnosis.lowered_unpaid(connection)
    ]


async def _catalogue(connection: Connection, rules: Rules) -> list[Finding]:
    found = []
    for row in await catalogue.same_terms(
        connection, open_catalogue=rules.open_catalogue, limit=diagnosis.LIMIT
    ):
        every = row["interval"] if row["count"] == "1" else f"{row['count']} {row['interval']}s"
        problem = f"sells several prices in {row['currency']} for one {every}: {', '.join(row['prices'])}"
        fix = f"Set {keys.SELLABLE} to false on each price that end users must not see."
        found.append(Finding("catalogue", row["id"], problem, fix, "notice"))
    for row in await catalogue.without_default(connection, limit=diagnosis.LIMIT):
        sold = (
            f"only its prices with {keys.SELLABLE} are on sale" if row["has_marked"] else "nothing is on sale"
        )
        problem = f"has {keys.SELLABLE}, but no active default price: {sold}"
        fix = f"Give it a default price, or set {keys.SELLABLE} on the prices to sell."
        found.append(Finding("catalogue", row["id"], problem, fix, "notice" if row["has_marked"] else "fix"))
    return found


def webhook_findings(endpoints: list[WebhookEndpoint]) -> list[Finding]:
    """Return problems of the endpoints with our path.

    If there is none, all endpoints are checked, because a proxy may give the route another path.
    """
    ours = [
        one for one in endpoints if urlsplit(one.url).path.rstrip("/").endswith(WEBHOOK_PATH)
    ] or endpoints
    if not ours:
        fix = f"Add an endpoint for {WEBHOOK_PATH} in version {API_VERSION}."
        return [Finding("webhook", "-", "no webhook endpoint is registered", fix)]
    found = []
    for endpoint in ours:
        if not endpoint.enabled:
            found.append(Finding("webhook", endpoint.id, "is disabled", "Enable it."))
        missing = set() if "*" in endpoint.events else EVENTS - endpoint.events
        if missing:
            names = ", ".join(sorted(missing))
            found.append(Finding("webhook", endpoint.id, f"does not send {names}", "Add these events to it."))
        if endpoint.api_version is None:
            found.append(
                Finding(
                    "webhook",
                    endpoint.id,
                    "follows the account's default API version",
                    f"Pin it to {API_VERSION}: payloads of another version cost a read each.",
                    "notice",
                )
            )
        elif endpoint.api_version != API_VERSION:
            found.append(
                Finding(
                    "webhook",
                    endpoint.id,
                    f"sends API version {endpoint.api_version}",
                    f"Replace it by one in version {API_VERSION}: until then every event costs a read.",
                )
            )
    return found


async def _sync(connection: Connection) -> list[Finding]:
    found = []
    if not await fills.is_filled(connection):
        found.append(Finding("sync", "-", "the first fill has not ended", "Run `coseat sync`."))
    state = await refreshes.state(connection)
    if state.oldest > delivery_findings.LAG_SECONDS:
        problem = f"{state.due} refreshes are due, the oldest for {state.oldest:.0f} s"
        found.append(Finding("sync", "-", problem, "Start more workers, and look for answers with 429."))
    found += [
        Finding(
            "sync",
            dead.id,
            f"its refresh was given up after {dead.attempts} attempts: {dead.reason}",
            f"Solve the reason, then run `coseat replay {dead.id}`.",
        )
        for dead in await refreshes.dead(connection, limit=diagnosis.LIMIT)
    ]
    found += [
        Finding(
            "unreadable",
            one.id,
            f"this {one.kind.replace('_', ' ')} cannot be read: {one.reason}",
            f"Correct it at Stripe. Its next event reads it again, and so does `coseat replay {one.id}`.",
        )
        for one in await unreadable.oldest(connection, limit=diagnosis.LIMIT)
    ]
    deliveries = await diagnosis.deliveries(connection)
    if deliveries.last is None:
        fix = "Change any object in the Dashboard, and check that its event arrives."
        found.append(Finding("webhook", "-", "no event has ever arrived", fix, "notice"))
    if deliveries.other_version:
        problem = f"{deliveries.other_version} events of another API version arrived within a day"
        found.append(Finding("webhook", "-", problem, f"Pin the endpoint to {API_VERSION}."))
    return found


async def _clocks(connection: Connection, against_stripe: float | None) -> list[Finding]:
    ahead = {
        "PostgreSQL": await event_looks.clock_ahead(connection, now=time.time()),
        "Stripe": against_stripe or 0.0,
    }
    return [
        Finding(
            "clock",
            "-",
            f"this machine's clock is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} that of {name}",
            "Set it by NTP: deliveries are refused if it is more than 300 s off.",
        )
        for name, seconds in ahead.items()
        if abs(seconds) > _CLOCK_SECONDS
    ]


async def _last_reconcile(connection: Connection) -> list[Finding]:
    last = await scan_rows.last_reconcile(connection)
    report = {} if last is None else last["report"] or {}
    if last is None:
        return []
    if last["outcome"] == "stopped":
        return [
            Finding(
                "reconcile",
                "-",
                str(report.get("reason")),
                "Find the cause, then run `coseat reconcile` again.",
            )
        ]
    if not report.get("drift"):
        return []
    problem = (
        f"the last reconcile, {last['age'] / 3600:.1f} h ago, found {report['drift']} rows that differed"
    )
    if report.get("unrepaired") or last["dry_run"]:
        return [Finding("reconcile", "-", problem, "Run `coseat reconcile`.")]
    return [Finding("reconcile", "-", f"{problem} and repaired them", "Look for lost events.", "notice")]
