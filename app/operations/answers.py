"""The outcome of an operation, as its caller may see it, whichever route began it."""

from __future__ import annotations

import dataclasses
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from app.context import Context
from app.domain.snapshots import JsonObject
from app.http.answers import answer
from app.identity.actors import Actor
from app.operations import runner as operations
from app.operations.lifecycle import State
from app.operations.rows import Operation, Step
from app.operations.runner import Accepted, Outcome
from app.operations.schemas import AcceptedOperation, OperationAnswer, SettledOperation
from app.operations.sending import MONEY_DETAILS, money_details

ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"model": AcceptedOperation, "description": "Accepted, not finished yet"}
}


async def accepted_answer(request: Request, context: Context, actor: Actor, accepted: Accepted) -> Response:
    """Answer 202 with the operation, for a change whose outcome is not known yet."""
    outcome = await operations.outcome(context, accepted.operation_id, actor, payment=accepted.payment)
    return operation_answer(request, outcome, actor, accepted=True)


def operation_answer(
    request: Request,
    outcome: Outcome,
    actor: Actor,
    *,
    accepted: bool = False,
) -> Response:
    """Answer 200 if every result is final, otherwise 202 with a `Location`.

    `accepted`: always 202.
    """
    pending = accepted or not all(step.is_settled for step in outcome.steps)
    read = request.method == "GET"
    kind = OperationAnswer if read else AcceptedOperation if pending else SettledOperation
    results = [result_of(step, outcome, actor) for step in shown_steps(outcome)]
    model = kind.model_validate({"pending": pending, "results": results, **operation_members(outcome)})
    if read or not pending:
        return answer(request, model)
    headers = {"Location": f"/v1/operations/{outcome.operation.id}", "Retry-After": "1"}
    return answer(request, model, status=202, headers=headers)


def operation_members(outcome: Outcome) -> JsonObject:
    """Return the members of an operation's answer beside its results. A problem that ends it has them too."""
    settled = all(step.is_settled for step in outcome.steps)
    awaits = any(step.state == State.AWAITING_PAYMENT for step in outcome.steps)
    payment = outcome.payment
    return {
        "operation_id": outcome.operation.id,
        "state": "settled" if settled else "awaiting_payment" if awaits else "running",
        "seats": None if outcome.seats is None else outcome.seats.as_members(),
        "payment": None if payment is None else dataclasses.asdict(payment),
    }


ON_PEOPLE = frozenset({"add", "remove", "update"})
_SHOWN_AS = {
    "set_owner": "owner",
    "buy_seats": "seats",
    "add_subscription": "purchase",
    "update_subscription": "items",
    "cancel_subscription": "cancel",
    "resume_subscription": "resume",
}
"""The actions of results by the names that their steps are stored with, if they differ."""


def shown_steps(outcome: Outcome) -> list[Step]:
    """Return the steps that an answer shows.

    That is the steps on people with the seats they buy or give back, and the new owner of a transfer; of any other
    change its last step. A payer who becomes the named owner by their first change did not ask for that.
    """
    shown = ON_PEOPLE | {"buy_seats", "release_seats"}
    if outcome.operation.kind == "transfer":
        shown |= {"set_owner"}
    return [step for step in outcome.steps if step.action in shown] or outcome.steps[-1:]


# Why exactly somebody cannot be added is the business of other subscriptions: end users learn that alone.
_HIDDEN_FROM_END_USERS = {"member_elsewhere": "cannot_be_added"}
_SEAT_DETAILS = ("total", "used", "required")
DETAILS = (*_SEAT_DETAILS, *MONEY_DETAILS)


def result_of(step: Step, outcome: Outcome, actor: Actor) -> JsonObject:
    """Return a step's result, as its reader may see it.

    It shows no more of people and seats than the subscription shows its reader now.
    """
    code = step.code if actor.is_service else _HIDDEN_FROM_END_USERS.get(step.code or "", step.code)
    # An e-mail must not be a way to a stranger's customer id: the id is shown once its person is a member.
    known = step.email is None or step.state in ("applied", "unchanged")
    visible = known and (outcome.sees_members or step.customer_id == actor.customer_id)
    seats = _SEAT_DETAILS if outcome.seats is not None else ()
    money = money_details(step.details) if outcome.sees_amounts else {}
    if "hosted_invoice_url" in money and not outcome.sees_payers_own:
        money["hosted_invoice_url"] = None
    return {
        "action": _action_of(step, outcome.operation),
        "customer_id": step.customer_id if visible or actor.is_service else None,
        "email": (step.email or None) if outcome.sees_members or outcome.is_own else None,
        "role": step.role,
        "outcome": step.state if step.is_settled else "pending",
        "code": code,
        "subscription_id": None if step.action in ON_PEOPLE else outcome.operation.subscription_id or None,
        **{name: step.details[name] for name in seats if name in step.details},
        **money,
    }


def _action_of(step: Step, operation: Operation) -> str:
    if step.action == "update_subscription" and operation.request.get("sets_seats"):
        return "seats"
    return _SHOWN_AS.get(step.action, step.action)
