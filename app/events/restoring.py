"""Go on after the database was restored from a backup.

The backup does not know the events of its last hours, which were delivered. See
docs/decisions/0063-jump-above-what-may-have-been-delivered.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from secrets import token_hex

from app.context import Context
from app.domain.snapshots import JsonObject
from app.events.places import place_of
from app.events.store import announcing, restoring


@dataclass(frozen=True, slots=True)
class Restored:
    """From where events go on. `place` is that of the newest event, `event_id` is null before the first fill."""

    sequence_floor: int
    place: str
    event_id: str | None


async def jump(context: Context) -> Restored:
    """Let positions, sequences and revisions go on above all that may have been delivered.

    Every older place is 410 `cursor_expired` from now on. If the log is open, the event `sync.completed` is written,
    by which every consumer takes the snapshot. Run it before a process of the service starts on the restored database;
    it does no harm beside running ones.

    Raises:
        ServiceUnavailable: `database_unavailable`.
    """
    # The tables of a restored database are cold, so they are counted before the log is locked.
    async with context.database.unhurried() as connection:
        counts = await announcing.counts(connection)
    async with context.database.transaction() as connection:
        log = await restoring.jump(connection)
        event_id = None
        if log.opened:
            event_id = f"evt_{token_hex(12)}"
            event: JsonObject = {
                "position": log.position,
                "id": event_id,
                "type": "sync.completed",
                "created": log.at.isoformat(),
                "data": {"counts": counts, "source": "api", "operation_id": None},
            }
            await announcing.write(connection, [event])
        return Restored(log.sequence_floor, place_of(log.position), event_id)
