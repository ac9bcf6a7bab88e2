"""A year of the account's clock over subscriptions of every shape: after each step the cache must be the truth.

`python -m verification.money.year --subscriptions 50` runs it at full size and says what it saw; pytest runs a short
one.
"""

import argparse
import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.commands.local_postgres import LocalPostgres, state_directory
from app.mirror.store.rows import MIRRORS
from testkit import databases
from testkit.ports import free_port
from testkit.service import api_process, as_service, service_environment, worker_process
from testkit.simulator import Simulator, new_account_key, running_simulator
from testkit.truth import cached_rows, expected_row, wanted_refreshes

DAY = 86_400
YEAR_DAYS = 366
MONTH, QUARTER, YEARLY = (
    {"interval": "month"},
    {"interval": "month", "interval_count": 3},
    {"interval": "year"},
)
VISA, FAILING = "pm_card_visa", "pm_card_chargeCustomerFail"
DEBIT, FAILING_DEBIT = "pm_sepaDebit", "pm_sepaDebitFailed"
ADMIN = as_service("admin")


@dataclass
class Catalogue:
    month: str
    quarter: str
    year: str
    packs: str
    tiers: str
    usage: str
    coupons: dict[str, str]
    """By duration: once, repeating, forever."""
    rate: str


@dataclass
class Account:
    """The stand-in's account, the service in front of its cache, and what has been made there."""

    stripe: Simulator
    api: httpx.AsyncClient
    database_url: str
    catalogue: Catalogue
    chance: random.Random
    subscriptions: list[tuple[str, str, str]] = field(default_factory=list)
    """Shape, customer and subscription."""
    verified: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def of_shape(self, *shapes: str) -> Iterator[tuple[str, str]]:
        return ((customer, sub) for shape, customer, sub in self.subscriptions if shape in shapes)

    async def ask(self, method: str, path: str, body: Mapping[str, Any]) -> httpx.Response:
        """A call of our own API; the operator's key may do everything."""
        answer = await self.api.request(method, path, json=dict(body), headers=ADMIN)
        assert answer.status_code < 300, answer.text
        return answer

    async def card(self, customer: str, token: str) -> str:
        made = await self.stripe.post(f"/v1/payment_methods/{token}/attach", customer=customer)
        await self.stripe.post(
            f"/v1/customers/{customer}", invoice_settings={"default_payment_method": made["id"]}
        )
        return str(made["id"])


async def stocked(stripe: Simulator) -> Catalogue:
    shared = {"billing_sellable": "true", "billing_supports_shared_subscriptions": "true"}
    team = (await stripe.post("/v1/products", name="Team", metadata=shared))["id"]
    plain = (await stripe.post("/v1/products", name="Plain", metadata={"billing_sellable": "true"}))["id"]
    meter = await stripe.post(
        "/v1/billing/meters",
        display_name="Calls",
        event_name="calls",
        default_aggregation={"formula": "sum"},
    )

    async def price(product: str, recurring: Mapping[str, Any], **fields: Any) -> str:
        sold = {"billing_sellable": "true"}
        made = await stripe.post(
            "/v1/prices", product=product, currency="usd", recurring=recurring, metadata=sold, **fields
        )
        return str(made["id"])

    return Catalogue(
        month=await price(team, MONTH, unit_amount=1000, currency_options={"eur": {"unit_amount": 900}}),
        quarter=await price(team, QUARTER, unit_amount=2700),
        year=await price(team, YEARLY, unit_amount=9600),
        packs=await price(plain, MONTH, unit_amount=2500, transform_quantity={"divide_by": 5, "round": "up"}),
        tiers=await price(
            plain,
            MONTH,
            billing_scheme="tiered",
            tiers_mode="graduated",
            tiers=[{"up_to": 5, "unit_amount": 900}, {"up_to": "inf", "unit_amount": 650}],
        ),
        usage=await price(
            plain,
            {**MONTH, "usage_type": "metered", "meter": meter["id"]},
            unit_amount=50,
            transform_quantity={"divide_by": 1000, "round": "down"},
        ),
        coupons={
            "once": (await stripe.post("/v1/coupons", percent_off=50, duration="once"))["id"],
            "repeating": (
                await stripe.post("/v1/coupons", percent_off=20, duration="repeating", duration_in_months=4)
            )["id"],
            "forever": (await stripe.post("/v1/coupons", amount_off=250, currency="usd", duration="forever"))[
                "id"
            ],
        },
        rate=(await stripe.post("/v1/tax_rates", display_name="VAT", percentage=19, inclusive=False))["id"],
    )


