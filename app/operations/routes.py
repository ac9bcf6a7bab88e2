"""Operations: the outcome of a change that was accepted."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from app.http import problems
from app.http.answers import UNCHANGED
from app.http.dependencies import ContextDep, ReaderDep, WriterDep
from app.http.idempotency import IdempotentRoute
from app.operations import abandoning
from app.operations import runner as operations
from app.operations.answers import ACCEPTED, operation_answer
from app.operations.schemas import OperationAnswer, SettledOperation

router = APIRouter(tags=["operations"], route_class=IdempotentRoute)


@router.get(
    "/operations/{operation_id}",
    response_model=OperationAnswer,
    responses={**UNCHANGED, **problems.responses(401, 403, 404, 422, 503)},
)
async def get_operation(
    request: Request,
    context: ContextDep,
    actor: ReaderDep,
    operation_id: Annotated[str, Path(pattern="^op_[0-9a-f]{24}$")],
) -> Response:
    """Return an operation of the caller's own.

    Service keys without an acting customer see every operation. A purchase that waits for its payment, or has waited
    for it, is also shown to the payer and to an owner who may buy. The answer shows no more of seats and people than
    the subscription shows the caller now: `seats` may be null.
    """
    outcome = await operations.outcome(context, operation_id, actor, checked=True)
    return operation_answer(request, outcome, actor)


@router.post(
    "/operations/{operation_id}/cancel",
    response_model=SettledOperation,
    responses={
        **ACCEPTED,
        **problems.responses(
            *(401, 403, 404, 409, 413, 415, 422, 503), codes=("operation_ended", "role_required")
        ),
    },
)
async def cancel_operation(
    request: Request,
    context: ContextDep,
    actor: WriterDep,
    operation_id: Annotated[str, Path(pattern="^op_[0-9a-f]{24}$")],
) -> Response:
    """Abandon a purchase that waits for its payment; asking again answers the same.

    The caller who asked for it, the payer, and an owner who may buy can do so. 202 while a payment is processing: the
    purchase is abandoned if that fails, and made if it succeeds. While Stripe is away, a purchase that was not sent yet
    is withdrawn. 409 `operation_ended` if it has ended otherwise.
    """
    await abandoning.abandon(context, actor, operation_id)
    outcome = await operations.outcome(context, operation_id, actor, checked=True)
    if all(step.is_settled for step in outcome.steps):
        # The payment may have come first, and the purchase been settled as applied in between.
        abandoning.check_abandoned(outcome.operation, outcome.steps)
    return operation_answer(request, outcome, actor)
