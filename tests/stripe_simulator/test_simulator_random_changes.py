"""Random changes of random subscriptions: a preview always equals the charge, and no state is ever impossible."""

import random
from typing import Any

import pytest
import stripe

from tests.stripe_simulator.simulator_support import Account

DAY = 86_400
START = 1_800_000_000
STEPS = 40


def make_prices(account: Account) -> list[str]:
    client = account.client.v1
    product = client.products.create({"name": "Plan"}).id
    terms: list[dict[str, Any]] = [
        {"unit_amount": 1000, "recurring": {"interval": "month"}},
        {"unit_amount": 1999, "recurring": {"interval": "month"}},
        {"unit_amount": 9900, "recurring": {"interval": "year"}},
        {
            "unit_amount": 2500,
            "transform_quantity": {"divide_by": 5, "round": "up"},
            "recurring": {"interval": "month"},
        },
        {
            "billing_scheme": "tiered",
            "tiers_mode": "graduated",
            "tiers": [
                {"up_to": 3, "unit_amount": 900, "flat_amount": 100},
                {"up_to": "inf", "unit_amount": 500},
            ],
            "recurring": {"interval": "month"},
        },
        {"unit_amount": 300, "recurring": {"interval": "week"}},
        {"unit_amount": 500, "recurring": {"interval": "week", "interval_count": 2}},
    ]
    made = []
    for term in terms:
        params: Any = {"product": product, "currency": "usd", **term}
        made.append(client.prices.create(params).id)
    return made


def make_subscription(account: Account, draw: random.Random, prices: list[str]) -> str:
    client = account.client.v1
    customer = client.customers.create({}).id
    method = client.payment_methods.attach("pm_card_visa", {"customer": customer}).id
    client.customers.update(customer, {"invoice_settings": {"default_payment_method": method}})
    # Weeks and months cannot be mixed, so the last two prices are bought by themselves.
    pool = prices[-2:] if draw.random() < 0.25 else prices[:-2]
    params: Any = {
        "customer": customer,
        "items": [{"price": price, "quantity": draw.randint(0, 12)} for price in draw.sample(pool, 2)],
    }
    if draw.random() < 0.3:
        params["trial_period_days"] = draw.randint(1, 20)
    if draw.random() < 0.5:
        params["discounts"] = [
            {"coupon": client.coupons.create({"percent_off": 25, "duration": "forever"}).id}
        ]
    if draw.random() < 0.5:
        rate = client.tax_rates.create(
            {"display_name": "VAT", "inclusive": draw.random() < 0.5, "percentage": 19.5}
        )
        params["default_tax_rates"] = [rate.id]
    return client.subscriptions.create(params).id


def random_change(draw: random.Random, items: list[str], prices: list[str]) -> Any:
    kind = draw.random()
    if kind < 0.5:
        entry: Any = {"id": draw.choice(items), "quantity": draw.randint(0, 15)}
    elif kind < 0.65:
        entry = {"id": draw.choice(items), "deleted": True}
    elif kind < 0.8:
        entry = {"price": draw.choice(prices), "quantity": draw.randint(1, 4)}
    else:
        entry = {"id": draw.choice(items), "price": draw.choice(prices), "quantity": draw.randint(1, 6)}
    change: dict[str, Any] = {
        "items": [entry],
        "proration_behavior": draw.choice(["always_invoice", "create_prorations", "none"]),
    }
    if draw.random() < 0.15:
        change["billing_cycle_anchor"] = {"type": "now"}
    return change


def credited_lines(line: dict[str, Any]) -> list[str]:
    parent = line["parent"]
    details = parent["subscription_item_details"] or parent["invoice_item_details"]
    named = (details["proration_details"] or {}).get("credited_items")
    return [] if named is None else list(named["invoice_line_items"])


def credits_of(account: Account, subscription: str) -> int:
    """S12: every credit names one stored line, and a line's credits add up to at most what it charged.

    Returns the number of lines that were credited.
    """
    client = account.client.v1
    lines: list[dict[str, Any]] = []
    for invoice in client.invoices.list({"subscription": subscription, "limit": 100}).auto_paging_iter():
        listed = client.invoices.line_items.list(str(invoice.id), {"limit": 100}).auto_paging_iter()
        lines += [line.to_dict() for line in listed]
    charged = {line["id"]: line["amount"] for line in lines}
    for line in lines:
        discounts = sum(entry["amount"] for entry in line["discount_amounts"])
        charged[line["id"]] -= discounts
    credited: dict[str, int] = {}
    for line in lines:
        named = credited_lines(line)
        assert len(named) == (line["amount"] < 0), line
        for identifier in named:
            credited[identifier] = credited.get(identifier, 0) - line["amount"]
    assert all(amount <= charged[identifier] for identifier, amount in credited.items()), (credited, charged)
    return len(credited)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_preview_equals_the_charge(account: Account, seed: int) -> None:
    draw = random.Random(seed)
    client = account.client.v1
    account.control("POST", "clock", {"freeze": START})
    prices = make_prices(account)
    subs = [make_subscription(account, draw, prices) for _ in range(4)]
    compared = 0
    for _ in range(STEPS):
        identifier = draw.choice(subs)
        before = client.subscriptions.retrieve(identifier)
        items = [item["id"] for item in before.to_dict()["items"]["data"]]
        change = random_change(draw, items, prices)
        try:
            preview = client.invoices.create_preview(
                {"subscription": identifier, "subscription_details": change}
            )
        except stripe.InvalidRequestError:
            with pytest.raises(stripe.InvalidRequestError):
                client.subscriptions.update(identifier, change)
            continue
        after = client.subscriptions.update(identifier, change)
        if after.latest_invoice != before.latest_invoice:
            invoice = client.invoices.retrieve(str(after.latest_invoice))
            assert (invoice.total, invoice.amount_due) == (preview.total, preview.amount_due)
            compared += 1
        account.control("POST", "clock", {"advance": draw.choice([60, 3600, DAY, 9 * DAY])})
    assert compared >= 5
    assert sum(credits_of(account, identifier) for identifier in subs) >= 5
    now = account.control("GET", "clock")["now"]
    for sub in account.control("GET", "state?type=subscription")["data"]:
        for item in sub["items"]["data"]:
            assert item["current_period_start"] <= now <= item["current_period_end"]
