"""Purchases that wait for their payment, and how they end.

Stripe keeps such a change as a pending update, or as a subscription whose first invoice is not paid. It is never sent
again. Only its invoice proves its outcome; a payment that is processing is never voided.

Rules: docs/decisions/0017-let-a-waiting-purchase-hold-nothing.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from app.context import Context
from app.domain.ids import SubscriptionId
from app.domain.payments import PaymentStep, PurchaseInvoice
from app.domain.roles import Permission
from app.domain.snapshots import Snapshot, Subscription
from app.domain.statuses import ENDED
from app.domain.views import SubscriptionView
from app.errors import BillingError, NotFound, ServiceUnavailable, StripeErrorStored
from app.mirror.held_objects import HeldObject, held
from app.mirror.store import subscriptions
from app.mirror.visibility import Seen, see_as
from app.operations import waiting_store
from app.operations.endings import (
    PAID_WITHOUT_EFFECT,
    PAYMENT_ABANDONED,
    PAYMENT_ACTION_REQUIRED,
    Ending,
    ending_of,
)
from app.operations.lifecycle import Event, State
from app.operations.rows import Operation, Step
from app.operations.sending import is_known
from app.operations.shown_items import item_shows
from app.operations.step_kinds import StepKind
from app.operations.waiting_store import Waiting
from app.postgres.database import Connection
from app.stripe.gateway import Fetched

log = structlog.get_logger(__name__)

_READ_SECONDS: Final = 5.0
_CLOCKS_APART_SECONDS: Final = 60


async def settle_if_ended(
    context: Context, waiting: Waiting, *, end: str | None = None, wake: bool = False
) -> Ending | None:
    """Read the purchase's invoice, end it if it is to end, and settle it.

    `end`: the code with which the purchase is to end now. Without it, it ends if somebody asked for that before, or if
    the payment window has passed. `wake`: no process runs the operation, so a worker is to go on with the rest of it.

    Returns:
        How the purchase ended, or None while it waits: then a payment is processing, or nothing is to end it.

    Raises:
        ServiceUnavailable: Stripe or the database does not answer.
    """
    code = end or waiting.end_code or await _own_end(context, waiting)
    async with held(context, "subscription", waiting.subscription_id) as one:
        invoice = await _invoice(context, waiting)
        if code is not None and invoice.can_be_voided and not (waiting.is_first and await _has_begun(one)):
            invoice = await _void(context, waiting, invoice)
        found = await one.read()
        if waiting.is_first and invoice.status == "void":
            found = await _end_unpaid(context, waiting, one, found, invoice)
        ending = await _judged(context, waiting, invoice, found.snapshot, code)
        async with one.applied(found) as (connection, _):
            if ending is not None:
                await _settle(connection, waiting, ending, wake=wake)
    if ending is not None and ending.code == PAID_WITHOUT_EFFECT:
        log.error("paid_without_effect", operation_id=waiting.operation_id, invoice_id=waiting.invoice_id)
    return ending


async def _settle(connection: Connection, waiting: Waiting, ending: Ending, *, wake: bool) -> None:
    if not await waiting_store.settle(connection, waiting, ending):
        return
    if wake:
        await waiting_store.wake(connection, waiting.operation_id)
    log.info(
        "purchase_ended",
        operation_id=waiting.operation_id,
        event_name=ending.event.value,
        code=ending.code,
    )


async def _own_end(context: Context, waiting: Waiting) -> str | None:
    """Return the code with which the purchase ends although nobody has asked for that; None if it may go on.

    It ends after the payment window, and once its buyer has lost the right to buy.
    """
    if waiting.is_over:
        return PAYMENT_ACTION_REQUIRED
    return None if await _may_still_buy(context, waiting) else PAYMENT_ABANDONED


async def _may_still_buy(context: Context, waiting: Waiting) -> bool:
    """Return True if the buyer still has the permissions that the purchase needed."""
    if waiting.actor_id is None:
        return True
    async with context.database.connection() as connection:
        view = await subscriptions.subscription_view(
            connection, waiting.subscription_id, asker=waiting.actor_id
        )
    if view is None:
        return True
    seen = see_as(view, waiting.actor_id, context.rules)
    needs = {Permission(name) for name in waiting.needs}
    return needs <= (frozenset() if seen is None else seen.granted)


async def _has_begun(one: HeldObject) -> bool:
    """Return True if a first purchase has begun: its period is used, so its invoice is owed and never voided."""
    return _stands((await one.read()).snapshot)


def _stands(snapshot: Snapshot | None) -> bool:
    """Return True if Stripe runs the subscription: its first payment was made, or a bank is making it."""
    return isinstance(snapshot, Subscription) and snapshot.status not in (*ENDED, "incomplete")


async def _invoice(context: Context, waiting: Waiting) -> PurchaseInvoice:
    """Read the purchase's invoice; one that is gone can be paid no more, like a void one."""
    try:
        return await context.billing.purchase_invoice(waiting.invoice_id)
    except NotFound as absent:
        return PurchaseInvoice(waiting.invoice_id, "void", None, None, absent.at)


