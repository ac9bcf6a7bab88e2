"""What every sending of a step needs: its late window, its evidence in Stripe's events, and the pauses between tries.

The states of a step and what moves it are in `app.operations.lifecycle`. A failure settles a step only if no earlier
request of it may still take effect. Such a request has ended once Stripe has answered its key from memory, or once
`LATE_WINDOW` has passed since the key was last sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import structlog

from app.context import Context, Rules
from app.domain.ids import CustomerId, SubscriptionId
from app.domain.snapshots import JsonObject, Snapshot, Subscription
from app.domain.views import SubscriptionView
from app.errors import BillingError, ServiceUnavailable
from app.mirror.store import refreshes, subscriptions
from app.operations import store as operations
from app.operations.lifecycle import State, may_settle
from app.operations.rows import AwaitedInvoice, Operation, Step
from app.postgres.database import Connection
from app.stripe.client import TOTAL_SECONDS

log = structlog.get_logger(__name__)

HANDED_OVER_SECONDS = 15.0
"""After which a worker, at the latest, tries again what is still open."""
MONEY_DETAILS = ("allowed", "invoice_id", "invoice_status", "hosted_invoice_url", "credit", "retry_after")
"""Members of a refusal's problem document that the result of its step shows too."""
_SERVER_ERROR = 500
_CLOCKS_APART_SECONDS = 60
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 2.0


def money_details(source: Mapping[str, object]) -> JsonObject:
    """Return the details of a refusal for money's sake. `source`: an error's members, or a step's details."""
    return {name: source[name] for name in MONEY_DETAILS if name in source}


def late_seconds(rules: Rules) -> float:
    """Return the seconds after which a request that was never answered can take effect no more.

    They count from the record of its sending; the last retry of the call leaves up to `TOTAL_SECONDS` later.
    """
    return TOTAL_SECONDS + rules.late_window


def may_come_late(rules: Rules, step: Step) -> bool:
    """Return True if an unanswered request may still take effect."""
    return not may_settle(step.state, open_until(rules, step), now=0.0)


def open_until(rules: Rules, step: Step) -> float | None:
    """Return the end of the step's late window in seconds from when the step was read; None: nothing is open."""
    return None if step.unanswered_for is None else late_seconds(rules) - step.unanswered_for


def is_known(error: BillingError) -> bool:
    """Return True if the error says what became of the call; a part that does not answer says nothing."""
    return error.status < _SERVER_ERROR or error.code == "stripe_rejected"


SUBSCRIPTION_CHANGES = "customer.subscription.*"


async def changed_despite_5xx(
    context: Context, operation_id: str, step: Step, event_types: str
) -> list[tuple[str, Mapping[str, str]]]:
    """Return what attempts changed although they were answered 5xx, even if somebody has undone it since.

    The result holds ids, and the metadata that was left then. It is empty unless such an answer is the last thing that
    is known of the step. `event_types`: as `customer.updated`, or a group as `SUBSCRIPTION_CHANGES`.
    """
    if step.state is not State.AMBIGUOUS:
        return []
    return await changed_by_step(context, operation_id, step, event_types)


async def changed_by_step(
    context: Context, operation_id: str, step: Step, event_types: str
) -> list[tuple[str, Mapping[str, str]]]:
    """Return the objects that attempts of the step have changed, by Stripe's events, and the metadata left then."""
    async with context.database.connection() as connection:
        operation = await operations.operation(connection, operation_id)
    if operation is None:
        return []
    since = int(operation.created_at.timestamp()) - _CLOCKS_APART_SECONDS
    try:
        return await context.stripe.changed_by(f"{operation_id}/{step.position}/", event_types, since=since)
    except BillingError as error:
        if not is_known(error):
            raise
        # A restricted key that may not read events: what the object shows has to do.
        log.warning("events_not_readable", code=error.code)
        return []


async def held_invoice(
    context: Context, operation: Operation, step: Step, snapshot: Snapshot | None
) -> AwaitedInvoice | None:
    """Return the invoice for which Stripe held back the change that attempts of the step made; None if it did not.

    Stripe's events name it. The newest invoice of the subscription may be that of another update, which replaced it.
    """
    since = int(operation.created_at.timestamp()) - _CLOCKS_APART_SECONDS
    key_prefix = f"{operation.id}/{step.position}/"
    invoice_id = await context.stripe.held_invoice(operation.subscription_id, key_prefix, since=since)
    if invoice_id is None:
        return None
    held = snapshot.pending_update if isinstance(snapshot, Subscription) else None
    expires_at = None if held is None else held.get("expires_at")
    return AwaitedInvoice(invoice_id, operation.subscription_id, expires_at, context.rules.payment_window)


async def locked_view(
    connection: Connection, subscription_id: SubscriptionId, actor_id: CustomerId | None
) -> SubscriptionView | None:
    """Lock the subscription until the transaction ends, and return it as a step that is sent is judged by it.

    Raises:
        ServiceUnavailable: There is a pending notification of the subscription or the actor, which is read first.
    """
    await subscriptions.lock(connection, subscription_id)
    concerned: list[tuple[str, str]] = [("subscription", subscription_id)]
    if actor_id is not None:
        concerned.append(("customer", actor_id))
    if await refreshes.wanted(connection, concerned):
        raise ServiceUnavailable(
            "The subscription was changed, and the change is still to be read.", retry_after=1
        )
    return await subscriptions.subscription_view(connection, subscription_id, asker=actor_id)


def pauses() -> Iterator[float]:
    """Yield the seconds between the tries of a running operation, without an end."""
    pause = _FIRST_PAUSE_SECONDS
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
