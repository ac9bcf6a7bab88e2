"""The stream of a subscription's events, for pages."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing
from typing import Annotated, cast

from fastapi import APIRouter, Header, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.events.streams import Stream, Streams
from app.http import problems
from app.http.dependencies import ContextDep, ReaderDep, SubscriptionPath
from app.http.strict_queries import StrictQueryRoute
from app.identity.principals import EndUser
from app.mirror.visibility import get

router = APIRouter(tags=["events"], route_class=StrictQueryRoute)
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@router.get(
    "/shared-subscriptions/{subscription_id}/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Events as they come, each with a place as its id",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **problems.responses(401, 403, 404, 410, 422, 503, codes=("too_many_in_flight",)),
    },
)
async def stream_events(
    request: Request,
    context: ContextDep,
    actor: ReaderDep,
    subscription_id: SubscriptionPath,
    last_event_id: Annotated[str | None, Header(max_length=64)] = None,
) -> Response:
    """Send the events of a subscription as they come, as far as the reader's role is shown them.

    It begins now, or after Last-Event-ID. It ends when the token expires, when the reader's role or the link of
    their login ends, and when the process ends; connect again with the last id.
    """
    streams = cast(Streams, request.app.state.streams)
    seen = await get(context, actor, subscription_id)
    begin = await streams.begin(context, last_event_id)
    reader = None if actor.is_service else actor.customer_id
    login = actor.principal if isinstance(actor.principal, EndUser) else None
    stream = Stream(
        subscription_id,
        reader,
        frozenset() if reader is None else seen.view.roles_of(reader),
        None if login is None else login.expires,
        begin,
        login,
    )
    return _HeldStream(
        streams.messages(context, stream), streams.place(actor.customer_id or actor.principal.key)
    )


class _HeldStream(StreamingResponse):
    """A stream that holds its caller's place until it ends, even if the client is gone before the first message."""

    def __init__(self, messages: AsyncGenerator[bytes, None], place: AbstractContextManager[None]) -> None:
        super().__init__(messages, headers=_HEADERS, media_type="text/event-stream")
        self._messages = messages
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the messages. Raises RateLimited before the first one if the caller has too many streams."""
        with self._place:
            async with aclosing(self._messages):
                await super().__call__(scope, receive, send)
