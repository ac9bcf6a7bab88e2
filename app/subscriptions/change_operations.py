"""The operation around one change of a subscription, from request to answer.

A request whose answer is lost is sent again with the same key until the caller's deadline. Then the caller gets the
operation's id, and a worker settles it. An operation that was never sent is withdrawn instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from uuid import UUID, uuid4

import structlog

from app.context import Context
from app.domain.ids import SubscriptionId
from app.domain.payments import PaymentStep
from app.domain.roles import Permission
from app.domain.snapshots import JsonObject
from app.errors import (
    BillingError,
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    PaymentRequired,
    ServiceUnavailable,
    StripeRejected,
)
from app.identity.actors import Actor
from app.mirror import refreshing as sync
from app.operations import lease_store, waiting_store
from app.operations import store as operations
from app.operations.rows import Operation, Step
from app.operations.runner import Accepted, in_background, operation_lease, within
from app.operations.sending import is_known, money_details, pauses
from app.operations.waiting import waits
from app.postgres.database import Connection
from app.stripe.billing import Changed
from app.subscriptions.settlements import Done, seen_now
from app.subscriptions.stripe_calls import StripeCall
from app.subscriptions.superseding import MustSupersede
from app.subscriptions.writes import as_it_is, write

log = structlog.get_logger(__name__)

PAYMENT_READ_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Begun:
    """An operation and its call.

    `token`: the lease, None while another process runs the operation. `settled`: its step, once settled.
    """

    operation_id: str
    subscription_id: SubscriptionId
    call: StripeCall
    token: UUID | None
    settled: Step | None = None


async def begun(context: Context, connection: Connection, operation_id: str) -> Begun | None:
    """Return the operation that an earlier request with the same key began, or None.

    If no process runs it, its lease is taken.
    """
    operation = await operations.operation(connection, operation_id)
    if operation is None:
        return None
    found = Begun(operation_id, operation.subscription_id, StripeCall(**operation.request), None)
    if operation.settled_at is not None:
        (step, *_) = await operations.steps(connection, operation_id)
        return replace(found, settled=step)
    token = uuid4()
    taken = await lease_store.take(
        connection, operation_id, lease_token=token, lease_seconds=context.rules.operation_lease
    )
    return replace(found, token=token if taken else None)


async def insert_operation(
    context: Context,
    connection: Connection,
    actor: Actor,
    operation_id: str,
    kind: str,
    subscription_id: SubscriptionId,
    call: StripeCall,
    seats_left: int | None = None,
    quote_id: str | None = None,
    needs: Sequence[Permission] = (),
    end_by: str | None = None,
) -> Begun:
    """Store the operation of one call, under a new lease.

    `seats_left`: the seats after the change; admissions are held to them from now on. If the change raises the
    quantity, a raise made in the Dashboard in between is overwritten. `needs`: what the actor must be allowed when the
    call is sent for the first time. `quote_id`: the quote that it uses up, unless it fails. `end_by`: the party that
    sets an end with it, see `ending.EndBy`.

    Raises:
        Conflict: `operation_in_progress` while another change of the subscription is unsettled.
        MustSupersede: a purchase waits for its payment, and has to end for this call.
    """
    if subscription_id and call.supersedes_waiting:
        await _check_nothing_waits(connection, subscription_id, call)
    beside_payment = call.changes_only_end or not call.supersedes_waiting
    if subscription_id and await operations.subscription_change_runs(
        connection, subscription_id, beside_payment=beside_payment
    ):
        raise Conflict("Another change of this subscription is still running.", retry_after=2)
    given = {"quote_id": quote_id, "seats_left": seats_left, "end_by": end_by}
    details: JsonObject = {"needs": list(needs)} | {n: v for n, v in given.items() if v is not None}
    step = {"position": 0, "action": kind, "state": "planned", "details": details}
    token = uuid4()
    await operations.insert(
        connection,
        operation_id=operation_id,
        subscription_id=subscription_id,
        kind=kind,
        principal=actor.principal.key,
        actor_id=actor.customer_id,
        source="api",
        request=call.as_request(),
        steps=[step],
        lease_token=token,
        lease_seconds=context.rules.operation_lease,
        seat_total=seats_left,
    )
    return Begun(operation_id, subscription_id, call, token)


async def _check_nothing_waits(
    connection: Connection, subscription_id: SubscriptionId, call: StripeCall
) -> None:
    """Raise MustSupersede, with what is to be priced first, while a purchase waits for its payment.

    A change of only the end is made beside a purchase that is to end as soon as no payment of it is processing.
    """
    found = await waiting_store.of_subscription(connection, subscription_id)
    if call.changes_only_end:
        found = [waiting for waiting in found if waiting.end_code is None]
    if not found:
        return
    is_priced = call.method == "update" and not {"items", "trial_end"}.isdisjoint(call.params)
    raise MustSupersede(
        call.params if is_priced else None,
        quote_id=call.quote_id,
        restarts=call.restarts,
        forgo_credit=call.forgo_credit,
        changes_only_end=call.changes_only_end,
    )


async def carry_out(
    context: Context, begun: Begun, attempt: Callable[[UUID], Awaitable[Changed]]
) -> Changed | Accepted:
    """Run `attempt` under the operation's lease until its outcome is known.

    Return Accepted if the outcome is still open at the request's deadline.

    Raises:
        BillingError: Stripe refused the change, and that is certain.
        ServiceUnavailable: nothing was sent; the operation is withdrawn, and nothing will be done.
    """
    token = begun.token
    if token is None:
        return await _of_before(context, begun)
    deadline = context.rules.operation_deadline
    work = in_background(_attempts(context, begun.operation_id, token, attempt, deadline))
    try:
        return await asyncio.wait_for(asyncio.shield(work), deadline)
    except TimeoutError:
        failure: BillingError = ServiceUnavailable("Nothing could be sent to Stripe in time.", retry_after=2)
    except BillingError as error:
        if is_known(error):
            raise
        failure = error
    async with context.database.connection() as connection:
        is_discarded = await operations.discard(connection, begun.operation_id, token)
    if not is_discarded:
        return Accepted(begun.operation_id)
    await _end(work)
    raise failure


async def _end(work: asyncio.Task[Changed]) -> None:
    """End the work of a discarded operation, and wait until what it read of the subscription is applied.

    For example the quantity was lowered in the Dashboard, the work read that, and then Stripe did not answer in time.
    If the work went on, the row would show the old quantity until it ended, and an addition would be admitted by it.
    """
    work.cancel()
    await asyncio.wait([work])


async def _attempts(
    context: Context,
    operation_id: str,
    token: UUID,
    attempt: Callable[[UUID], Awaitable[Changed]],
    patience: float,
) -> Changed:
    loop = asyncio.get_running_loop()
    give_up = loop.time() + patience
    async with operation_lease(context, operation_id, token):
        for pause in pauses():
            began = loop.time()
            try:
                return await attempt(token)
            except BillingError as error:
                # Another one that takes as long is to end in time: then it is known whether anything was sent.
                if is_known(error) or 2 * loop.time() - began + pause >= give_up:
                    raise
            await asyncio.sleep(pause)
    raise AssertionError("there is always another pause")


async def payment_of(context: Context, begun: Begun, changed: Changed) -> PaymentStep | Accepted | None:
    """Read what is left to pay after a settled change.

    Return Accepted if Stripe does not answer. The change stands even if its payment cannot be read: then the operation
    shows what it did.
    """
    try:
        return await within(PAYMENT_READ_SECONDS, context.billing.payment_step(changed))
    except TimeoutError:
        reason = "timeout"
    except BillingError as error:
        reason = error.code
    log.warning("payment_not_read", operation_id=begun.operation_id, reason=reason)
    return Accepted(begun.operation_id)


async def _of_before(context: Context, begun: Begun) -> Changed | Accepted:
    """Return the outcome of another request's operation, or raise its refusal."""
    if begun.settled is None:
        return Accepted(begun.operation_id)
    code = begun.settled.code
    if begun.settled.state in ("applied", "unchanged"):
        return await as_it_is(context, begun.subscription_id)
    if code in ("card_declined", "payment_action_required"):
        raise PaymentRequired(code=code)
    if code == "not_found":
        raise NotFound()
    if code == "role_required":
        raise Forbidden()
    if code in (
        "seats_in_use",
        "operation_expired",
        "already_subscribed",
        "version_conflict",
        "managed_by_schedule",
        "invoice_unpaid",
        "unsecured_raise_limit",
        "quote_expired",
        "subscription_not_active",
    ):
        raise Conflict(_REFUSED_BEFORE, code=code, members=money_details(begun.settled.details))
    if code in ("invalid_request", "currency_mismatch", "price_not_available"):
        raise InvalidRequest(_REFUSED_BEFORE, code=code)
    raise StripeRejected()


