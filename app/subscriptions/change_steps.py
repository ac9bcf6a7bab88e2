"""Carries out the changes of a subscription that exists: it is changed, ended or resumed.

Each class knows the calls and records of a kind (`change_kinds`), and has no state.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from app.context import Context
from app.customers.payment_details import attach_payment_method
from app.domain import metadata as keys
from app.domain.ids import CustomerId
from app.domain.snapshots import Snapshot, Subscription
from app.domain.statuses import ENDED
from app.errors import Conflict
from app.operations.kinds import Answer, Ended, Params
from app.operations.rows import AwaitedInvoice, Operation, Step
from app.operations.sending import held_invoice
from app.stripe.billing import Changed
from app.stripe.client import Write
from app.stripe.gateway import Fetched
from app.subscriptions import charges
from app.subscriptions.before_sending import counted, ended_first, found_first, voided_first
from app.subscriptions.change_kinds import ChangeParameters, EndAsShown, EndNow, NamePayer, Resume
from app.subscriptions.orders import Conditions, Method, Order
from app.subscriptions.payment_bounds import suited
from app.subscriptions.quotes import price_as_quoted
from app.subscriptions.subscription_steps import SubscriptionSteps, keep


class OwnerKeySteps(SubscriptionSteps):
    """Writes the key that names the owner, before the change itself."""

    def kind_of(self, operation: Operation, step: Step) -> NamePayer:
        """Return the step's intent."""
        return NamePayer(CustomerId(str(Order.of(operation).to_id)))

    def write(self, context: Context, operation: Operation, step: Step, params: Params) -> Write[Fetched]:
        """Return the change of the subscription's metadata."""
        return context.billing.owner_change(operation.subscription_id, CustomerId(params[keys.OWNER]))


class _ChangeSteps(SubscriptionSteps):
    """Changes a subscription. Stripe's acceptance is the effect, because money may have moved by it."""

    counts_once_made = True


class ParameterSteps(_ChangeSteps):
    """Sets parameters, priced before the first sending; a change that is held back waits for its own invoice."""

    def kind_of(self, operation: Operation, step: Step) -> ChangeParameters | EndAsShown:
        """Return the step's intent."""
        order = Order.of_step(operation, step)
        if order.shown_end is not None and not step.was_sent:
            return EndAsShown(order.params, order.shown_end.ends_at)
        params = with_attached(order.params, Conditions.of(step))
        return ChangeParameters(
            params,
            unless_shown=step.was_sent or order.method is Method.RESUME,
            counted={} if step.was_sent else order.counted,
        )

    def write(self, context: Context, operation: Operation, step: Step, params: Params) -> Write[Changed]:
        """Return the update of the subscription."""
        return context.billing.subscription_update(operation.subscription_id, params)

    async def tried(
        self, context: Context, operation: Operation, step: Step, trying: Callable[[], Awaitable[Ended]]
    ) -> Ended:
        """Count what fails, if the admission left the card or the code to the operation."""
        return await counted(context, operation, step, trying)

    async def decided(self, context: Context, operation: Operation, step: Step) -> Step:
        """Do what the admission left to the operation, and attach the payment method that is to be charged.

        Raises:
            PaymentRequired: The card was declined.
            NotFound: There is no such payment method.
            BillingError: What `before_sending` raises.
        """
        step = await found_first(context, operation, step)
        await ended_first(context, operation, step)
        return await attached_first(context, operation, step)

    async def prepared(
        self, context: Context, operation: Operation, step: Step, found: Fetched, params: Params
    ) -> tuple[Step, Params]:
        """Price the change, as its quote said.

        Raises:
            Conflict: `invoice_unpaid`, `unsecured_raise_limit`, or `quote_expired` if the quote cannot be kept.
        """
        order, conditions = Order.of(operation), Conditions.of(step)
        if not order.is_priced:
            return step, params
        if step.has_sent_key and conditions.sent is not None:
            return step, conditions.sent
        subscription = _subscription(found)
        priced = await price_as_quoted(
            context,
            subscription,
            found.at,
            params,
            quote_id=order.quote_id,
            restarts=order.restarts,
            forgo_credit=order.forgo_credit,
        )
        sent = await suited(context, operation.id, subscription, found.at, priced)
        decided = {"sent": dict(sent), "credit_forgone": priced.credit_forgone}
        return await keep(context, operation, step, decided), sent

    def awaited(
        self,
        context: Context,
        operation: Operation,
        step: Step,
        snapshot: Snapshot | None,
        answer: Answer | None,
    ) -> AwaitedInvoice | None:
        """Return the invoice that the change waits for; None if it took effect at once."""
        if not isinstance(answer, Changed) or answer.open_invoice_id is None:
            return None
        held, sent = (
            answer.subscription.pending_update,
            Conditions.of(step).sent or Order.of(operation).params,
        )
        if held is None or sent.get("payment_behavior") != "pending_if_incomplete":
            return None
        return AwaitedInvoice(
            answer.open_invoice_id,
            operation.subscription_id,
            held.get("expires_at"),
            context.rules.payment_window,
        )

    async def held_back(
        self, context: Context, operation: Operation, step: Step, snapshot: Snapshot | None
    ) -> AwaitedInvoice | None:
        """Find the invoice of a change that the subscription does not show: only the invoice says what became of it."""
        return await held_invoice(context, operation, step, snapshot)


