"""One operation, one call that moves money, one settlement.

The call runs under the subscription's lease with the operation's own key. Its answer settles the operation in the
transaction that applies it.
"""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from app.context import Context
from app.customers.payment_details import attach_payment_method
from app.domain.ids import SubscriptionId
from app.domain.roles import Permission, require
from app.domain.seats import check_floor
from app.domain.snapshots import Subscription
from app.domain.views import SubscriptionView
from app.errors import (
    BillingError,
    Forbidden,
    NotFound,
    StripeErrorStored,
    StripeOutcomeUnknown,
)
from app.mirror import refreshing as sync
from app.mirror.visibility import see_as
from app.operations import store as operations
from app.operations.lifecycle import State
from app.operations.rows import Step
from app.operations.sending import (
    SUBSCRIPTION_CHANGES,
    changed_by_step,
    changed_despite_5xx,
    held_invoice,
    is_known,
    locked_view,
    send,
)
from app.postgres.database import Connection
from app.stripe.billing import Changed, is_whole
from app.stripe.client import Write
from app.stripe.gateway import Fetched
from app.subscriptions import charges, quotes
from app.subscriptions.payment_bounds import suited
from app.subscriptions.settlements import settle_failed, settling, unreadable_change
from app.subscriptions.stripe_calls import StripeCall


async def attach_first(context: Context, operation_id: str, call: StripeCall) -> StripeCall:
    """Attach the call's payment method; return the call that charges it.

    Repeated with the same operation it has no further effect. A decline settles the operation as failed.

    Raises:
        PaymentRequired: the card was declined.
        NotFound: there is no such payment method.
        StripeOutcomeUnknown: the outcome is open; the same call is to be made again.
    """
    if call.attach is None:
        return call
    method_id, customer_id = (call.attach[name] for name in ("payment_method_id", "customer_id"))
    try:
        attached = await attach_payment_method(context, customer_id, method_id, operation_id=operation_id)
    except BillingError as error:
        if is_known(error):
            await settle_failed(context, operation_id, error)
        raise
    return replace(call, params={**call.params, "default_payment_method": attached}, attach=None)


async def send_once(
    context: Context,
    operation_id: str,
    subscription_id: SubscriptionId,
    call: StripeCall,
    token: UUID,
) -> Changed:
    """Check the call again, record that it is sent, and send it once.

    The key consists of operation, step and attempt.

    Raises:
        StripeErrorStored: Stripe stored a 5xx under the key; the next attempt has another key.
        StripeOutcomeUnknown: the effect is open; the same key is to be sent again.
        BillingError: any other outcome, which is certain.
    """
    async with context.database.connection() as connection:
        (step, *_) = await operations.steps(connection, operation_id)

    async def check(connection: Connection) -> BillingError | None:
        return await _against(context, connection, operation_id, subscription_id, step)

    async def post(write: Write[Changed], *, suffix: str = "") -> Changed:
        return await send(context, operation_id, step, token, write, check=check, suffix=suffix)

    return await call.perform(context, subscription_id, post)


async def was_sent(context: Context, operation_id: str) -> bool:
    """Return True if an attempt of the operation's call may have taken effect."""
    async with context.database.connection() as connection:
        (step, *_) = await operations.steps(connection, operation_id)
    return step.was_sent


async def _send(
    context: Context,
    operation_id: str,
    subscription_id: SubscriptionId,
    call: StripeCall,
    token: UUID,
    pre_write: sync.PreWriteSnapshot,
) -> Changed:
    """Send the call; after a stored 5xx, only if the subscription shows no effect.

    The next attempt has another key.
    """
    async with context.database.connection() as connection:
        (step, *_) = await operations.steps(connection, operation_id)
    if step.attempt:
        now = await as_it_is(context, subscription_id)
        pre_write.found = now.fetched
        if call.shows_in(now.subscription):
            return now
        if await changed_despite_5xx(context, operation_id, step, SUBSCRIPTION_CHANGES):
            return await _with_held_invoice(context, operation_id, step, now)
    if not step.has_sent_key:
        call = await _priced(context, operation_id, call, pre_write)
    try:
        return await send_once(context, operation_id, subscription_id, call, token)
    except BillingError as error:
        # Stripe keeps no answer of a DELETE: what an attempt with a lost answer has ended, the next does not find.
        is_lost_end = call.method in ("cancel", "end_unpaid") and isinstance(
            error, (StripeOutcomeUnknown, NotFound)
        )
        is_in_doubt = step.was_sent and is_known(error)
        if not (isinstance(error, StripeErrorStored) or is_lost_end or is_in_doubt):
            raise
        now = await as_it_is(context, subscription_id)
        if call.shows_in(now.subscription):
            return now
        if is_in_doubt and await changed_by_step(context, operation_id, step, SUBSCRIPTION_CHANGES):
            return await _with_held_invoice(context, operation_id, step, now)
        raise


async def _with_held_invoice(context: Context, operation_id: str, step: Step, now: Changed) -> Changed:
    """Add the invoice that the change was held back for.

    Only the invoice says what became of a change that the subscription does not show.
    """
    invoice_id = await held_invoice(context, operation_id, step, now.subscription.id)
    return replace(now, held_invoice_id=invoice_id)


