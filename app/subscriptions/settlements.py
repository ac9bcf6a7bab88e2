"""The end of a subscription's change: applied, waiting for its payment, or failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.context import Context
from app.domain.ids import SubscriptionId
from app.domain.payments import PaymentStep
from app.domain.snapshots import Snapshot
from app.errors import (
    BillingError,
    ServiceUnavailable,
    StripeOutcomeUnknown,
)
from app.identity.actors import Actor
from app.mirror import refreshing as sync
from app.mirror.store.refreshes import Lease
from app.mirror.visibility import Seen, read
from app.operations import store as operations
from app.operations import waiting_store
from app.operations.lifecycle import Event
from app.operations.rows import Operation
from app.operations.sending import (
    is_terminal,
    money_details,
)
from app.postgres.database import Connection
from app.stripe.billing import Changed
from app.subscriptions.stripe_calls import StripeCall

INCOMPLETE_SECONDS: Final = 23 * 3600
"""After which Stripe ends a subscription whose first invoice was not paid (SDK, `Subscription.status`)."""


@dataclass(frozen=True, slots=True)
class Done:
    """A change that was made: the subscription, and what is left to pay or set up.

    `credit_forgone`: the credit that the change did not give, minor units. `operation_id`: None if nothing was to do.
    """

    seen: Seen
    payment: PaymentStep | None
    credit_forgone: int = 0
    operation_id: str | None = None


def unreadable_change() -> ServiceUnavailable:
    """Return the error of a change that took effect but could not be read back.

    It is no refusal, even if the error of the read looks like one.
    """
    return ServiceUnavailable("The change cannot be read back.", retry_after=2)


async def apply_change(context: Context, operation_id: str, lease: Lease, changed: Changed) -> None:
    """Apply the subscription that Stripe returned, and settle the change with it.

    Raises:
        BillingError: the database or Stripe does not answer, or the lease was lost.
    """
    await sync.apply(context, lease, changed.fetched, settling(context, operation_id, [changed]))


def settling(context: Context, operation_id: str, done: Sequence[Changed]) -> sync.Settle:
    """Return the settlement that runs in the transaction that applies the snapshot.

    The change is settled, or waits for its payment. `done`: what Stripe answered.
    """

    async def settle(connection: Connection, snapshot: Snapshot | None) -> None:
        if snapshot is not None:
            await operations.name_subscription(connection, operation_id, SubscriptionId(snapshot.id))
        operation = await operations.operation(connection, operation_id)
        if operation is not None and done and _waits(StripeCall(**operation.request), done[-1]):
            await _begin_waiting(context, connection, operation, done[-1])
            return
        await operations.settle_applied(connection, operation_id, 0)
        await operations.finish_if_settled(connection, operation_id)

    return settle


def _waits(call: StripeCall, changed: Changed) -> bool:
    """Return True if Stripe holds the accepted change back until an invoice is paid."""
    if changed.held_invoice_id is not None:
        return True
    if changed.open_invoice_id is None:
        return False
    if call.method == "create":
        return changed.subscription.status == "incomplete"
    params = call.params if call.sent is None else call.sent
    is_held = changed.subscription.pending_update is not None
    return is_held and params.get("payment_behavior") == "pending_if_incomplete"


async def _begin_waiting(
    context: Context, connection: Connection, operation: Operation, changed: Changed
) -> None:
    now, is_first = changed.subscription, operation.kind == "add_subscription"
    pending = now.pending_update or {}
    await waiting_store.begin(
        connection,
        operation.id,
        0,
        subscription_id=SubscriptionId(now.id),
        invoice_id=changed.held_invoice_id or changed.open_invoice_id or "",
        expires_at=now.created + INCOMPLETE_SECONDS if is_first else pending.get("expires_at"),
        window_seconds=None if is_first else context.rules.payment_window,
    )


async def settle_failed(context: Context, operation_id: str, error: BillingError) -> None:
    """Settle the change as failed, for an error that is certain.

    Raises:
        StripeOutcomeUnknown: an earlier attempt may still take effect.
    """
    async with context.database.transaction() as connection:
        (step, *_) = await operations.steps(connection, operation_id)
        if not is_terminal(context.rules, step, error):
            raise StripeOutcomeUnknown("An earlier attempt may take effect yet.", retry_after=2) from error
        await operations.transition(
            connection,
            operation_id,
            step,
            Event.READ_LACKS_EFFECT if step.is_expired else Event.CANNOT_BE_SENT,
            code=error.code,
            details=money_details(error.members),
        )
        await operations.finish_if_settled(connection, operation_id)


async def seen_now(
    context: Context, actor: Actor, subscription_id: SubscriptionId, payment: PaymentStep | None
) -> Done:
    """Return the subscription as the actor sees it now, with what is left to pay.

    Raises:
        NotFound: the actor may not see it any more.
    """
    async with context.database.connection() as connection:
        return Done(await read(connection, actor, subscription_id, context.rules), payment)
