"""Operations: what became of a change that was accepted."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from app.http import problems
from app.http.answers import UNCHANGED
from app.http.dependencies import ContextDep, ReaderDep
from app.operations import runner as operations
from app.operations.answers import operation_answer
from app.operations.schemas import OperationAnswer

router = APIRouter(tags=["operations"])


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
    """An operation of the caller's own; service keys without an acting customer see every one.

    It shows no more of seats and people than its subscription shows the caller now: `seats` may be null.
    """
    only_of = None if actor.is_service else actor.principal.key
    outcome = await operations.outcome(context, operation_id, actor, only_of=only_of)
    return operation_answer(request, outcome, actor)
