"""Name the people of a purchase that was paid.

Until then each of their additions reserves only a seat by number. The customer of an e-mail is found now, not when the
purchase was asked for: the person may have signed up since, or may have become a member elsewhere.
"""

from __future__ import annotations

from app.context import Context
from app.domain.emails import ascii_lowered
from app.domain.snapshots import JsonObject
from app.domain.statuses import entitlements
from app.domain.views import SubscriptionView
from app.mirror.store import subscriptions
from app.operations import store as operations
from app.operations import waiting_store
from app.operations.lifecycle import NOT_MADE, Event
from app.operations.rows import Operation, Step
from app.operations.sending import money_details
from app.operations.step_kinds import StepKind
from app.postgres.database import Connection
from app.sharing import invitation_store
from app.sharing.invitation_store import Invitation
from app.sharing.member_changes import Action, MemberChange, Verdict, judge
from app.sharing.people import find_addition


async def named(context: Context, operation_id: str) -> list[Step]:
    """Name the additions that waited for this purchase; return those to make.

    Return none while the purchase is not settled. If it failed, the additions are refused with its code.
    """
    async with context.database.transaction() as connection:
        operation = await operations.operation(connection, operation_id)
        steps = await operations.steps(connection, operation_id)
        bought = next((step for step in steps if step.action == StepKind.BUY_SEATS), None)
        if operation is None or bought is None or not bought.is_settled:
            return []
        if bought.state in NOT_MADE:
            # The result says why the seats were not bought, and not that the subscription is full.
            details = money_details(bought.details)
            for step in steps:
                if step.awaits_seats and not step.is_settled:
                    await _refuse(connection, operation_id, step, bought.code, details)
            return []
        await subscriptions.lock(connection, operation.subscription_id)
        view = await subscriptions.subscription_view(connection, operation.subscription_id, asker=None)
        for step in steps:
            if step.awaits_seats and not step.is_settled:
                await _name(context, connection, operation, view, step)
        found = await operations.steps(connection, operation_id)
    waited = {step.position for step in steps if step.awaits_seats and not step.is_settled}
    return [step for step in found if step.position in waited and not step.is_settled]


async def _name(
    context: Context,
    connection: Connection,
    operation: Operation,
    view: SubscriptionView | None,
    step: Step,
) -> None:
    if view is None:
        await _refuse(connection, operation.id, step, "not_shareable")
        return
    person = await find_addition(
        connection,
        view,
        email=step.email,
        customer_id=step.customer_id,
        limit=context.rules.memberships_per_customer,
        invitation=await _invitation_to(connection, view, step.email),
    )
    allowed = entitlements(view.status, past_due_allows_new_seats=context.rules.past_due_allows_new_seats)
    decision = judge(MemberChange(Action.ADD, person, step.role), allowed)
    if decision.verdict is Verdict.UNCHANGED:
        await operations.transition(connection, operation.id, step, Event.NOTHING_TO_DO)
        return
    if decision.verdict is Verdict.REFUSED:
        await _refuse(connection, operation.id, step, decision.code)
        return
    is_theirs = await waiting_store.name(
        connection,
        operation.id,
        step.position,
        customer_id=person.customer_id,
        email=step.email,
        invitation_id=person.invitation_id,
    )
    if not is_theirs:
        await _refuse(connection, operation.id, step, "operation_in_progress")


async def _invitation_to(
    connection: Connection, view: SubscriptionView, email: str | None
) -> Invitation | None:
    """Return the open invitation to this e-mail, locked. The addition ends it, which frees the seat that it has."""
    if email is None:
        return None
    address = ascii_lowered(email)
    await invitation_store.lock_open_to(connection, view.id, [address])
    return (await invitation_store.open_to(connection, view.id, [address])).get(address)


async def _refuse(
    connection: Connection, operation_id: str, step: Step, code: str | None, details: JsonObject | None = None
) -> None:
    await operations.transition(
        connection, operation_id, step, Event.RULE_REFUSES, code=code, details=details
    )