async def _void(context: Context, waiting: Waiting, invoice: PurchaseInvoice) -> PurchaseInvoice:
    """Void the invoice, and read it again.

    That read decides, whatever Stripe answered to the attempt. A second attempt does no harm, so each has its own key.
    """
    key = f"{waiting.operation_id}/void/{waiting.position}/{invoice.at}"
    try:
        await context.billing.void_invoice(waiting.invoice_id, idempotency_key=key)
    except BillingError as error:
        if not (is_known(error) or isinstance(error, StripeErrorStored)):
            raise
    return await _invoice(context, waiting)


async def _end_unpaid(
    context: Context, waiting: Waiting, one: HeldObject, found: Fetched, invoice: PurchaseInvoice
) -> Fetched:
    """End a subscription whose first invoice is void, if that did not end it already."""
    if not isinstance(found.snapshot, Subscription) or found.snapshot.status != "incomplete":
        return found
    key = f"{waiting.operation_id}/unpaid/{waiting.position}/{invoice.at}"
    await context.billing.subscription_cancellation(waiting.subscription_id, {}).now(key)
    return await one.read()


async def _judged(
    context: Context,
    waiting: Waiting,
    invoice: PurchaseInvoice,
    snapshot: Snapshot | None,
    code: str | None,
) -> Ending | None:
    now = snapshot if isinstance(snapshot, Subscription) else None
    if waiting.is_first and _stands(snapshot):
        return Ending(Event.INVOICE_PAID)
    if waiting.is_first:
        is_held = now is not None and now.status == "incomplete"
        # The payment itself makes the subscription whole, and an end that comes later does not undo the purchase.
        has_shown = not is_held
    else:
        is_held = now is not None and now.pending_update is not None
        has_shown = now is not None and _shows(waiting, now)
        if invoice.status == "paid" and not has_shown:
            has_shown = await _was_applied(context, waiting)
    return ending_of(
        invoice, is_held=is_held, has_shown=has_shown, ended_as=code, expires_at=waiting.expires_at
    )


async def _was_applied(context: Context, waiting: Waiting) -> bool:
    """Return True if Stripe's events show the change.

    Somebody may have changed it since.
    """
    since = int(waiting.created_at.timestamp()) - _CLOCKS_APART_SECONDS
    try:
        return await context.stripe.update_was_applied(
            waiting.subscription_id, waiting.invoice_id, since=since
        )
    except BillingError as error:
        if not is_known(error):
            raise
        # A restricted key that may not read events: what the subscription shows has to do.
        log.warning("events_not_readable", code=error.code)
        return False


