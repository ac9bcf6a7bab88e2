"""The audit trail of plans, as the trigger of the mirror writes it: of what a person sees, and of nothing else."""

import dataclasses
from typing import Any

import pytest

from app.domain.ids import CustomerId, PriceId, SubscriptionItemId
from app.domain.snapshots import Subscription, SubscriptionItem
from app.mirror.store import rows as mirror
from app.postgres.database import Connection
from testkit.snapshots import SUBSCRIPTION

FIRST, METERED = SUBSCRIPTION.items


def with_items(*items: SubscriptionItem) -> Subscription:
    return dataclasses.replace(SUBSCRIPTION, items=list(items))


async def recorded(connection: Connection, after: Subscription) -> list[dict[str, Any]]:
    """The `before` of every entry that the change from SUBSCRIPTION makes."""
    await connection.execute("delete from audit_events")
    await mirror.apply_fetched(connection, SUBSCRIPTION, serial=0, marker=1)
    assert await mirror.apply_fetched(connection, after, serial=1, marker=2)
    rows = await connection.fetch("select before from audit_events where action = 'subscription_changed'")
    return [row["before"] for row in rows]


@pytest.mark.parametrize(
    "items",
    [
        [dataclasses.replace(FIRST, quantity=6), METERED],
        [dataclasses.replace(FIRST, quantity=None), METERED],
        [dataclasses.replace(FIRST, price_id=PriceId("price_other")), METERED],
        [dataclasses.replace(FIRST, id=SubscriptionItemId("si_other")), METERED],
        [FIRST],
        [METERED, FIRST],
        [],
        [FIRST, METERED, dataclasses.replace(FIRST, id=SubscriptionItemId("si_3"))],
    ],
)
async def test_a_change_of_items_is_recorded(connection: Connection, items: list[SubscriptionItem]) -> None:
    (before,) = await recorded(connection, with_items(*items))
    assert before["items"][0] == {"id": FIRST.id, "price": FIRST.price_id, "quantity": FIRST.quantity}


async def test_a_renewal_is_not(connection: Connection) -> None:
    renewed = [
        dataclasses.replace(item, current_period_start=200, current_period_end=300)
        for item in SUBSCRIPTION.items
    ]
    after = dataclasses.replace(SUBSCRIPTION, items=renewed, latest_invoice_id="in_new")
    assert await recorded(connection, after) == []


@pytest.mark.parametrize(
    ("change", "before"),
    [
        ({"status": "past_due"}, {"status": SUBSCRIPTION.status}),
        ({"owner_id": CustomerId("cus_new")}, {"owner": SUBSCRIPTION.owner_id}),
        ({"cancel_at": 12_345}, {"cancel_at": SUBSCRIPTION.cancel_at}),
        (
            {"cancel_at_period_end": not SUBSCRIPTION.cancel_at_period_end},
            {"cancel_at_period_end": SUBSCRIPTION.cancel_at_period_end},
        ),
    ],
)
async def test_other_changes_of_a_plan_are(
    connection: Connection, change: dict[str, Any], before: dict[str, Any]
) -> None:
    assert await recorded(connection, dataclasses.replace(SUBSCRIPTION, **change)) == [before]
