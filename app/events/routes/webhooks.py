"""The events that are sent to endpoints, in the `webhooks` of the OpenAPI document, by type."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from inspect import cleandoc
from typing import Any

from fastapi import APIRouter

from app.events.schemas import SENT_MODELS, Envelope

_ANSWERS: dict[int | str, dict[str, Any]] = {
    "default": {"description": "Any status but 200 to 299: the event is sent again, except after 410"}
}


def describe(router: APIRouter) -> None:
    """Add each type to the router of webhooks, which is only described and serves nothing."""
    for name, model in SENT_MODELS.items():
        router.add_api_route(
            name,
            _taking(model),
            name=name,
            methods=["POST"],
            status_code=204,
            responses=_ANSWERS,
            description=cleandoc(model.__doc__ or ""),
            summary=name,
            operation_id=name,
        )


def _taking(model: type[Envelope]) -> Callable[[Any], Coroutine[Any, Any, None]]:
    async def take(event: Any) -> None:
        """Take an event."""

    take.__annotations__ = {"event": model, "return": None}
    return take