def _shows(waiting: Waiting, now: Subscription) -> bool:
    """Return True if the subscription shows the change that waits."""
    if waiting.action == StepKind.BUY_SEATS:
        item_id, quantity = str(waiting.details["item_id"]), int(waiting.details["quantity"])
        return any(item.id == item_id and (item.quantity or 0) >= quantity for item in now.items)
    asked = (waiting.details.get("sent") or waiting.request["params"]).get("items", ())
    items = {str(item.id): item for item in now.items}
    prices = {str(item.price_id) for item in now.items}
    return bool(asked) and all(item_shows(entry, items, prices) for entry in asked)


async def waits(context: Context, operation_id: str) -> bool:
    """Return True if a step of this operation waits for its payment."""
    async with context.database.connection() as connection:
        return await waiting_store.of_operation(connection, operation_id) is not None


async def payment_of(context: Context, operation_id: str, invoice_id: str) -> PaymentStep | None:
    """Read what a purchase waits for, with the present status of Stripe's intent.

    None if nothing is left to pay, or Stripe does not answer in time. If the invoice is no longer open, a worker
    settles the purchase at once.
    """
    try:
        async with asyncio.timeout(_READ_SECONDS):
            invoice = await context.billing.purchase_invoice(invoice_id)
    except TimeoutError:
        reason = "timeout"
    except BillingError as error:
        reason = error.code
    else:
        if invoice.status != "open":
            await _wake(context, operation_id)
        return invoice.payment
    log.warning("payment_not_read", operation_id=operation_id, reason=reason)
    return None


async def _wake(context: Context, operation_id: str) -> None:
    """Let a worker settle the operation at once. It does so later in any case, so no read fails for it."""
    try:
        async with context.database.connection() as connection:
            await waiting_store.wake(connection, operation_id)
    except ServiceUnavailable as error:
        log.warning("operation_not_woken", operation_id=operation_id, reason=error.code)


async def payment_shown(context: Context, steps: Sequence[Step], operation: Operation) -> PaymentStep | None:
    """Read the payment of an operation's step that waits; None if none does."""
    for step in steps:
        if step.state == State.AWAITING_PAYMENT and step.invoice_id is not None:
            return await payment_of(context, operation.id, step.invoice_id)
    return None


async def add_payments(context: Context, found: Sequence[Seen]) -> None:
    """Read what waits on these subscriptions, for those who may pay or end it."""
    waiting = [(seen.view, seen) for seen in found if seen.view.waiting is not None and sees_payment(seen)]
    if not waiting:
        return
    payments = await asyncio.gather(*(_payment_of_view(context, view) for view, _ in waiting))
    for (view, seen), payment in zip(waiting, payments, strict=True):
        shown = payment
        if payment is not None and not seen.sees_payers_own:
            shown = payment.without_the_payers_own()
        view.waiting_payment = shown


async def _payment_of_view(context: Context, view: SubscriptionView) -> PaymentStep | None:
    if view.waiting is None:
        return None
    return await payment_of(context, view.waiting["operation_id"], view.waiting["invoice_id"])


_PAYING = frozenset({Permission.BUY_SEATS, Permission.CHANGE_SUBSCRIPTION, Permission.CANCEL_NOW})


def sees_payment(seen: Seen) -> bool:
    """Return True for a role that may pay for what waits or end it, as its permissions are now."""
    return not _PAYING.isdisjoint(seen.granted)


async def settle_ended(connection: Connection, subscription: Snapshot | None) -> None:
    """Settle what waited on a subscription that ended unpaid.

    This runs in the transaction in which its row shows that. A subscription that was cancelled may have been paid
    before: a worker asks its invoice at once.
    """
    if not isinstance(subscription, Subscription) or subscription.status not in ENDED:
        return
    for waiting in await waiting_store.of_subscription(connection, SubscriptionId(subscription.id)):
        if subscription.status == "incomplete_expired":
            await waiting_store.settle(connection, waiting, Ending(Event.PAYMENT_ENDED, PAYMENT_ABANDONED))
        else:
            await waiting_store.wake(connection, waiting.operation_id)
