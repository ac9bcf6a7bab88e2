"""What binds the operations on a subscription itself: who may change it when the change is sent, and their order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from app.context import Context
from app.mirror import refreshing as sync
from app.operations import store as operations
from app.operations import waiting_store
from app.operations.abandoning import expire_unsent
from app.operations.kinds import Phase, Refused, Rulebook, Steps, Wait
from app.operations.lifecycle import NOT_MADE, Event, State
from app.operations.rows import Operation, Step
from app.operations.sending import may_come_late
from app.postgres.database import Connection
from app.subscriptions.before_sending import check_allowed
from app.subscriptions.change_steps import EndSteps, OwnerKeySteps, ParameterSteps, ResumeSteps
from app.subscriptions.orders import Conditions, Method, Order
from app.subscriptions.purchase_steps import PurchaseSteps

_STEPS: Mapping[Method, Steps] = MappingProxyType(
    {
        Method.NAME_OWNER: OwnerKeySteps(),
        Method.CREATE: PurchaseSteps(),
        Method.UPDATE: ParameterSteps(),
        Method.CANCEL: EndSteps(),
        Method.END_UNPAID: EndSteps(),
        Method.RESUME: ResumeSteps(),
    }
)

_MOST_WRITES = 3
"""A paused subscription of which nobody is named as the owner is resumed, and its end is taken back."""


class SubscriptionRules:
    """The rulebook of purchases, changes of a subscription, its end and its resumption."""

    phases: Sequence[Phase] = (
        Phase("add_subscription"),
        *(
            Phase(action, position=position)
            for action in ("update_subscription", "cancel_subscription", "resume_subscription")
            for position in range(_MOST_WRITES)
        ),
    )

    def steps_of(self, step: Step) -> Steps:
        """Return the calls and records around this step."""
        return _STEPS[Conditions.of(step).method]

    async def permitted(
        self, context: Context, operation: Operation, steps: Sequence[Step], give_up: float
    ) -> list[Step]:
        """Return the steps that may run. Rights are judged when a step is sent.

        A worker reads subscription and actor from Stripe before its first sending. A purchase is not sent for a caller
        who is gone: it is looked for at Stripe, and has failed if it is not there. A purchase whose caller was told
        that it goes on is sent within `PAYMENT_WINDOW`, and so is a change that may charge.

        Raises:
            BillingError: Stripe or the database does not answer.
        """
        if asyncio.get_running_loop().time() < give_up:
            return list(steps)
        if operation.kind == "add_subscription":
            return [step for step in steps if await _goes_on(context, operation, step)]
        if Order.of(operation).charges and await expire_unsent(context, operation, steps):
            return []
        if operation.actor_id is not None and not any(step.was_sent for step in steps):
            await sync.read_through(context, "subscription", operation.subscription_id)
            await sync.read_through(context, "customer", operation.actor_id)
        return list(steps)

    async def ready(
        self, context: Context, operation: Operation, phase: Phase, batch: Sequence[Step]
    ) -> list[Step] | None:
        """Return the steps of a phase; None while the write before them is open.

        Nothing is sent after a write that failed.
        """
        if not phase.position:
            return list(batch)
        async with context.database.connection() as connection:
            before = (await operations.steps(connection, operation.id))[phase.position - 1]
            if before.is_settled and before.state not in NOT_MADE:
                return list(batch)
            if before.is_settled:
                for step in batch:
                    await operations.transition(
                        connection, operation.id, step, Event.CANNOT_BE_SENT, code=before.code
                    )
        return None

    async def check(
        self, context: Context, connection: Connection, operation: Operation, step: Step
    ) -> Refused | Wait | None:
        """Judge a sending that may have a new effect. Raises what `check_allowed` raises."""
        await check_allowed(context, connection, operation, step)
        return None


async def _goes_on(context: Context, operation: Operation, step: Step) -> bool:
    """Return True if Stripe has what the purchase creates, or if it may still be sent.

    Otherwise the purchase is settled, unless a request of it may still take effect.
    """
    if step.state is State.AWAITING_PAYMENT:
        return True
    if step.was_sent and await _STEPS[Method.CREATE].created(context, operation, step) is not None:
        return True
    code, is_accepted = "stripe_rejected", Conditions.of(step).accepted
    if is_accepted and not step.is_expired:
        code = "operation_expired"
        async with context.database.connection() as connection:
            if await waiting_store.is_younger(connection, operation.id, seconds=context.rules.payment_window):
                return True
    if not may_come_late(context.rules, step):
        event = Event.READ_LACKS_EFFECT if step.is_expired else Event.CANNOT_BE_SENT
        async with context.database.connection() as connection:
            await operations.transition(connection, operation.id, step, event, code=code)
    return False


_RULES = SubscriptionRules()
SUBSCRIPTION_RULEBOOKS: Mapping[str, Rulebook] = MappingProxyType(
    dict.fromkeys(
        ("add_subscription", "update_subscription", "cancel_subscription", "resume_subscription"), _RULES
    )
)
