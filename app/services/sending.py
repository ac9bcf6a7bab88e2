"""Sending what a step has to send: recorded before it leaves, and what its answer allows to be concluded.

A step is settled from a known answer only. So a failure counts for nothing while an earlier sending of the same step
may still take effect: one that was never answered, unless Stripe has answered its key since (`kept`), or until its
time-out and a lease have passed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TypeVar
from uuid import UUID

import structlog

from app.cache import operations, refreshes, subscriptions
from app.cache.database import Connection
from app.cache.operations import Step
from app.domain.ids import CustomerId, SubscriptionId
from app.domain.views import SubscriptionView
from app.errors import BillingError, Conflict, ServiceUnavailable, StripeOutcomeUnknown
from app.services.context import Context, Rules
from app.stripe_gateway.client import TOTAL_SECONDS, Once

log = structlog.get_logger(__name__)

HANDED_OVER_SECONDS = 15.0
"""After which a worker, at the latest, tries again what is still open."""
_SERVER_ERROR = 500
_CLOCKS_APART_SECONDS = 60
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 2.0

Answer = TypeVar("Answer")
MayLeave = Callable[[Connection], Awaitable[Exception | None]]
"""Asked in the transaction that records a step as sent, once it is its turn: None, or what speaks against it."""


def late_seconds(rules: Rules) -> float:
    """So long after its sending a request that was never answered may still take effect."""
    return TOTAL_SECONDS + rules.operation_lease


def may_come_late(rules: Rules, step: Step) -> bool:
    """Is a sending without an answer recent enough to take effect yet?"""
    return step.unanswered_for is not None and step.unanswered_for <= late_seconds(rules)


def is_known(error: BillingError) -> bool:
    """A refusal of Stripe's is final; a part that is away says nothing of what became of the call."""
    return error.status < _SERVER_ERROR or error.code == "stripe_rejected"


def is_final(rules: Rules, step: Step, error: BillingError) -> bool:
    """May the step, as it was read before, be settled as failed with this error?"""
    return is_known(error) and (error.kept or not (error.tries_open or may_come_late(rules, step)))


async def send(
    context: Context,
    operation_id: str,
    step: Step,
    token: UUID,
    call: Callable[[Once], Awaitable[Answer]],
    *,
    may_leave: MayLeave | None = None,
    suffix: str = "",
) -> Answer:
    """`call` is given the key of operation, step and attempt. `step` must have been read under the lease of `token`.

    `may_leave`: asked when it is about to be sent for the first time, or after an answer that counted for nothing, and
    after any wait for the rate budget; what it answers is raised, and nothing was sent.
    Raises StripeOutcomeUnknown where the effect is open, ServiceUnavailable where nothing was sent, and Conflict
    `operation_expired` for a step whose key is too old: nobody expects a change of yesterday any more.
    """
    if step.is_expired:
        raise Conflict("It was not carried out in time.", code="operation_expired")
    has_left = False

    async def leaves() -> None:
        nonlocal has_left
        why_not: Exception | None = None
        async with context.database.transaction() as connection:
            if may_leave is not None and step.state == "planned":
                why_not = await may_leave(connection)
            if why_not is None and not await operations.begin_sending(
                connection, operation_id, step.position, attempt=step.attempt, token=token
            ):
                why_not = ServiceUnavailable(
                    "This change is carried out elsewhere, or waits for its key.", retry_after=2
                )
        if why_not is not None:
            raise why_not
        has_left = True

    try:
        return await call(Once(f"{operation_id}/{step.position}/{step.attempt}{suffix}", leaves))
    except BillingError as error:
        if has_left:
            await _note(context, operation_id, step, error)
        raise


async def _note(context: Context, operation_id: str, step: Step, error: BillingError) -> None:
    open_before = not error.kept and (error.tries_open or may_come_late(context.rules, step))
    async with context.database.connection() as connection:
        if isinstance(error, StripeOutcomeUnknown):
            if not error.answered:
                return
            if open_before:
                # A 5xx may be of the way to Stripe and not of the key: the same key is asked again.
                error.answered = False
                if not error.tries_open:
                    await operations.answered(connection, operation_id, step)
            else:
                await operations.next_attempt(connection, operation_id, step.position)
        elif error.tries_open:
            return
        elif is_known(error):
            await operations.answered(connection, operation_id, step)
        elif not error.left:
            await operations.take_back(connection, operation_id, step)


SUBSCRIPTION_CHANGES = "customer.subscription.*"


async def changed_in_vain(
    context: Context, operation_id: str, step: Step, event_types: str
) -> list[tuple[str, Mapping[str, str]]]:
    """What attempts that were answered 5xx have changed all the same, whatever is to be seen of it by now.

    Ids, and the metadata that was left then.
    `event_types`: as `customer.updated`, or a group as `SUBSCRIPTION_CHANGES`.
    """
    if not step.attempt or step.state != "planned" or step.is_expired:
        # Nothing was answered 5xx, or the next attempt has been sent by now and its own key tells, or none will be.
        return []
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


async def locked_view(
    connection: Connection, subscription_id: SubscriptionId, actor_id: CustomerId | None
) -> SubscriptionView | None:
    """What a step is judged by when it leaves: the plan, which nobody changes until the transaction ends.

    Raises ServiceUnavailable while there is news of plan or actor that the cache does not show: it is read first.
    """
    await subscriptions.lock(connection, subscription_id)
    concerned = [subscription_id] if actor_id is None else [subscription_id, actor_id]
    if await refreshes.wanted(connection, concerned):
        raise ServiceUnavailable("There is news of the plan that is still to be read.", retry_after=1)
    return await subscriptions.subscription_view(connection, subscription_id, asker=actor_id)


def pauses() -> Iterator[float]:
    """Seconds between a running operation's tries, for ever."""
    pause = _FIRST_PAUSE_SECONDS
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
