"""Record events whose payload is not applied, with their outcome, and notify of the objects that they changed."""

from __future__ import annotations

from collections.abc import Sequence

from app.mirror.store.object_keys import key_of
from app.mirror.store.refreshes import COUNT_NOTIFICATION
from app.postgres.database import Connection

_CLAIM = f"""
    with claimed as (
        insert into webhook_events (id, type, object_id, created, outcome) values ($1, $2, $3, $4, $5)
        on conflict (id) do nothing returning id
    ), noted as (
        insert into refreshes as r (id, kind, notifications, notified_at)
        select distinct on (h.id) h.id, h.kind, 1, $4 from claimed, unnest($6::text[], $7::text[]) as h(kind, id)
        order by h.id
        {COUNT_NOTIFICATION}
    )
    select exists (select from claimed)"""


async def claim(
    connection: Connection,
    *,
    event_id: str,
    event_type: str,
    object_id: str | None,
    created: int,
    outcome: str,
    notifications: Sequence[tuple[str, str]] = (),
) -> bool:
    """Record an event and notify of the objects, given as (kind, id), that have to be fetched again.

    Return False for a duplicate, which changes nothing. `created` is the event's Unix second.
    """
    kinds = [kind for kind, _ in notifications]
    keys = [key_of(kind, noted_id) for kind, noted_id in notifications]
    return bool(
        await connection.fetchval(_CLAIM, event_id, event_type, object_id, created, outcome, kinds, keys)
    )