def shapes(prices: Catalogue) -> dict[str, dict[str, Any]]:
    """Parameters of a create, by name of the shape."""
    seats = {"price": prices.month, "quantity": 3}
    pauses = {"end_behavior": {"missing_payment_method": "pause"}}
    sent = {"collection_method": "send_invoice", "days_until_due": 14}
    return {
        "plain": {"items": [seats]},
        "trial": {"items": [seats], "trial_period_days": 20},
        "trial without a card": {"items": [seats], "trial_period_days": 20, "trial_settings": pauses},
        **{
            f"discount {duration}": {"items": [seats], "discounts": [{"coupon": coupon}]}
            for duration, coupon in prices.coupons.items()
        },
        "tax": {"items": [seats, {"price": prices.tiers, "quantity": 8}], "default_tax_rates": [prices.rate]},
        "mixed": {"items": [seats, {"price": prices.year}, {"price": prices.quarter}]},
        "ends": {"items": [seats]},
        "fails and is paid": {"items": [seats]},
        "fails for good": {"items": [seats]},
        "paused": {"items": [seats]},
        "usage": {"items": [{"price": prices.usage}, seats]},
        "packs": {"items": [{"price": prices.packs, "quantity": 7}]},
        "never paid": {"items": [seats], "payment_behavior": "default_incomplete"},
        "classic": {"items": [{"price": prices.quarter}], "billing_mode": {"type": "classic"}},
        "classic tiers": {
            "items": [{"price": prices.tiers, "quantity": 4}],
            "billing_mode": {"type": "classic"},
        },
        "euros": {"items": [seats], "currency": "eur"},
        "sent and paid": {"items": [seats], **sent},
        "sent and overdue": {"items": [{"price": prices.month}, {"price": prices.quarter}], **sent},
        "debit": {"items": [seats]},
        "failing debit": {"items": [seats]},
        **{f"collects {behavior}": {"items": [seats]} for behavior in NOT_COLLECTING},
    }


NOT_COLLECTING = ("void", "keep_as_draft", "mark_uncollectible")
"""What becomes of the invoices of a subscription whose collection is paused."""
WAYS_OF_PAYING = {
    "trial without a card": None,
    "never paid": None,
    "sent and paid": None,
    "sent and overdue": None,
    "debit": DEBIT,
}
"""By shape, where it is not a card that pays."""


async def peopled(account: Account, count: int | None) -> None:
    """So many subscriptions, shape after shape; None: one of each."""
    offered = shapes(account.catalogue)
    for number in range(len(offered) if count is None else count):
        shape = list(offered)[number % len(offered)]
        customer = (await account.stripe.post("/v1/customers", email=f"payer{number}@example.com"))["id"]
        method = WAYS_OF_PAYING.get(shape, VISA)
        if method is not None:
            await account.card(customer, method)
        made = await account.stripe.post("/v1/subscriptions", customer=customer, **offered[shape])
        account.subscriptions.append((shape, customer, made["id"]))


async def seat_changes(account: Account) -> None:
    """Some plans grow and shrink through our API, with prorations charged at once."""
    for _, sub in account.of_shape(*CHANGING):
        if account.chance.random() < 0.4:
            item = (await account.api.get(f"/v1/subscriptions/{sub}", headers=ADMIN)).json()
            items = item["subscription"]["items"]
            change = {"id": items[-1]["id"], "quantity": account.chance.randint(1, 12)}
            # What an unpaid invoice bills is given up without credit.
            body = {"items": [change], "forgo_credit": True}
            await account.ask("PATCH", f"/v1/subscriptions/{sub}", body)


CHANGING = (
    "plain",
    "discount once",
    "discount repeating",
    "discount forever",
    "tax",
    "packs",
    "usage",
    "classic tiers",
    "euros",
    "sent and paid",
    "debit",
)
"""Shapes whose quantity goes up and down over the year."""


