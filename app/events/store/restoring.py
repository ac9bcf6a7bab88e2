"""The statement by which the log goes on after a restore."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from app.postgres.database import Connection

_JUMP = """
    update event_log l set sequence_floor = greatest(l.sequence_floor, j.number),
        purged_to = greatest(l.position, j.number),
        position = greatest(l.position, j.number) + case when l.opened_at is null then 0 else 1 end
    from (select clock_timestamp() as at, (extract(epoch from clock_timestamp()) * 1000000)::bigint as number) j
    returning l.sequence_floor, l.position, l.opened_at is not null as opened, j.at"""


@dataclass(frozen=True, slots=True)
class Jumped:
    """The log after the jump. `position` is free for the event that tells consumers, if the log is open."""

    sequence_floor: int
    position: int
    opened: bool
    at: datetime


async def jump(connection: Connection) -> Jumped:
    """Set position and floor to the clock in microseconds, and hold the log's lock.

    No count of events reaches that number.
    """
    row = await connection.fetchrow(_JUMP)
    if row is None:
        raise LookupError("the log's row vanished")
    return Jumped(**dict(row))
