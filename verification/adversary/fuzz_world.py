"""What the generators are let loose on: an account with many plans, people and cards, and the processes over it.

Generated ids name nothing; the ids given here are mixed into what is generated, so that cases go deep.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from testkit.company import Service, running_service
from testkit.plans import MONTHLY
from testkit.ports import free_port
from testkit.service import (
    WEBHOOK_SECRET,
    api_process,
    as_service,
    as_user,
    service_environment,
    worker_process,
)
from testkit.simulator import Simulator

PLANS = 24
"""Shared plans of the owner: every third case or so ends one, fills it or gives it away."""

OWN_PLANS = 6
CARDS = 8


@dataclass(frozen=True)
class Known:
    """By principal: its headers, and ids by what they name, mostly its own."""

    headers: Mapping[str, Mapping[str, str]]
    ids: Mapping[str, Mapping[str, list[str]]]


@dataclass
class _Account:
    """Made as in the Dashboard."""

    stripe: Simulator
    ids: dict[str, list[str]] = field(default_factory=dict)

    def note(self, kind: str, identifier: str) -> str:
        self.ids.setdefault(kind, []).append(identifier)
        return identifier

    async def make(self, kind: str, path: str, **fields: Any) -> str:
        return self.note(kind, str((await self.stripe.post(path, **fields))["id"]))

    async def person(self, label: str, **metadata: str) -> str:
        marks = {"billing_user_id": label, **metadata}
        email = self.note("emails", f"{label}@example.com")
        return await self.make("customers", "/v1/customers", email=email, name=label.title(), metadata=marks)

    async def catalogue(self) -> list[str]:
        """Prices of a seat plan, by the month, by the year and in tiers, and of a plan for one."""
        marks = {"billing_sellable": "true"}
        shared = {**marks, "billing_supports_shared_subscriptions": "true"}
        team = await self.make("products", "/v1/products", name="Team", metadata=shared)
        solo = await self.make("products", "/v1/products", name="Solo", metadata=marks)
        tiers = [{"up_to": 10, "unit_amount": 1000}, {"up_to": "inf", "unit_amount": 600}]
        euros = {"eur": {"unit_amount": 1100}}
        for product, fields in (
            (team, {"recurring": MONTHLY, "unit_amount": 1200, "currency_options": euros}),
            (team, {"recurring": {"interval": "year"}, "unit_amount": 12000}),
            (
                team,
                {"recurring": MONTHLY, "billing_scheme": "tiered", "tiers_mode": "graduated", "tiers": tiers},
            ),
            (solo, {"recurring": MONTHLY, "unit_amount": 900}),
        ):
            sold = {"product": product, "currency": "usd", "metadata": marks, **fields}
            await self.make("prices", "/v1/prices", **sold)
        return self.ids["prices"]

    async def charged(self, customer: str, *, cards: int) -> None:
        """So many cards, the first of them the default."""
        made = [
            await self.make("cards", "/v1/payment_methods/pm_card_visa/attach", customer=customer)
            for _ in range(cards)
        ]
        default = {"default_payment_method": made[0]}
        await self.stripe.post(f"/v1/customers/{customer}", invoice_settings=default)

    async def subscription(self, payer: str, price: str, seats: int, *, shared: bool) -> str:
        marks = {"billing_shared_subscription_owner": payer} if shared else {}
        made = await self.stripe.post(
            "/v1/subscriptions", customer=payer, items=[{"price": price, "quantity": seats}], metadata=marks
        )
        self.note("items", made["items"]["data"][0]["id"])
        self.note("invoices", made["latest_invoice"])
        return self.note("subscriptions", made["id"])


@dataclass(frozen=True)
class _People:
    owner: str
    user: str
    owned: list[str]
    used: list[str]


async def _seed(account: _Account) -> _People:
    monthly, yearly, tiered, solo = await account.catalogue()
    coupon = await account.make("coupons", "/v1/coupons", percent_off=10, duration="once")
    promotion = {"type": "coupon", "coupon": coupon}
    account.note("codes", "WELCOME10")
    await account.make("promotions", "/v1/promotion_codes", code="WELCOME10", promotion=promotion)
    await account.make("tax_rates", "/v1/tax_rates", display_name="VAT", percentage=20, inclusive=False)
    owner = await account.person("fuzz-owner")
    await account.charged(owner, cards=CARDS)
    owned = [
        await account.subscription(owner, (monthly, yearly, tiered)[number % 3], 4, shared=True)
        for number in range(PLANS)
    ]
    for number, plan in enumerate(owned[: PLANS // 2]):
        await account.person(f"fuzz-member-{number}", **_seat(plan, "manager" if number % 2 else "user"))
    user = await account.person("fuzz-user", **_seat(owned[0], "user"))
    await account.charged(user, cards=CARDS)
    own = [
        await account.subscription(user, solo if number % 2 else monthly, 2, shared=number % 2 == 0)
        for number in range(OWN_PLANS)
    ]
    await account.person("fuzz-stranger")
    now = datetime.now(UTC).replace(microsecond=0)
    account.ids["moments"] = [
        *((now + timedelta(seconds=seconds)).isoformat() for seconds in (1, 3 * 86_400, 90 * 86_400)),
        "now",
    ]
    return _People(owner, user, owned, [*own, owned[0]])


def _seat(plan: str, role: str) -> dict[str, str]:
    return {"billing_shared_subscription_id": plan, "billing_shared_subscription_role": role}


async def _changes(service: Service, account: _Account, plans: list[str], headers: Mapping[str, str]) -> None:
    """Operations that can be read afterwards."""
    for number, plan in enumerate(plans):
        email = account.note("emails", f"fuzz-added-{number}@example.com")
        changed = await service.send(
            "PATCH", f"/v1/shared-subscriptions/{plan}/users", headers, {"add": [{"email": email}]}
        )
        assert changed.status_code == httpx.codes.OK, changed.text
        account.note("operations", changed.json()["operation_id"])
        account.note("customers", changed.json()["results"][0]["customer_id"])


@asynccontextmanager
async def fuzz_world(
    stripe: Simulator, database_url: str, **overrides: str
) -> AsyncIterator[tuple[str, Known]]:
    """The base URL of an API process, with a worker beside it, over a filled account, and what is known of that."""
    account = _Account(stripe)
    people = await _seed(account)
    headers = {
        "owner": as_user("fuzz-owner", email="fuzz-owner@example.com", email_verified=True),
        "user": as_user("fuzz-user", email="fuzz-user@example.com", email_verified=True),
        "admin": as_service("admin"),
    }
    async with running_service(stripe, database_url) as service:
        await service.fill()
        await _changes(service, account, people.owned[: PLANS // 3], headers["owner"])
    everybody = account.ids["customers"]
    own = {
        "owner": {"selves": ["me", people.owner], "plans": people.owned},
        "user": {"selves": ["me", people.user], "plans": people.used},
        "admin": {"selves": everybody, "plans": account.ids["subscriptions"]},
    }
    port = free_port()
    environment = service_environment(
        database_url=database_url, stripe_base=stripe.base_url, stripe_key=stripe.api_key, **overrides
    )
    secret = await stripe.add_webhook_endpoint(f"http://127.0.0.1:{port}/webhooks/stripe")
    environment["STRIPE_WEBHOOK_SECRETS"] = f"{WEBHOOK_SECRET},{secret}"
    with api_process(environment, port=port) as (base_url, _), worker_process(environment):
        yield base_url, Known(headers, {name: {**account.ids, **ids} for name, ids in own.items()})
