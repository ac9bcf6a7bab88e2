"""The operation around one change of a subscription, from request to answer.

A request whose answer is lost is sent again with the same key until the caller's deadline. Then the caller gets the
operation's id, and a worker settles it. An operation that was never sent is withdrawn instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID, uuid4

import structlog

from app.context import Context
from app.customers.failures import TOO_MANY_DECLINES
from app.domain.ids import SubscriptionId
from app.domain.payments import PaymentStep
from app.domain.roles import Permission
from app.domain.seats import is_shareable
from app.domain.snapshots import JsonObject, Subscription
from app.domain.views import SubscriptionView
from app.errors import (
    BillingError,
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    PaymentRequired,
    RateLimited,
    ServiceUnavailable,
    StripeRejected,
)
from app.identity.actors import Actor
from app.mirror.visibility import Seen, read
from app.operations import lease_store, waiting_store
from app.operations import store as operations
from app.operations.endings import PAYMENT_ABANDONED, PAYMENT_ACTION_REQUIRED, UPDATE_EXPIRED
from app.operations.kinds import Ended, Ending
from app.operations.lifecycle import State
from app.operations.rows import Step
from app.operations.runner import Accepted, hand_over, in_background, run, within
from app.operations.sending import money_details
from app.operations.waiting import waits
from app.postgres.database import Connection
from app.stripe.billing import Changed, is_whole
from app.subscriptions.orders import Conditions, Method, Order
from app.subscriptions.superseding import MustSupersede, outdated_change

log = structlog.get_logger(__name__)

PAYMENT_READ_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Done:
    """A change that was made: the subscription, and what is left to pay or set up.

    `credit_forgone`: the credit that the change did not give, minor units. `operation_id`: None if nothing was to do.
    """

    seen: Seen
    payment: PaymentStep | None
    credit_forgone: int = 0
    operation_id: str | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """An operation and its order.

    `token`: the lease, None while another process runs the operation. `settled`: its last step, once settled.
    """

    operation_id: str
    subscription_id: SubscriptionId
    order: Order
    token: UUID | None
    settled: Step | None = None


async def begun(context: Context, connection: Connection, operation_id: str) -> Begun | None:
    """Return the operation that an earlier request with the same key began, or None.

    If no process runs it, its lease is taken.
    """
    operation = await operations.operation(connection, operation_id)
    if operation is None:
        return None
    found = Begun(operation_id, operation.subscription_id, Order.of(operation), None)
    if operation.settled_at is not None:
        (*_, step) = await operations.steps(connection, operation_id)
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
    order: Order,
    seats_left: int | None = None,
    quote_id: str | None = None,
    needs: Sequence[Permission] = (),
    end_by: str | None = None,
    view: SubscriptionView | None = None,
    ends_later: bool = False,
) -> Begun:
    """Store the operation of one order, under a new lease.

    `view`: the subscription that it changes, None for one that it creates. If metadata names no owner and the actor
    pays, the operation names them first.
    `seats_left`: the seats after the change; admissions are held to them from now on. If the change raises the
    quantity, a raise made in the Dashboard in between is overwritten. `needs`: what the actor must be allowed when it
    is sent for the first time. `quote_id`: the quote that it uses up, unless it fails. `end_by`: the party that
    sets an end with it, see `ending.EndBy`. `ends_later`: a purchase that waits for its payment is ended by the
    operation.

    Raises:
        Conflict: `operation_in_progress` while another change of the subscription is unsettled.
        MustSupersede: a purchase waits for its payment, and has to end for this change.
    """
    if subscription_id and order.supersedes_waiting:
        order = await _superseding(connection, subscription_id, order, ends_later=ends_later)
    if order.quote_id is not None and not order.ends_waiting:
        # The quote is kept or has expired.
        order = replace(order, counted={})
    beside_payment = order.changes_only_end or order.ends_waiting or not order.supersedes_waiting
    if subscription_id and await operations.subscription_change_runs(
        connection, subscription_id, beside_payment=beside_payment
    ):
        raise Conflict("Another change of this subscription is still running.", retry_after=2)
    if view is not None and await _names_owner(connection, actor, view, order):
        order = replace(order, to_id=view.customer_id)
    conditions = Conditions(order.method, needs, seats_left, end_by, quote_id, asks_first=order.asks_first)
    token = uuid4()
    await operations.insert(
        connection,
        operation_id=operation_id,
        subscription_id=subscription_id,
        kind=kind,
        principal=actor.principal.key,
        actor_id=actor.customer_id,
        source="api",
        request=order.as_request(),
        steps=_planned(kind, order, conditions),
        lease_token=token,
        lease_seconds=context.rules.operation_lease,
        seat_total=seats_left,
    )
    return Begun(operation_id, subscription_id, order, token)


async def _names_owner(connection: Connection, actor: Actor, view: SubscriptionView, order: Order) -> bool:
    """Return True if the order is the first change of a payer who owns the subscription without being named.

    A subscription that ends needs no owner, and nothing is written beside a change that waits for its payment.
    """
    is_first = order.method in (Method.UPDATE, Method.RESUME) and view.is_owned_by_payer_unnamed
    if (
        not is_first
        or order.shown_end is not None
        or actor.customer_id != view.customer_id
        or not is_shareable(view.seat_items())
    ):
        return False
    return not await operations.subscription_change_runs(connection, view.id)


def _planned(kind: str, order: Order, conditions: Conditions) -> list[JsonObject]:
    naming = Conditions(Method.NAME_OWNER)
    writes = [
        naming if method is Method.NAME_OWNER else replace(conditions, method=method)
        for method in order.writes
    ]
    return [
        {"position": position, "action": kind, "state": "planned", "details": one.as_details()}
        for position, one in enumerate(writes)
    ]


async def _superseding(
    connection: Connection, subscription_id: SubscriptionId, order: Order, *, ends_later: bool
) -> Order:
    """Return the order that ends what waits for its payment by itself, if it may; as it is, if nothing waits.

    An order that Stripe was not asked about is judged by its operation, so what waits ends there too: a change that is
    refused ends nothing. A change of only the end is made beside a purchase whose payment is processing, so it has
    nothing to end if that purchase is to end already.

    Raises:
        MustSupersede: What waits is to end before the order is stored.
    """
    found = await waiting_store.of_subscription(connection, subscription_id)
    if order.changes_only_end:
        found = [waiting for waiting in found if waiting.end_code is None]
    if not found:
        return order
    if ends_later or order.unread is not None:
        return replace(order, ends_waiting=True)
    # Admitted again once that purchase has ended, the order is made of the copy as it is then.
    raise MustSupersede(replace(order, counted={}).unpriced, changes_only_end=order.changes_only_end)


async def carry_out(context: Context, begun: Begun) -> Changed | Accepted:
    """Run the operation until its outcome is known, and return the subscription as it is then.

    Return Accepted if the outcome is still open at the request's deadline, if Stripe is away, or if too many requests
    wait for Stripe already.

    Raises:
        BillingError: Stripe or a rule refused the change, and that is certain.
        ServiceUnavailable: nothing was sent; the operation is withdrawn, and nothing will be done.
    """
    if begun.token is None:
        return await _of_before(context, begun)
    if context.stripe_waits.is_full:
        accepted = await _accepted(context, begun)
        await hand_over(context, begun.operation_id, begun.token)
        return accepted
    deadline = context.rules.operation_deadline
    work = in_background(run(context, begun.operation_id, begun.token, patience=deadline))
    try:
        with context.stripe_waits.one_more():
            ended = await context.breakers["write"].patiently(deadline, work)
        failure = next((one.error for one in ended if one.ending is not Ending.SETTLED), None)
    except TimeoutError:
        ended, failure = [], ServiceUnavailable("Nothing could be sent to Stripe in time.", retry_after=2)
    except BillingError as error:
        ended, failure = [], error
    if failure is None:
        return await _of_run(context, begun, ended)
    if context.breakers["write"].is_open:
        return await _accepted(context, begun)
    async with context.database.transaction() as connection:
        is_discarded = await operations.discard(connection, begun.operation_id, begun.token)
    if not is_discarded:
        return Accepted(begun.operation_id)
    await _end(work)
    raise failure


async def _accepted(context: Context, begun: Begun) -> Accepted:
    """Answer that the change goes on without its request; note that the caller of a purchase learns that."""
    if begun.order.method is Method.CREATE:
        async with context.database.connection() as connection:
            await operations.add_details(connection, begun.operation_id, 0, {"accepted": True})
    return Accepted(begun.operation_id)


async def _of_run(context: Context, begun: Begun, ended: Sequence[Ended]) -> Changed | Accepted:
    """Return what a run of this process came to, or raise its refusal as Stripe or a rule worded it."""
    for one in ended:
        if one.error is not None:
            raise one.error
    answer = next((one.answer for one in reversed(ended) if one.answer is not None), None)
    if isinstance(answer, Changed):
        return answer
    async with context.database.connection() as connection:
        (*_, step) = await operations.steps(connection, begun.operation_id)
    if step.state is State.AWAITING_PAYMENT:
        return await _as_it_is(context, begun.operation_id)
    if step.is_settled and step.code == "version_conflict":
        raise outdated_change()
    return await _of_before(context, replace(begun, settled=step if step.is_settled else None))


async def _end(work: asyncio.Task[list[Ended]]) -> None:
    """End the work of a discarded operation, and wait until what it read of the subscription is applied.

    For example the quantity was lowered in the Dashboard, the work read that, and then Stripe did not answer in time.
    If the work went on, the row would show the old quantity until it ended, and an addition would be admitted by it.
    """
    work.cancel()
    await asyncio.wait([work])


async def payment_of(context: Context, begun: Begun, changed: Changed) -> PaymentStep | Accepted | None:
    """Read what is left to pay after a settled change.

    Return Accepted if Stripe does not answer. The change stands even if its payment cannot be read: then the operation
    shows what it did.
    """
    try:
        return await within(context, PAYMENT_READ_SECONDS, context.billing.payment_step(changed))
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
    if begun.settled.state in (State.APPLIED, State.UNCHANGED):
        return await _as_it_is(context, begun.operation_id)
    if code in ("card_declined", "payment_action_required"):
        raise PaymentRequired(code=code)
    if code in (PAYMENT_ABANDONED, UPDATE_EXPIRED):
        raise PaymentRequired(_ENDED_UNPAID, code=PAYMENT_ACTION_REQUIRED)
    if code == "not_found":
        raise NotFound()
    if code == "role_required":
        raise Forbidden()
    if code == TOO_MANY_DECLINES:
        raise RateLimited(_REFUSED_BEFORE, code=code, retry_after=1)
    if code in (
        "seats_in_use",
        "operation_expired",
        "operation_in_progress",
        "promotion_code_in_use",
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
_ENDED_UNPAID = (
    "The purchase ended before it was paid. To buy it, send the request with another Idempotency-Key."
)


async def _as_it_is(context: Context, operation_id: str) -> Changed:
    async with context.database.connection() as connection:
        operation = await operations.operation(connection, operation_id)
    if operation is None:
        raise LookupError("a change that was made has no operation")
    return await as_it_is(context, operation.subscription_id)


async def as_it_is(context: Context, subscription_id: SubscriptionId) -> Changed:
    """Return the subscription as Stripe has it now, with all its items.

    Raises:
        NotFound: Stripe has no such subscription.
        BillingError: Stripe does not answer.
    """
    changed = await context.billing.subscription(subscription_id)
    if is_whole(changed.subscription):
        return changed
    whole = await context.stripe.fetch("subscription", subscription_id)
    if not isinstance(whole.snapshot, Subscription):
        raise NotFound()
    return replace(changed, subscription=whole.snapshot)


async def carry_out_change(context: Context, actor: Actor, begun: Begun) -> Done | Accepted:
    """Carry a change or a purchase out, and return the subscription as the actor sees it then.

    Return Accepted if the outcome is open, or if the change waits for its payment.

    Raises:
        BillingError: Stripe or a rule refused the change.
        ServiceUnavailable: nothing was sent.
    """
    changed = await carry_out(context, begun)
    if isinstance(changed, Accepted):
        return changed
    payment = await payment_of(context, begun, changed)
    if isinstance(payment, Accepted):
        return payment
    if await waits(context, begun.operation_id):
        return Accepted(begun.operation_id, payment)
    async with context.database.connection() as connection:
        seen = await read(connection, actor, SubscriptionId(changed.subscription.id), context.rules)
        steps = await operations.steps(connection, begun.operation_id)
    forgone = sum(Conditions.of(step).credit_forgone for step in steps)
    return Done(seen, payment, credit_forgone=forgone, operation_id=begun.operation_id)
