"""The write of a purchase: a subscription is created."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from app.context import Context
from app.domain.ids import CustomerId, SubscriptionId
from app.domain.snapshots import JsonObject, Snapshot, Subscription
from app.errors import BillingError
from app.operations import store as operations
from app.operations.kinds import Answer, AnyChangeProves, Ended, Params, Seen, Send, Steps
from app.operations.lifecycle import State
from app.operations.rows import AwaitedInvoice, Operation, Step
from app.operations.sending import SUBSCRIPTION_CHANGES
from app.postgres.database import Connection
from app.stripe.billing import Changed
from app.stripe.client import Write
from app.subscriptions.before_sending import counted, found_first
from app.subscriptions.change_steps import attached_first, with_attached
from app.subscriptions.orders import Conditions, Order
from app.subscriptions.purchase_admission import supersede

INCOMPLETE_SECONDS: Final = 23 * 3600
"""After which Stripe ends a subscription whose first invoice was not paid (SDK, `Subscription.status`)."""
_WAITS = "allow_incomplete"


@dataclass(frozen=True, slots=True)
class NewSubscription(AnyChangeProves):
    """A subscription is bought."""

    params: Params

    def wanted(self, seen: Seen) -> Send:
        """Return the write: nothing that could be read forbids it."""
        return Send(self.params)

    def shows(self, snapshot: Snapshot | None) -> bool:
        """Return True if there is such a subscription."""
        return isinstance(snapshot, Subscription)


class PurchaseSteps(Steps):
    """Creates a subscription. One whose first invoice is open waits for its payment."""

    object_kind = "subscription"
    event_types = SUBSCRIPTION_CHANGES
    counts_once_made = True

    def kind_of(self, operation: Operation, step: Step) -> NewSubscription:
        """Return the step's intent."""
        conditions = Conditions.of(step)
        params = with_attached(Order.of_step(operation, step).params, conditions)
        return NewSubscription({**params, "payment_behavior": _WAITS} if conditions.waits else params)

    def object_id(self, operation: Operation, step: Step) -> str | None:
        """Return None: the step creates the subscription."""
        return None

    def write(self, context: Context, operation: Operation, step: Step, params: Params) -> Write[Changed]:
        """Return the creation of the subscription."""
        return context.billing.subscription_creation(params)

    async def tried(
        self, context: Context, operation: Operation, step: Step, trying: Callable[[], Awaitable[Ended]]
    ) -> Ended:
        """Count what fails, if the admission left the card or the code to the operation."""
        return await counted(context, operation, step, trying)

    async def decided(self, context: Context, operation: Operation, step: Step) -> Step:
        """Attach the payment method that is to be charged, and end the unpaid subscriptions that are replaced.

        What the admission left to the operation comes first. Nothing is ended once the create was sent.

        Raises:
            PaymentRequired: The card was declined.
            NotFound: There is no such payment method.
            InvalidRequest: There is no such promotion code.
            Conflict: `already_subscribed`: one of them was paid, or its payment is being processed.
        """
        step = await attached_first(context, operation, await found_first(context, operation, step))
        if not step.was_sent:
            for subscription_id in Order.of(operation).supersedes:
                await supersede(context, operation.id, subscription_id)
        return step

    async def created(self, context: Context, operation: Operation, step: Step) -> Changed | None:
        """Find the subscription that an attempt of this operation created."""
        if step.state is State.AMBIGUOUS and step.attempt == 1 and Conditions.of(step).waits:
            # The only request before this key was refused, because the bank asked for the card's holder.
            return None
        customer_id = CustomerId(Order.of(operation).params["customer"])
        for candidate in await context.billing.subscriptions_of(customer_id):
            if candidate.operation_id == operation.id:
                found = await context.billing.subscription(SubscriptionId(candidate.id))
                return replace(found, replayed=True)
        return None

    def instead(self, step: Step, error: BillingError) -> JsonObject | None:
        """Let the subscription wait for the card's holder if the bank asks for them.

        The bank is asked once more: then the intent itself waits, and names the card.
        """
        asks = error.code == "payment_action_required" and not Conditions.of(step).waits
        return {"waits": True} if asks else None

    def awaited(
        self,
        context: Context,
        operation: Operation,
        step: Step,
        snapshot: Snapshot | None,
        answer: Answer | None,
    ) -> AwaitedInvoice | None:
        """Return the first invoice, if the subscription waits for it."""
        if not isinstance(answer, Changed) or answer.open_invoice_id is None:
            return None
        now = answer.subscription
        if now.status != "incomplete":
            return None
        return AwaitedInvoice(
            answer.open_invoice_id,
            SubscriptionId(now.id),
            now.created + INCOMPLETE_SECONDS,
            context.rules.payment_window,
        )

    async def record(
        self,
        connection: Connection,
        operation: Operation,
        step: Step,
        snapshot: Snapshot | None,
        *,
        applied: bool,
    ) -> None:
        """Name the subscription that was created."""
        if snapshot is not None:
            await operations.name_subscription(connection, operation.id, SubscriptionId(snapshot.id))
