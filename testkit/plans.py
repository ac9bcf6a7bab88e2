"""Objects of a simulated account that several tests start from, made as an operator makes them in the Dashboard."""

from dataclasses import dataclass
from typing import Any

from testkit.simulator import Simulator

MONTHLY = {"interval": "month"}
TIERS = [
    {"up_to": 5, "unit_amount": 900, "flat_amount": 1000},
    {"up_to": "inf", "unit_amount_decimal": "649.5"},
]


@dataclass(frozen=True, slots=True)
class Plan:
    product: str
    price: str


async def new_plan(simulator: Simulator, *, shared: bool = True, **price: Any) -> Plan:
    """A monthly product, shareable unless said otherwise."""
    metadata = {"billing_supports_shared_subscriptions": "true"} if shared else {}
    product = await simulator.post("/v1/products", name="Team", metadata=metadata)
    given = {"currency": "usd", "unit_amount": 1000, "recurring": MONTHLY, **price}
    made = await simulator.post("/v1/prices", product=product["id"], **given)
    return Plan(product["id"], made["id"])


async def new_customer(simulator: Simulator, *, card: str | None = "pm_card_visa", **fields: Any) -> str:
    """A customer whose default is `card`."""
    customer = await simulator.post("/v1/customers", **{"email": "someone@example.com", **fields})
    if card is not None:
        method = await simulator.post(f"/v1/payment_methods/{card}/attach", customer=customer["id"])
        await simulator.post(
            f"/v1/customers/{customer['id']}", invoice_settings={"default_payment_method": method["id"]}
        )
    return str(customer["id"])


async def new_subscription(
    simulator: Simulator, customer: str, items: list[dict[str, Any]], **fields: Any
) -> Any:
    return await simulator.post("/v1/subscriptions", customer=customer, items=items, **fields)
