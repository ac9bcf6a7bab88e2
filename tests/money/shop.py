"""A seller's account, its buyers, and a service whose cache hears of everything that the stand-in would deliver."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

import httpx

from app.errors import StripeOutcomeUnknown
from testkit.company import Person, Service, Who
from testkit.plans import MONTHLY
from testkit.problems import ok
from testkit.service import as_service
from testkit.simulator import Simulator
from testkit.truth import differences

VISA = "pm_card_visa"
DECLINED = "pm_card_chargeCustomerFail"
CHALLENGED = "pm_card_authenticationRequired"
ENDPOINT_PATH = "/v1/subscriptions"
UNSETTLED = """select id from operations o where settled_at is null and not exists (
    select from operation_steps t where t.operation_id = o.id and t.state = 'awaiting_payment')"""
"""The operations whose outcome is open; those that wait for a payment do not count."""


class Unpaid(NamedTuple):
    """A purchase that waits for its first payment; `subscription` as its buyer reads it."""

    operation_id: str
    payment: dict[str, Any]
    subscription: dict[str, Any]


class Shop:
    """Prices are made as in the Dashboard; `heard` marks how far the events have been delivered."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._heard: str | None = None

    @property
    def stripe(self) -> Simulator:
        return self.service.stripe

    async def product(self, *, listed: bool = True, shared: bool = False, **fields: Any) -> str:
        metadata = {"billing_sellable": "true"} if listed else {}
        metadata |= {"billing_supports_shared_subscriptions": "true"} if shared else {}
        made = await self.stripe.post("/v1/products", **{"name": "Plan", "metadata": metadata, **fields})
        await self.service.refresh("product", made["id"])
        return str(made["id"])

    async def price(self, product: str | None = None, **fields: Any) -> str:
        """10.00 USD a month unless said otherwise, of a product of its own unless one is named.

        A price of a listed product is marked for sale, unless `metadata` is given.
        """
        owner = product or await self.product()
        listed = (await self.stripe.get(f"/v1/products/{owner}"))["metadata"].get(
            "billing_sellable"
        ) == "true"
        marks = {"metadata": {"billing_sellable": "true"}} if listed else {}
        given: dict[str, Any] = {"currency": "usd", "recurring": MONTHLY, **marks, **fields}
        if not {"unit_amount", "unit_amount_decimal", "tiers"} & given.keys():
            given["unit_amount"] = 1000
        made = await self.stripe.post("/v1/prices", product=owner, **given)
        await self.service.refresh("price", made["id"])
        return str(made["id"])

    async def buyer(self, *, card: str | None = VISA) -> tuple[Person, str | None]:
        """A person and his default payment method."""
        person = await self.service.person("buyer")
        # The first request of a login writes its link to the customer, once.
        assert (await self.service.get("/v1/customers/me", person.headers)).status_code == httpx.codes.OK
        if card is None:
            return person, None
        method = await self.card(person, card)
        await self.stripe.post(
            f"/v1/customers/{person.customer_id}", invoice_settings={"default_payment_method": method}
        )
        await self.service.refresh("customer", person.customer_id)
        return person, method

    async def card(self, person: Person, card: str = VISA) -> str:
        made = await self.stripe.post(f"/v1/payment_methods/{card}/attach", customer=person.customer_id)
        return str(made["id"])

    async def add(
        self,
        who: Who,
        items: Sequence[Mapping[str, Any]],
        *,
        to: str = "me",
        key: str | None = None,
        **more: Any,
    ) -> httpx.Response:
        """addSubscription."""
        headers = {} if key is None else {"Idempotency_Key": key}
        path = f"/v1/customers/{to}/subscriptions"
        return await self.service.send("POST", path, who, {"items": list(items), **more}, **headers)

    async def bought(self, who: Who, items: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
        """The subscription that addSubscription answers with, once it is made; a second one of a price is meant."""
        answer = await self.add(who, items, **{"allow_duplicate": True, **more})
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()["subscription"]
        return found

    async def unpaid(self, who: Who, items: Sequence[Mapping[str, Any]], **more: Any) -> Unpaid:
        """Buy what the page is to pay for; addSubscription answers with an operation that waits."""
        document = ok(await self.add(who, items, **more), 202)
        [result] = document["results"]
        made = await self.subscription(who, result["subscription_id"])
        return Unpaid(document["operation_id"], document["payment"], made)

    async def change(
        self, who: Who, subscription_id: str, *, key: str | None = None, match: str | None = None, **body: Any
    ) -> httpx.Response:
        """updateSubscription."""
        headers = {} if key is None else {"Idempotency_Key": key}
        headers |= {} if match is None else {"If_Match": match}
        return await self.service.send("PATCH", f"{ENDPOINT_PATH}/{subscription_id}", who, body, **headers)

    async def preview(self, who: Who, subscription_id: str, **body: Any) -> dict[str, Any]:
        answer = await self.service.send("POST", f"{ENDPOINT_PATH}/{subscription_id}/preview", who, body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def upcoming(self, who: Who, subscription_id: str) -> dict[str, Any]:
        answer = await self.service.get(
            "/v1/customers/me/upcoming-invoice", who, subscription_id=subscription_id
        )
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()["invoice"]
        return found

    async def invoices(self, who: Who, subscription_id: str) -> list[dict[str, Any]]:
        """What getCustomerInvoices answers once the cache has heard of everything; newest first."""
        await self.listen()
        answer = await self.service.get("/v1/customers/me/invoices", who, subscription_id=subscription_id)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["data"]
        return found

    async def subscription(self, who: Who, subscription_id: str) -> dict[str, Any]:
        answer = await self.service.get(f"{ENDPOINT_PATH}/{subscription_id}", who)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()["subscription"]
        return found

    async def true(self, subscription_id: str) -> dict[str, Any]:
        """The subscription as the stand-in has it."""
        return dict(await self.stripe.get(f"{ENDPOINT_PATH}/{subscription_id}"))

    async def all_of(self, person: Person) -> list[dict[str, Any]]:
        """Every subscription of a customer in the stand-in, ended ones too."""
        found = await self.stripe.get(ENDPOINT_PATH, customer=person.customer_id, status="all", limit=100)
        return list(found["data"])

    async def listen(self) -> None:
        """Delivers what the stand-in has told since the last time, in order, and lands what that left to be fetched."""
        while True:
            after = {} if self._heard is None else {"ending_before": self._heard}
            page = (await self.stripe.get("/v1/events", limit=100, **after))["data"]
            if self._heard is None:
                page = await self._from_the_first(page)
            for event in reversed(page):
                answer = await self.service.deliver(event)
                assert answer.status_code == httpx.codes.OK, answer.text
                self._heard = event["id"]
            if not page:
                break
        for row in await self.service.fetch("select id, kind from refreshes where notifications > 0"):
            await self.service.refresh(row["kind"], row["id"])

    async def _from_the_first(self, page: list[Any]) -> list[Any]:
        found = list(page)
        while page:
            page = (await self.stripe.get("/v1/events", limit=100, starting_after=found[-1]["id"]))["data"]
            found += page
        return found

    async def cache_is_true(self) -> None:
        await self.listen()
        found = await differences(self.stripe, self.service.database_url)
        assert found == [], found

    async def asked(self, method: str, path: str) -> int:
        """How often the service has sent such a request to the stand-in."""
        found = await self.stripe.requests(method=method, path=path)
        return len([entry for entry in found if entry["actor"] != "dashboard"])


def at(instant: str) -> int:
    """Unix seconds of an instant in an answer."""
    return int(datetime.fromisoformat(instant).timestamp())


async def settled_by_a_worker(shop: Shop, answer: httpx.Response) -> dict[str, Any]:
    """The operation of a 202 once a worker has finished it, after its runner gave up."""
    operation_id = answer.json()["operation_id"]
    assert answer.headers["location"] == f"/v1/operations/{operation_id}"
    await handed_over(shop, operation_id)
    return dict((await worked_on(shop, operation_id)).json())


async def handed_over(shop: Shop, operation_id: str) -> None:
    """Its runner has given up, so that the lease is short, or has settled it after its request was answered."""
    short = """select 1 from operations
        where id = $1 and (settled_at is not null or lease_until < clock_timestamp() + interval '1.1 seconds')"""
    for _ in range(300):
        if await shop.service.fetch(short, operation_id):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the runner holds the operation for fifteen seconds")


async def worked_on(shop: Shop, operation_id: str) -> httpx.Response:
    """The operation after one try of a worker, whoever holds it."""
    await shop.service.fetch(
        "update operations set lease_until = now() - interval '1 second' where id = $1 and settled_at is null",
        operation_id,
    )
    with suppress(StripeOutcomeUnknown):
        await shop.service.work_off()
    return await shop.service.get(f"/v1/operations/{operation_id}", as_service("read"))