class EndSteps(_ChangeSteps):
    """Ends a subscription at once.

    Stripe keeps no answer of a DELETE: what a request with a lost answer has ended, the next does not find. So a
    subscription that has ended settles the step.
    """

    def kind_of(self, operation: Operation, step: Step) -> EndNow:
        """Return the step's intent."""
        return EndNow(Order.of(operation).params)

    def write(self, context: Context, operation: Operation, step: Step, params: Params) -> Write[Changed]:
        """Return the cancellation of the subscription."""
        return context.billing.subscription_cancellation(operation.subscription_id, params)

    async def decided(self, context: Context, operation: Operation, step: Step) -> Step:
        """Do what the admission left to the operation, and void what is not to be paid any more.

        Raises:
            BillingError: What `before_sending` raises.
        """
        await ended_first(context, operation, step)
        await voided_first(context, operation, step)
        return step

    def is_gone(self, snapshot: Snapshot | None) -> bool:
        """Return True if the subscription has ended: nothing can end it once more."""
        return snapshot is None or (isinstance(snapshot, Subscription) and snapshot.status in ENDED)

    async def prepared(
        self, context: Context, operation: Operation, step: Step, found: Fetched, params: Params
    ) -> tuple[Step, Params]:
        """Leave out a credit for time that nobody paid; an unpaid subscription that was paid since is left as it is.

        Raises:
            Conflict: `version_conflict`, or `invoice_unpaid`.
        """
        conditions, subscription = Conditions.of(step), _subscription(found)
        if conditions.method is Method.END_UNPAID and subscription.status != "incomplete":
            detail = "The subscription was paid while it was being cancelled. Read it, and cancel it again."
            raise Conflict(detail, code="version_conflict")
        if conditions.method is Method.END_UNPAID or params.get("prorate") is not True:
            return step, params
        if step.has_sent_key and conditions.sent is not None:
            return step, conditions.sent
        unpaid = await charges.credits_unpaid_on_cancel(context, subscription, found.at)
        sent = params if unpaid is None else {**params, "prorate": False}
        decided = {"sent": dict(sent), "credit_forgone": 0 if unpaid is None else unpaid.credit}
        return await keep(context, operation, step, decided), sent


class ResumeSteps(_ChangeSteps):
    """Resumes a paused subscription."""

    def kind_of(self, operation: Operation, step: Step) -> Resume:
        """Return the step's intent."""
        return Resume()

    async def decided(self, context: Context, operation: Operation, step: Step) -> Step:
        """Do what the admission left to the operation. Raises what `before_sending` raises."""
        await ended_first(context, operation, step)
        return step

    def write(self, context: Context, operation: Operation, step: Step, params: Params) -> Write[Changed]:
        """Return the resumption of the subscription."""
        return context.billing.subscription_resumption(operation.subscription_id)


def _subscription(found: Fetched) -> Subscription:
    if not isinstance(found.snapshot, Subscription):
        raise LookupError("a write is prepared for a subscription that was read")
    return found.snapshot


async def attached_first(context: Context, operation: Operation, step: Step) -> Step:
    """Attach the payment method of the order, if it names one; repeated, that has no further effect.

    Raises:
        PaymentRequired: The card was declined.
        NotFound: There is no such payment method.
        StripeOutcomeUnknown: The outcome is open, and the same call is to be made again.
    """
    attach = Order.of_step(operation, step).attach
    if attach is None or step.is_expired:
        return step
    attached = await attach_payment_method(
        context, attach.customer_id, attach.payment_method_id, operation_id=operation.id
    )
    return replace(step, details={**step.details, "attached": attached})


def with_attached(params: Params, conditions: Conditions) -> Params:
    """Return parameters that charge the method that was attached, whose id may be another than the given one."""
    return (
        params if conditions.attached is None else {**params, "default_payment_method": conditions.attached}
    )
