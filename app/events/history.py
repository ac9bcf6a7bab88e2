"""Show an operator the events, and how each was delivered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.context import Context
from app.domain.snapshots import JsonObject
from app.errors import NotFound
from app.events import endpoints
from app.events.store import deliveries
from app.events.store import history as store


@dataclass(frozen=True, slots=True)
class DeliveredEvent:
    """An event, and its deliveries: `{endpoint_id, id, state, attempts}` each."""

    event: JsonObject
    deliveries: list[JsonObject]


async def newest(
    context: Context, *, types: Sequence[str], subscription_id: str | None, limit: int
) -> list[JsonObject]:
    """Return events, the newest first. Raises InvalidRequest if one of the types is none."""
    endpoints.check_types(types)
    async with context.database.reading() as connection:
        return await store.newest(connection, types=types, subscription_id=subscription_id, limit=limit)


async def one(context: Context, event_id: str) -> DeliveredEvent:
    """Return an event with its deliveries. Raises NotFound if it is not kept."""
    async with context.database.reading() as connection:
        found = await store.event(connection, event_id)
        if found is None:
            raise NotFound(f"There is no event {event_id}, or it is older than EVENT_RETENTION_DAYS.")
        return DeliveredEvent(found, await store.deliveries_of(connection, found["position"]))


async def redeliver(context: Context, event_id: str, endpoint_id: str | None) -> list[str]:
    """Let an event be sent again to one endpoint, or to each that it was sent to, and return their ids.

    Raises:
        NotFound: the event is not kept, or it was never sent to the endpoint.
    """
    found = await one(context, event_id)
    chosen = [row for row in found.deliveries if endpoint_id in (None, row["endpoint_id"])]
    if not chosen:
        where = "any endpoint" if endpoint_id is None else endpoint_id
        raise NotFound(f"{event_id} was not sent to {where}. `coseat events endpoints` lists endpoints.")
    for row in chosen:
        await endpoints.redeliver(context, row["endpoint_id"], row["id"])
    return [row["endpoint_id"] for row in chosen]


async def backlog(context: Context) -> list[JsonObject]:
    """Return what is shown of each endpoint, with `oldest_seconds` and `failures`."""
    async with context.database.reading() as connection:
        return await deliveries.backlog(connection)