async def usage(account: Account) -> None:
    for customer, _ in account.of_shape("usage"):
        payload = {"stripe_customer_id": customer, "value": str(account.chance.randint(0, 9000))}
        await account.stripe.post("/v1/billing/meter_events", event_name="calls", payload=payload)


async def cards_fail(account: Account) -> None:
    for customer, _ in account.of_shape("fails and is paid", "fails for good"):
        await account.card(customer, FAILING)
    for customer, _ in account.of_shape("failing debit"):
        await account.card(customer, FAILING_DEBIT)


async def bills_are_paid(account: Account) -> None:
    """By bank transfer, which the operator notes; some of them are refunded or credited in part."""
    for _, sub in account.of_shape("sent and paid"):
        for invoice in (await account.stripe.get("/v1/invoices", subscription=sub, status="open"))["data"]:
            await account.stripe.post(f"/v1/invoices/{invoice['id']}/pay", paid_out_of_band=True)
    for _, sub in account.of_shape("plain", "discount forever"):
        paid = (await account.stripe.get("/v1/invoices", subscription=sub, status="paid", limit=1))["data"]
        if paid and paid[0]["amount_paid"] > 100:
            await account.stripe.post(
                "/v1/credit_notes", invoice=paid[0]["id"], amount=100, credit_amount=100
            )


async def collection_pauses(account: Account) -> None:
    for behavior in NOT_COLLECTING:
        for _, sub in account.of_shape(f"collects {behavior}"):
            await account.stripe.post(f"/v1/subscriptions/{sub}", pause_collection={"behavior": behavior})


async def collection_goes_on(account: Account) -> None:
    for behavior in NOT_COLLECTING:
        for _, sub in account.of_shape(f"collects {behavior}"):
            await account.stripe.post(f"/v1/subscriptions/{sub}", pause_collection="")


async def cards_are_renewed(account: Account) -> None:
    """Through our API; then what is open is paid, as Stripe's own page would."""
    for customer, sub in account.of_shape("fails and is paid"):
        await account.ask(
            "POST",
            f"/v1/customers/{customer}/payment-methods",
            {"payment_method_id": VISA, "use_as_default": True},
        )
        for invoice in (await account.stripe.get("/v1/invoices", subscription=sub, status="open"))["data"]:
            await account.stripe.post(f"/v1/invoices/{invoice['id']}/pay")


async def some_end(account: Account) -> None:
    for _, sub in account.of_shape("ends"):
        await account.ask("POST", f"/v1/subscriptions/{sub}/cancel", {"reason": "the season is over"})


async def some_pause(account: Account) -> None:
    for _, sub in account.of_shape("paused"):
        await account.stripe.post(f"/v1/subscriptions/{sub}/pause", type="subscription")


async def all_resume(account: Account) -> None:
    for customer, sub in account.of_shape("paused", "trial without a card"):
        await account.card(customer, VISA)
        if (await account.stripe.get(f"/v1/subscriptions/{sub}"))["status"] == "paused":
            await account.ask("POST", f"/v1/subscriptions/{sub}/resume", {})


Action = Callable[[Account], Awaitable[None]]
CALENDAR: dict[float, list[Action]] = {
    1: [],
    32: [cards_fail],
    64: [cards_are_renewed, some_end],
    96: [some_pause, collection_pauses],
    130: [bills_are_paid],
    170: [all_resume, collection_goes_on],
    220: [bills_are_paid],
    280: [bills_are_paid],
    366: [],
}
"""The days on which the cache is looked at, and what happens afterwards; a finer year has more days."""
DUNNING = {"retry_days": [3, 7, 14], "final": "canceled"}


async def compared(account: Account) -> list[str]:
    """Differences between the cache and the account; what neither side has touched since is not read again."""
    found: list[str] = []
    for kind in MIRRORS:
        cached = await cached_rows(account.database_url, kind)
        truth = {state["id"]: state for state in await account.stripe.state(kind)}
        found += [f"{kind} {name} is cached and does not exist" for name in cached.keys() - truth.keys()]
        for object_id, state in truth.items():
            row = cached.get(object_id)
            if row is None:
                if kind != "payment_method" or state["customer"] is not None:
                    found.append(f"{kind} {object_id} is not cached")
                continue
            if account.verified.get(object_id) == (state, row):
                continue
            expected = await expected_row(account.stripe, kind, state)
            wrong = {name: value for name, value in expected.items() if row[name] != value}
            found += [f"{kind} {object_id} {name}: {row[name]!r} is {v!r}" for name, v in wrong.items()]
            if not wrong:
                account.verified[object_id] = (state, row)
    return found


