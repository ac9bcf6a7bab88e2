"""Statements about the seats of a subscription that unsettled operations promise, or may leave."""

from __future__ import annotations

from app.domain.ids import SubscriptionId
from app.postgres.database import Connection


async def lowest_target(connection: Connection, subscription_id: SubscriptionId) -> int | None:
    """Return the lowest number of seats that an unsettled operation may leave.

    No seat above it may be promised. None: there is no such operation.
    """
    found: int | None = await connection.fetchval(
        "select min(seat_total) from operations where subscription_id = $1 and settled_at is null",
        subscription_id,
    )
    return found


async def lower_target(connection: Connection, operation_id: str, total: int) -> None:
    """Note that the operation may leave no more seats than `total`. The caller holds the subscription's lock."""
    await connection.execute(
        "update operations set seat_total = least(seat_total, $2) where id = $1", operation_id, total
    )


async def count_numbers_from(connection: Connection, operation_id: str, quantity: int) -> None:
    """Let the seats that the operation reserves by number count from this quantity of their item on."""
    await connection.execute(
        """update reservations set from_quantity = $2
        where operation_id = $1 and from_quantity is not null and released_at is null""",
        operation_id,
        quantity,
    )
