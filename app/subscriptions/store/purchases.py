"""What may refuse a purchase: the payer's other subscriptions and purchases."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.ids import CustomerId, SubscriptionId
from app.postgres.database import Connection


@dataclass(frozen=True, slots=True)
class Held:
    """A subscription that the customer pays for, and the ids of its prices."""

    id: SubscriptionId
    status: str
    prices: frozenset[str]


@dataclass(frozen=True, slots=True)
class Running:
    """A purchase of the customer that is not settled. `unpaid`: it waits for a payment that its caller completes."""

    prices: frozenset[str]
    unpaid: bool


async def lock_payer(connection: Connection, customer_id: CustomerId) -> None:
    """Let the customer's purchases be admitted one after the other, until the transaction ends."""
    await connection.execute("select 1 from customers where id = $1 for no key update", customer_id)


async def held(connection: Connection, customer_id: CustomerId) -> list[Held]:
    """Return the subscriptions that the customer pays for and that have not ended, oldest first."""
    rows = await connection.fetch(
        """select id, status, array(select item ->> 'price_id' from jsonb_array_elements(items) item) as prices
        from subscriptions where customer_id = $1 and existence = 'present' and not terminal order by created, id""",
        customer_id,
    )
    return [Held(SubscriptionId(row["id"]), row["status"], frozenset(row["prices"])) for row in rows]


async def running(connection: Connection, customer_id: CustomerId) -> list[Running]:
    """Return the customer's purchases whose subscription is not known yet."""
    rows = await connection.fetch(
        """select request -> 'params' ->> 'payment_behavior' = 'default_incomplete' as unpaid,
            array(select item ->> 'price' from jsonb_array_elements(request -> 'params' -> 'items') item) as prices
        from operations o where kind = 'add_subscription' and settled_at is null
            and exists (select from operation_steps t where t.operation_id = o.id
                and t.settled_at is null and t.state <> 'awaiting_payment')
            and request -> 'params' ->> 'customer' = $1""",
        customer_id,
    )
    return [Running(frozenset(row["prices"]), row["unpaid"] is True) for row in rows]
