"""One account with its catalogue and its people, as an operator sets them up in the Dashboard."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.context import Context
from app.mirror.store import rows as mirror
from app.postgres.database import Connection
from app.stripe import parsing
from testkit.service import as_service
from testkit.simulator import SimulatorError
from verification.money.bench import Bench, StandIn
from verification.money.journal import Journal, Json, Version

EPOCH = 1_798_761_600
"""2027-01-01T00:00:00Z; lives begin within the year after it."""
DAY = 86_400
CARDS = {
    "pays": "pm_card_visa",
    "declines": "pm_card_chargeCustomerFail",
    "wants 3-D Secure": "pm_card_authenticationRequired",
    "is debited": "pm_sepaDebit",
    "fails to be debited": "pm_sepaDebitFailed",
}
DUNNING = ("canceled", "unpaid", "past_due")
TIERS = [
    {"up_to": 5, "unit_amount": 900, "flat_amount": 1000},
    {"up_to": "inf", "unit_amount_decimal": "649.5"},
]
MIRRORED = frozenset({"product", "price", "customer", "subscription", "payment_method", "invoice"})
SALE = {"billing_sellable": "true"}


@dataclass(frozen=True, slots=True)
class Person:
    label: str
    customer_id: str
    email: str
    headers: Mapping[str, str] = field(repr=False)


@dataclass(slots=True)
class Shop:
    """Prices by a short name, all on sale; `codes`: promotion codes; `coupons` and `rates`: ids."""

    prices: dict[str, str] = field(default_factory=dict)
    codes: list[str] = field(default_factory=list)
    coupons: list[str] = field(default_factory=list)
    rates: list[str] = field(default_factory=list)

    def name_of(self, price_id: str) -> str:
        return next((name for name, known in self.prices.items() if known == price_id), "another price")


class World:
    """The account, its journal, and the service's cache of it; `now` is the account's time in Unix seconds."""

    def __init__(self, bench: Bench, context: Context, stripe: StandIn, rng: random.Random) -> None:
        self.bench = bench
        self.context = context
        self.stripe = stripe
        self.rng = rng
        self.journal = Journal()
        self.now = 0.0
        self.shop = Shop()
        self._untold: dict[tuple[str, str], Version] = {}
        self._labels: dict[str, int] = {}

    # ------------------------------------------------------------------------------------------- time and news

    async def start(self) -> None:
        self.now = EPOCH + self.rng.randrange(365) * DAY + self.rng.randrange(DAY)
        await self.stripe.control("POST", "clock", freeze=self.now)
        await self.stripe.settings(dunning={"retry_days": [3, 5], "final": self.rng.choice(DUNNING)})
        await self.bench.wind(self.now)

    async def advance(self, seconds: float) -> None:
        self.now = await self.stripe.advance(seconds)
        await self.bench.wind(self.now)
        await self.listen()
        await self.bench.work(self.context)

    async def look(self) -> list[Version]:
        """Reads what has happened since the last look into the journal."""
        rows = await self.stripe.versions(since=self.journal.last)
        found = self.journal.extend(rows)
        for version in found:
            if version.kind in MIRRORED:
                self._untold[version.kind, version.id] = version
        return found

    async def listen(self) -> None:
        """The service's cache learns of everything that happened."""
        await self.look()
        told = [version.state for version in self._untold.values() if version.state is not None]
        self._untold.clear()
        if told:
            async with self.context.database.transaction() as connection:
                for state in told:
                    await self._tell(connection, state)

    async def _tell(self, connection: Connection, state: Json) -> None:
        if state.get("deleted"):
            return
        found = _snapshot(state)
        serial = await mirror.serial_of(connection, state["object"], state["id"])
        await mirror.apply_fetched(connection, found, serial=serial, marker=int(self.now))

    async def hint(self, events: Iterable[str]) -> None:
        """The service is sent the newest event of each of these types, and nothing else."""
        for name in events:
            page = await self.stripe.get("/v1/events", type=name, limit=1)
            for event in page["data"]:
                await self.bench.deliver(event)

    # ------------------------------------------------------------------------------------------- setting up

    async def stock(self) -> None:
        """A team product with seats, and an addon without; every price is on sale."""
        rng, post = self.rng, self.stripe.post
        shared = {**SALE, "billing_supports_shared_subscriptions": "true"}
        team = (await post("/v1/products", name="Team", metadata=shared))["id"]
        addon = (await post("/v1/products", name="Addon", metadata=SALE))["id"]
        amount = rng.choice((1000, 1200, 999, 333, 12_000))
        month, year = {"interval": "month"}, {"interval": "year"}
        seats: dict[str, Json] = {
            "plain": {"unit_amount": amount},
            "graduated": {"tiers_mode": "graduated", "billing_scheme": "tiered", "tiers": TIERS},
            "volume": {"tiers_mode": "volume", "billing_scheme": "tiered", "tiers": TIERS},
            "packs": {"unit_amount": amount * 4, "transform_quantity": {"divide_by": 5, "round": "up"}},
        }
        shape = rng.choice(("plain", "plain", "graduated", "volume", "packs"))
        euros = {"eur": {"unit_amount": max(1, amount * 9 // 10)}} if shape == "plain" else None
        await self._price("team/month", team, month, **seats[shape], currency_options=euros)
        await self._price(
            "team/dear", team, month, unit_amount=amount * 2 + 55, currency_options=_plain_euros(amount * 2)
        )
        await self._price(
            "team/year", team, year, unit_amount=amount * 10, currency_options=_plain_euros(amount * 9)
        )
        await self._price("addon/month", addon, month, unit_amount=500, currency_options=_plain_euros(450))
        if rng.random() < 0.4:
            await self._price(
                "addon/year", addon, year, unit_amount=4_800, currency_options=_plain_euros(4_500)
            )
        if rng.random() < 0.2:
            quarter = {"interval": "month", "interval_count": 3}
            await self._price(
                "addon/quarter", addon, quarter, unit_amount=1_299, currency_options=_plain_euros(1_200)
            )
        if rng.random() < 0.15:
            await self._price("addon/free", addon, month, unit_amount=0, currency_options=_plain_euros(0))
        await self._stock_terms()
        await self.listen_to_prices()

    async def _price(self, name: str, product: str, recurring: Json, **fields: Any) -> None:
        given = {key: value for key, value in fields.items() if value is not None}
        made = await self.stripe.post(
            "/v1/prices", product=product, currency="usd", recurring=recurring, metadata=SALE, **given
        )
        self.shop.prices[name] = made["id"]

    async def _stock_terms(self) -> None:
        rng, post = self.rng, self.stripe.post
        kinds: list[Json] = [
            {"percent_off": rng.choice((10, 25, 50, 33.3)), "duration": "once"},
            {"percent_off": rng.choice((15, 50)), "duration": "repeating", "duration_in_months": 2},
            {"amount_off": rng.choice((100, 777)), "currency": "usd", "duration": "forever"},
            {"percent_off": 20, "duration": "forever"},
        ]
        for number, kind in enumerate(rng.sample(kinds, 2)):
            coupon = await post("/v1/coupons", **kind)
            self.shop.coupons.append(coupon["id"])
            code = f"SAVE{number}"
            await post("/v1/promotion_codes", code=code, promotion={"type": "coupon", "coupon": coupon["id"]})
            self.shop.codes.append(code)
        if rng.random() < 0.4:
            inclusive = rng.random() < 0.4
            rate = await post("/v1/tax_rates", display_name="VAT", percentage=19, inclusive=inclusive)
            self.shop.rates.append(rate["id"])

    async def listen_to_prices(self) -> None:
        """Tiers and amounts in other currencies are only shown where they are asked for."""
        listed = await self.stripe.get(
            "/v1/prices", limit=100, expand=["data.tiers", "data.currency_options"]
        )
        await self.listen()
        async with self.context.database.transaction() as connection:
            for state in listed["data"]:
                await self._tell(connection, state)

    async def person(self, label: str, **metadata: str) -> Person:
        number = self._labels[label] = self._labels.get(label, 0) + 1
        subject, email = f"{label}{number}", f"{label}{number}@example.com"
        made = await self.stripe.post(
            "/v1/customers", email=email, name=subject, metadata={"billing_user_id": subject, **metadata}
        )
        return Person(subject, made["id"], email, self.bench.login(subject))

    async def card(self, customer_id: str, kind: str) -> str:
        made = await self.stripe.post(f"/v1/payment_methods/{CARDS[kind]}/attach", customer=customer_id)
        await self.stripe.post(
            f"/v1/customers/{customer_id}", invoice_settings={"default_payment_method": made["id"]}
        )
        return str(made["id"])

    async def dashboard(self, method: str, path: str, **fields: Any) -> tuple[bool, Any]:
        """An edit by hand; whether the stand-in took it, and its answer. Refusals are part of life."""
        try:
            if path.startswith("/_simulator/"):
                return True, await self.stripe.control(method, path.removeprefix("/_simulator/"), **fields)
            return True, await self.stripe.call(method, path, fields)
        except SimulatorError as refused:
            if refused.status >= 500:
                raise
            return False, refused.body

    # ------------------------------------------------------------------------------------------- looking

    def subscription(self, subscription_id: str) -> Json:
        found = self.journal.state("subscription", subscription_id)
        if found is None:
            raise LookupError(f"{subscription_id} is not there")
        return found

    def invoices(self, subscription_id: str, *statuses: str) -> list[Json]:
        return [
            invoice
            for invoice in self.journal.all("invoice")
            if _subscription_of(invoice) == subscription_id
            and (not statuses or invoice["status"] in statuses)
        ]

    def members(self, subscription_id: str) -> list[str]:
        """The ids of the customers whose metadata gives them a seat."""
        return [
            customer["id"]
            for customer in self.journal.all("customer")
            if subscription_id in memberships(customer)
        ]


ADMIN = as_service("admin")


def acting_for(customer_id: str) -> dict[str, str]:
    return as_service("write", acting_for=customer_id)


def memberships(customer: Json) -> dict[str, str]:
    """Subscription to role, by a customer's metadata."""
    marks = customer.get("metadata") or {}
    found = {}
    if marks.get("billing_shared_subscription_id"):
        role = marks.get("billing_shared_subscription_role") or "user"
        found[marks["billing_shared_subscription_id"]] = role
    for key, value in marks.items():
        if key.startswith("billing_sub_") and value in ("user", "manager"):
            found[key.removeprefix("billing_")] = value
    return found


def _subscription_of(invoice: Json) -> str | None:
    details = ((invoice.get("parent") or {}).get("subscription_details")) or {}
    found = details.get("subscription")
    return None if found is None else str(found)


def _plain_euros(amount: int) -> Json:
    return {"eur": {"unit_amount": amount}}


def _snapshot(state: Json) -> Any:
    return parsing.PARSERS[state["object"]](state)
