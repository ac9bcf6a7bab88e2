"""What every sending of a step needs: its late window, its evidence in Stripe's events, and the pauses between tries.

The states of a step and what moves it are in `app.operations.lifecycle`. A failure settles a step only if no earlier
request of it may still take effect. Such a request has ended once Stripe has answered its key from memory, or once
`LATE_WINDOW` has passed since the key was last sent.

`send` is for the changes of a subscription, which have an order of their own (`app.subscriptions.writes`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TypeVar, cast
from uuid import UUID

import structlog

from app.context import Context, Rules
from app.domain.ids import CustomerId, SubscriptionId
from app.domain.snapshots import JsonObject
from app.domain.views import SubscriptionView
from app.errors import BillingError, Conflict, ServiceUnavailable, StripeOutcomeUnknown
from app.mirror.store import refreshes, subscriptions
from app.operations import store as operations
from app.operations.attempt_events import event_of
from app.operations.lifecycle import Event, State, may_settle
from app.operations.rows import Step
from app.postgres.database import Connection
from app.stripe.attempts import Attempt
from app.stripe.client import TOTAL_SECONDS, Write

log = structlog.get_logger(__name__)

HANDED_OVER_SECONDS = 15.0
"""After which a worker, at the latest, tries again what is still open."""
MONEY_DETAILS = ("allowed", "invoice_id", "invoice_status", "hosted_invoice_url", "credit", "retry_after")
"""Members of a refusal's problem document that the result of its step shows too."""
_SERVER_ERROR = 500
_CLOCKS_APART_SECONDS = 60
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 2.0

Result = TypeVar("Result")
Check = Callable[[Connection], Awaitable[Exception | None]]
"""Check run in the transaction that records a step as sent. Returns None, or the error that blocks it."""


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


def is_terminal(rules: Rules, step: Step, error: BillingError) -> bool:
    """Return True if the step may be settled as failed with this error; `step` is its row as it is now."""
    return is_known(error) and not may_come_late(rules, step)


async def send(
    context: Context,
    operation_id: str,
    step: Step,
    token: UUID,
    write: Write[Result],
    *,
    check: Check | None = None,
    suffix: str = "",
) -> Result:
    """Send a step's write with the key of operation, step and attempt, and return what Stripe answered.

    In this order: the grant of the rate budget, for which a call may wait for seconds; then, in one transaction, the
    check and the record that the step is sent; then the call; then the record of what became of it.
    `step` must have been read under the lease of `token`. `check` is made before the first sending of a key; the error
    that it returns is raised, and nothing was sent. `suffix`: for a second write of the same step.

    Raises:
        StripeErrorStored: Stripe keeps a 5xx under the key; the next attempt has another key.
        StripeOutcomeUnknown: The effect is open. The same key is to be sent again.
        ServiceUnavailable: Nothing was sent.
        Conflict: `operation_expired` for a step whose key is too old: nobody expects a change of yesterday.
        BillingError: Stripe refused the request, and no request of the step can take effect any more. If an earlier
            one was never answered (`step.was_sent`), it may have: then a read decides what is reported.
    """
    if step.is_expired:
        raise Conflict("It was not carried out in time.", code="operation_expired")
    grant = await write.grant()
    sent = await _record_sending(context, operation_id, step, token, check)
    tried = await write.attempt(grant, f"{operation_id}/{step.position}/{step.attempt}{suffix}")
    if tried.error is None:
        return cast("Result", tried.result)
    await _record(context, operation_id, step, sent, tried.attempt)
    raise _reported(context.rules, step, tried.attempt, tried.error) from tried.error


async def _record_sending(
    context: Context, operation_id: str, step: Step, token: UUID, check: Check | None
) -> Step:
    """Raise what speaks against the sending; a check that settles the step is committed before."""
    async with context.database.transaction() as connection:
        against = None if check is None or step.has_sent_key else await check(connection)
        if against is None:
            return await operations.transition(
                connection, operation_id, step, Event.SEND_RECORDED, token=token
            )
    raise against


async def _record(context: Context, operation_id: str, step: Step, sent: Step, attempt: Attempt) -> None:
    """Record what became of an attempt that did not succeed; `step` is its row from before the sending."""
    event = _event_of(step, attempt)
    if event in (Event.NO_ANSWER, Event.UNSTORED_ERROR):
        # The sending has been recorded: the step stays in flight, and its late window has begun again.
        return
    if event is not Event.STORED_ERROR and event is not Event.REJECTED and attempt.has_open_try:
        return
    async with context.database.connection() as connection:
        if event is Event.REJECTED:
            await operations.answered(connection, operation_id, sent)
        elif event is not None:
            await operations.transition(connection, operation_id, sent, event, before=step)


def _event_of(step: Step, attempt: Attempt) -> Event | None:
    return event_of(attempt, was_unanswered=step.unanswered_at is not None, number=step.attempt)


def _reported(rules: Rules, step: Step, attempt: Attempt, error: BillingError) -> BillingError:
    event = _event_of(step, attempt)
    is_open = attempt.has_open_try or may_come_late(rules, step)
    if event is Event.STORED_ERROR_WHILE_OPEN or (is_known(error) and _says_nothing(event) and is_open):
        return StripeOutcomeUnknown("An earlier attempt may take effect yet.", retry_after=2)
    return error


def _says_nothing(event: Event | None) -> bool:
    return event in (Event.REJECTED_WHILE_OPEN, Event.NOT_SENT_WHILE_OPEN)


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
    context: Context, operation_id: str, step: Step, subscription_id: SubscriptionId
) -> str | None:
    """Return the invoice for which Stripe held back the change that attempts of the step made; None if it did not."""
    async with context.database.connection() as connection:
        operation = await operations.operation(connection, operation_id)
    if operation is None:
        return None
    since = int(operation.created_at.timestamp()) - _CLOCKS_APART_SECONDS
    return await context.stripe.held_invoice(subscription_id, f"{operation_id}/{step.position}/", since=since)


async def locked_view(
    connection: Connection, subscription_id: SubscriptionId, actor_id: CustomerId | None
) -> SubscriptionView | None:
    """Lock the subscription until the transaction ends, and return it as a step that is sent is judged by it.

    Raises:
        ServiceUnavailable: There is a pending notification of the subscription or the actor, which is read first.
    """
    await subscriptions.lock(connection, subscription_id)
    concerned = [subscription_id] if actor_id is None else [subscription_id, actor_id]
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