_REFUSED_BEFORE = (
    "The request was refused under this Idempotency-Key. To have it judged again, send it with another key."
)


async def read_again(context: Context, operation: Operation) -> None:
    """Read subscription and actor again before a worker's first sending.

    Raises:
        BillingError: Stripe or the database does not answer.
    """
    async with context.database.connection() as connection:
        (step, *_) = await operations.steps(connection, operation.id)
    if not step.was_sent and operation.actor_id is not None:
        await sync.read_through(context, "subscription", operation.subscription_id)
        await sync.read_through(context, "customer", operation.actor_id)


async def carry_out_change(
    context: Context, actor: Actor, subscription_id: SubscriptionId, begun: Begun
) -> Done | Accepted:
    """Carry a change out, and return the subscription as the actor sees it then.

    Return Accepted if the outcome is open, or if the change waits for its payment.

    Raises:
        BillingError: Stripe or a rule refused the change.
        ServiceUnavailable: nothing was sent.
    """

    async def attempt(token: UUID) -> Changed:
        return await write(context, begun.operation_id, subscription_id, begun.call, token)

    changed = await carry_out(context, begun, attempt)
    if isinstance(changed, Accepted):
        return changed
    payment = await payment_of(context, begun, changed)
    if isinstance(payment, Accepted):
        return payment
    if await waits(context, begun.operation_id):
        return Accepted(begun.operation_id, payment)
    done = await seen_now(context, actor, subscription_id, payment)
    async with context.database.connection() as connection:
        operation = await operations.operation(connection, begun.operation_id)
    forgone = 0 if operation is None else StripeCall(**operation.request).credit_forgone
    return replace(done, credit_forgone=forgone, operation_id=begun.operation_id)