async def at_rest(account: Account, *, within: float) -> None:
    """Until all is delivered and fetched. Raises AssertionError where the cache then differs from the truth."""
    deadline = time.monotonic() + within
    while True:
        waiting = (await account.stripe.deliveries())["pending"]
        wanted = await wanted_refreshes(account.database_url)
        if not waiting and not wanted:
            break
        assert time.monotonic() < deadline, f"{waiting} deliveries and the refreshes of {wanted[:9]} wait"
        await asyncio.sleep(0.1)
    found = await compared(account)
    assert found == [], "\n".join(found[:20])


async def live(account: Account, *, every: float, within: float, tell: Callable[[str], None]) -> Counter[str]:
    """The year, looked at on the calendar's days and `every` so many; how often each status was seen at rest."""
    seen: Counter[str] = Counter()
    days = sorted({*CALENDAR, *(every * n for n in range(1, int(YEAR_DAYS / every) + 1))})
    for before, day in itertools.pairwise([0.0, *days]):
        started = time.monotonic()
        await at_rest(account, within=within)
        now = Counter(state["status"] for state in await account.stripe.state("subscription"))
        seen += now
        told = ", ".join(f"{number} {status}" for status, number in sorted(now.items()))
        tell(f"day {before:.0f}: {told}; at rest after {time.monotonic() - started:.1f} s")
        for action in CALENDAR.get(before, []):
            await action(account)
        await usage(account)
        await seat_changes(account)
        await account.stripe.advance((day - before) * DAY)
    await at_rest(account, within=within)
    return seen


@contextmanager
def _postgres() -> Iterator[str]:
    server = LocalPostgres(state_directory(databases.CHECKOUT) / "tests", fast=True)
    server.start()
    try:
        url = databases.clone(server.url("postgres"), databases.ensure_template(server.url("postgres")))
        yield url
        databases.drop(server.url("postgres"), url)
    finally:
        server.stop()


async def run(
    stripe_base: str,
    database_url: str,
    *,
    subscriptions: int | None = None,
    every: float = YEAR_DAYS,
    within: float = 60.0,
    tell: Callable[[str], None] = lambda _: None,
) -> Counter[str]:
    """An account of its own, real API and worker processes, and a year of its clock."""
    async with Simulator(stripe_base, new_account_key()) as stripe:
        port = free_port()
        secret = await stripe.add_webhook_endpoint(f"http://127.0.0.1:{port}/webhooks/stripe")
        environment = service_environment(
            database_url=database_url,
            stripe_base=stripe_base,
            stripe_key=stripe.api_key,
            STRIPE_WEBHOOK_SECRETS=secret,
        )
        await stripe.control("POST", "clock", freeze=True)
        await stripe.settings(dunning=DUNNING)
        with api_process(environment, port=port) as (base_url, _), worker_process(environment) as worker:
            async with httpx.AsyncClient(base_url=base_url, timeout=30.0) as api:
                account = Account(stripe, api, database_url, await stocked(stripe), random.Random(2026))
                await peopled(account, subscriptions)
                try:
                    return await live(account, every=every, within=within, tell=tell)
                except AssertionError as error:
                    error.add_note("\n".join(["the worker said:", *worker.lines[-40:]]))
                    raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subscriptions", type=int, default=50)
    parser.add_argument(
        "--every", type=float, default=10.0, help="days from one look at the cache to the next"
    )
    given = parser.parse_args()
    started = time.monotonic()
    with _postgres() as database_url, running_simulator() as stripe_base:
        seen = asyncio.run(
            run(
                stripe_base,
                database_url,
                subscriptions=given.subscriptions,
                every=given.every,
                within=120.0,
                tell=print,
            )
        )
    print(f"the cache was the truth at every step; seen: {dict(seen)}; {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
