"""The feed of events and its snapshot, for other back ends."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from app.domain.ids import SUBSCRIPTION_PATTERN, SubscriptionId
from app.errors import Forbidden, InvalidRequest
from app.events import feed
from app.events.feed import Filter, SnapshotPlace
from app.events.places import place_of
from app.events.schemas import EventPage, EventSnapshot, EventType
from app.events.store.feed import StatePlace
from app.http import cursors, problems
from app.http.answers import UNCHANGED, answer
from app.http.dependencies import ContextDep, CursorQuery, LimitQuery, reading_actor
from app.http.strict_queries import StrictQueryRoute
from app.identity.actors import Actor

router = APIRouter(tags=["events"], route_class=StrictQueryRoute)

_SNAPSHOT = "events-snapshot"


async def reading_service(request: Request) -> Actor:
    """Return the service key that reads for itself.

    Raises:
        Forbidden: `scope_required` for an end user, and for a key that acts for a customer.
        Unauthenticated: There is no valid credential.
        RateLimited: The caller sends too many requests.
    """
    actor = await reading_actor(request)
    if not actor.is_service:
        raise Forbidden(
            "Only a service key that acts for no customer reads events. Send one without X-Acting-Customer.",
            code="scope_required",
        )
    return actor


ServiceDep = Annotated[Actor, Depends(reading_service)]


@router.get(
    "/events",
    response_model=EventPage,
    responses={**UNCHANGED, **problems.responses(401, 403, 410, 422, 503)},
)
async def get_events(
    request: Request,
    context: ContextDep,
    _actor: ServiceDep,
    after: Annotated[
        str | None,
        Query(
            max_length=64, description="`next_cursor` of a page, or `after` of a snapshot; else the oldest."
        ),
    ] = None,
    types: Annotated[list[EventType] | None, Query(max_length=20)] = None,
    subscription_id: Annotated[SubscriptionId | None, Query(pattern=SUBSCRIPTION_PATTERN)] = None,
    limit: LimitQuery = 20,
) -> Response:
    """Return the events after a place, oldest first. No event becomes visible before a place that was returned."""
    found = await feed.events(context, after, Filter(types, subscription_id), limit=limit)
    return answer(request, EventPage.model_validate(found))


@router.get(
    "/events/snapshot",
    response_model=EventSnapshot,
    responses={**UNCHANGED, **problems.responses(401, 403, 422, 503, codes=("not_filled",))},
)
async def get_events_snapshot(
    request: Request,
    context: ContextDep,
    actor: ServiceDep,
    limit: LimitQuery = 20,
    cursor: CursorQuery = None,
) -> Response:
    """Return the state of all subscriptions, members and accesses, and the place from which to read on."""
    principal = actor.principal.key
    here = _place(cursors.decode(cursor, principal=principal, query=_SNAPSHOT))
    rows, here, more = await feed.snapshot(context, here, limit=limit)
    position = [here.after, None if here.state is None else list(here.state), list(here.access)]
    page = {
        "data": rows,
        "has_more": more,
        "next_cursor": cursors.encode(position, principal=principal, query=_SNAPSHOT) if more else None,
        "after": place_of(here.after),
    }
    return answer(request, EventSnapshot.model_validate(page))


def _place(position: object) -> SnapshotPlace | None:
    match position:
        case None:
            return None
        case [int(after), None, [str(customer_id), str(product_id)]]:
            return SnapshotPlace(after, None, (customer_id, product_id))
        case [int(after), [str(subscription_id), int(rank), str(customer_id)], [str(), str()]]:
            return SnapshotPlace(after, StatePlace(subscription_id, rank, customer_id))
        case _:
            raise InvalidRequest("cursor: it belongs to another query. Start again without a cursor.")