async def _priced(
    context: Context, operation_id: str, call: StripeCall, pre_write: sync.PreWriteSnapshot
) -> StripeCall:
    """Price the change under the subscription's lease; store what is to be sent.

    Raises:
        Conflict: `invoice_unpaid`, `unsecured_raise_limit`, or `quote_expired` if the quote cannot be kept.
        NotFound: Stripe has no such subscription.
    """
    prices_items = call.method == "update" and not {"items", "trial_end"}.isdisjoint(call.params)
    credits_time = call.method == "cancel" and call.params.get("prorate") is True
    if not (prices_items or credits_time):
        return call
    found = await pre_write.read()
    if not isinstance(found.snapshot, Subscription):
        raise NotFound()
    if credits_time:
        sent, forgone = dict(call.params), 0
        unpaid = await charges.credits_unpaid_on_cancel(context, found.snapshot, found.at)
        if unpaid is not None:
            sent, forgone = {**sent, "prorate": False}, unpaid.credit
    else:
        priced = await quotes.price_as_quoted(
            context,
            found.snapshot,
            found.at,
            call.params,
            quote_id=call.quote_id,
            restarts=call.restarts,
            forgo_credit=call.forgo_credit,
        )
        sent = await suited(context, operation_id, found.snapshot, found.at, priced)
        forgone = priced.credit_forgone
    call = replace(call, sent=sent, credit_forgone=forgone)
    async with context.database.connection() as connection:
        await operations.set_request(connection, operation_id, call.as_request())
    return call


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


async def write(
    context: Context, operation_id: str, subscription_id: SubscriptionId, call: StripeCall, token: UUID
) -> Changed:
    """Send a change of an existing subscription, apply the answer and settle it.

    Raises:
        Forbidden: the actor has lost the permission; nothing was sent.
        BillingError: Stripe or a rule refused the change, or its outcome is open.
    """
    async with context.database.connection() as connection:
        operation = await operations.operation(connection, operation_id)
        (step, *_) = await operations.steps(connection, operation_id)
    if operation is not None:
        # An earlier attempt may have priced it.
        call = StripeCall(**operation.request)
    if step.state == "refused" and step.code == "role_required":
        # The right was withdrawn before anything was sent.
        raise Forbidden()
    if step.state == State.AWAITING_PAYMENT:
        # Stripe accepted it: it is never sent again.
        return await as_it_is(context, subscription_id)
    call = await attach_first(context, operation_id, call)
    if operation is not None and not step.has_sent_key:
        concerned = {"subscription": subscription_id, "customer": operation.actor_id}
        await sync.refresh_if_notified(context, concerned)
    lease = await sync.take_lease(context, "subscription", subscription_id)
    pre_write = sync.PreWriteSnapshot(context, lease)
    done: list[Changed] = []

    async def send() -> Fetched:
        done.append(await _send(context, operation_id, subscription_id, call, token, pre_write))
        return done[-1].fetched

    try:
        await sync.apply(context, lease, send, settling(context, operation_id, done), pre_write)
    except BillingError as error:
        if is_known(error):
            if done:
                raise unreadable_change() from error
            await settle_failed(context, operation_id, error)
        raise
    return done[-1]


async def _against(
    context: Context,
    connection: Connection,
    operation_id: str,
    subscription_id: SubscriptionId,
    step: Step,
) -> BillingError | None:
    """Return what forbids a sending that may have a new effect, or None.

    Such a sending is the first one, or one with a new key. Since the admission the actor may have lost the permission,
    or somebody may have become a member in the Dashboard. The error is Forbidden or Conflict `seats_in_use`.
    """
    if step.has_sent_key or not subscription_id:
        return None
    operation = await operations.operation(connection, operation_id)
    actor_id = None if operation is None else operation.actor_id
    view = await locked_view(connection, subscription_id, actor_id)
    needs = [Permission(name) for name in step.details.get("needs", ())]
    left = step.details.get("seats_left")
    try:
        if actor_id is not None:
            seen = None if view is None else see_as(view, actor_id, context.rules)
            granted = frozenset[Permission]() if seen is None else seen.granted
            require(granted, *needs)
            only_lower = Permission.LOWER_QUANTITY in needs and Permission.BUY_SEATS not in granted
            if only_lower and view is not None and operation is not None:
                _check_lowers(view, StripeCall(**operation.request))
        if view is not None and left is not None:
            check_floor(view.seats(owner_uses_seat=context.rules.owner_uses_seat), left)
    except BillingError as error:
        return error
    return None


def _check_lowers(view: SubscriptionView, call: StripeCall) -> None:
    """Raise Forbidden if the admitted reduction would now raise a quantity.

    The quantity was lowered further in the Dashboard in between.
    """
    now = {item["id"]: item["quantity"] or 0 for item in view.items}
    if any(entry["quantity"] > now.get(entry["id"], 0) for entry in call.params["items"]):
        raise Forbidden("Your role on this subscription allows you to lower its quantity, not to raise it.")
