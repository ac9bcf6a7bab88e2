"""Read Stripe's objects as snapshots, and describe the writes of customers.

Every method raises what `StripeClient` raises for a read, and MalformedObject if an object lacks a field that its type
promises. `app.stripe.billing` has the calls for subscriptions and payments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from app.domain import metadata as keys
from app.domain.ids import CustomerId, SubscriptionId
from app.domain.snapshots import Invoice, Snapshot
from app.errors import NotFound
from app.stripe import parsing
from app.stripe.budget import Work
from app.stripe.client import Answer, StripeClient, Write
from app.stripe.pages import Page, read_page, tiers_not_shown

PAGE_SIZE = 100

_PATHS = {
    "product": "/v1/products",
    "price": "/v1/prices",
    "customer": "/v1/customers",
    "subscription": "/v1/subscriptions",
    "payment_method": "/v1/payment_methods",
    "invoice": "/v1/invoices",
}
DISCOUNT_EXPANDS = ("discounts.promotion_code", "discounts.source.coupon")
_EXPAND = {"price": ("tiers", "currency_options"), "subscription": DISCOUNT_EXPANDS}
# Stripe expands at most four levels, and `data` is one of them. https://docs.stripe.com/api/expanding_objects
_EXPAND_PAGE = {
    "price": ("data.tiers", "data.currency_options"),
    "subscription": ("data.discounts.promotion_code", "data.discounts.source.coupon"),
}
_LIST_FILTERS: dict[str, dict[str, str]] = {"subscription": {"status": "all"}}


@dataclass(frozen=True, slots=True)
class Fetched:
    """An object as Stripe answered it, None for a 404. `at` is the Unix second of the first answer.

    `stale` is True for a replayed or incomplete answer, which is not applied; the object is fetched again instead.
    """

    snapshot: Snapshot | None
    at: int
    stale: bool = False

    @property
    def fetched(self) -> Fetched:
        """The answer to a write of which nothing but the object is of interest."""
        return self


@dataclass(frozen=True, slots=True)
class Account:
    """The account of the API key. `created` is None if Stripe does not return it; `at` is the second of the answer."""

    id: str
    livemode: bool
    created: int | None
    at: int


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """A webhook endpoint. Without `api_version` events have the account's default version. `*` means all events."""

    id: str
    url: str
    enabled: bool
    api_version: str | None
    events: frozenset[str]


class StripeGateway:
    """The reads of one client as snapshots, and its writes of customers."""

    def __init__(self, client: StripeClient, *, livemode: bool) -> None:
        self._client = client
        self.livemode = livemode

    def doing(self, work: Work) -> StripeGateway:
        """Return the same gateway with calls that count as `work` in the rate budget."""
        return StripeGateway(self._client.doing(work), livemode=self.livemode)

    async def account(self) -> Account:
        """Return the account of the API key."""
        answer = await self._client.get("/v1/account")
        created = answer.data.get("created")
        return Account(
            id=str(answer.data["id"]),
            livemode=self.livemode,
            created=created if isinstance(created, int) else None,
            at=answer.at,
        )

    async def webhook_endpoints(self) -> list[WebhookEndpoint]:
        """Return all webhook endpoints of the account."""
        sources = await self._all("/v1/webhook_endpoints", {})
        return [
            WebhookEndpoint(
                id=str(source["id"]),
                url=str(source["url"]),
                enabled=source.get("status") == "enabled",
                api_version=source.get("api_version"),
                events=frozenset(map(str, source.get("enabled_events") or ())),
            )
            for source in sources
        ]

    async def fetch(self, kind: str, object_id: str) -> Fetched:
        """Return the object as it is now, with complete lists; without a snapshot if Stripe answers 404."""
        path, expand = f"{_PATHS[kind]}/{quote(object_id, safe='')}", list(_EXPAND.get(kind, ()))
        try:
            answer = await self._client.get(path, {"expand": expand} if expand else None)
            if unshown := tiers_not_shown(answer.data):
                tiers = [f"currency_options.{currency}.tiers" for currency in unshown]
                answer = await self._client.get(path, {"expand": [*expand, *tiers]})
        except NotFound as absent:
            return Fetched(None, absent.at)
        parsing.check_kind(kind, answer.data)
        # Stripe answers a test payment method, such as pm_card_visa, with a new one.
        if answer.data["id"] != object_id and kind != "payment_method":
            raise parsing.MalformedObject("id is not the one that was asked for")
        return await self._whole(answer.data, answer.at)

    async def _whole(self, data: Mapping[str, Any], at: int) -> Fetched:
        kind = str(data["object"])
        if kind == "subscription":
            data = await self._with_currency_options(data)
        if kind == "subscription" and not parsing.is_complete(data):
            items = await self._all("/v1/subscription_items", {"subscription": data["id"]})
            return Fetched(parsing.snapshot(kind, data, items), at)
        if kind == "invoice" and not parsing.is_complete(data):
            lines = await self._all(f"{_PATHS[kind]}/{data['id']}/lines", {})
            return Fetched(parsing.snapshot(kind, data, lines), at)
        return Fetched(parsing.snapshot(kind, data), at)

    async def _with_currency_options(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Add the currency options of coupons with an amount in another currency, which Stripe does not embed."""
        found: dict[str, Mapping[str, Any]] = {}
        for coupon_id in parsing.foreign_coupons(data):
            try:
                answer = await self._client.get(
                    f"/v1/coupons/{quote(coupon_id, safe='')}", {"expand": ["currency_options"]}
                )
                found[coupon_id] = answer.data.get("currency_options") or {}
            except NotFound:
                found[coupon_id] = {}
        return parsing.with_currency_options(data, found) if found else data

    async def _all(self, path: str, params: dict[str, Any]) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        query = {**params, "limit": PAGE_SIZE}
        while True:
            answer = await self._client.get(path, query)
            found.extend(answer.data["data"])
            if not answer.data["has_more"]:
                return found
            query["starting_after"] = found[-1]["id"]

    async def page(
        self, kind: str, *, created_from: int = 0, created_to: int | None = None, starting_after: str | None
    ) -> Page:
        """Return a page of a kind's objects, newest first, ended subscriptions included.

        The objects were created between Unix seconds `created_from` and `created_to`, both inclusive. Raises NotFound
        if the object `starting_after` does not exist any more. Only a page that is no list raises MalformedObject.
        """
        params: dict[str, Any] = {"limit": PAGE_SIZE, **_LIST_FILTERS.get(kind, {})}
        if kind in _EXPAND_PAGE:
            params["expand"] = list(_EXPAND_PAGE[kind])
        created = {"gte": created_from or None, "lte": created_to}
        if bounds := {name: second for name, second in created.items() if second is not None}:
            params["created"] = bounds
        if starting_after is not None:
            params["starting_after"] = starting_after
        answer = await self._client.get(_PATHS[kind], params)
        return read_page(kind, answer.data, answer.at)

    @property
    def clock_skew(self) -> float | None:
        """Return the seconds by which this machine's clock is ahead of Stripe's, None before the first answer."""
        return self._client.clock.skew

    async def events(self, *, since: int, until: int, pages: int) -> tuple[list[Mapping[str, Any]], bool]:
        """Return the newest events between two Unix seconds, both inclusive, and whether these are all.

        At most `pages` pages of 100 are read. Stripe lists events for 30 days.
        """
        query: dict[str, Any] = {"created": {"gte": since, "lte": until}, "limit": PAGE_SIZE}
        found: list[Mapping[str, Any]] = []
        for _ in range(pages):
            page = (await self._client.get("/v1/events", query)).data
            found += page["data"]
            if not page["has_more"]:
                return found, True
            query["starting_after"] = page["data"][-1]["id"]
        return found, False

    async def changed_by(
        self, key_prefix: str, event_types: str, *, since: int
    ) -> list[tuple[str, Mapping[str, str]]]:
        """Return the objects changed by requests whose idempotency key begins with `key_prefix`, with their metadata.

        The source is Stripe's event log, which shows a change even if it was undone later. The events of one request
        are created together, so the search ends at the newest page that has any. `event_types` is one type, or a group
        such as `customer.subscription.*`. `since` is a Unix second, at most 30 days ago. See
        docs/decisions/0034-read-stripes-events-after-a-stored-error.md.
        """
        query: dict[str, Any] = {"type": event_types, "created": {"gte": since}, "limit": PAGE_SIZE}
        while True:
            page = (await self._client.get("/v1/events", query)).data
            found: list[tuple[str, Mapping[str, str]]] = []
            for event in page["data"]:
                key = (event.get("request") or {}).get("idempotency_key") or ""
                if key.startswith(key_prefix):
                    left = event["data"]["object"]
                    found.append((str(left["id"]), left.get("metadata") or {}))
            if found or not page["has_more"]:
                return found
            query["starting_after"] = page["data"][-1]["id"]

    async def held_invoice(
        self, subscription_id: SubscriptionId, key_prefix: str, *, since: int
    ) -> str | None:
        """Return the invoice for which Stripe held back a change, as the event of its request says.

        None if no request whose idempotency key begins with `key_prefix` left a pending update. `since` is a Unix
        second, at most 30 days ago.
        """
        query: dict[str, Any] = {
            "type": "customer.subscription.updated",
            "created": {"gte": since},
            "limit": PAGE_SIZE,
        }
        while True:
            page = (await self._client.get("/v1/events", query)).data
            for event in page["data"]:
                key = (event.get("request") or {}).get("idempotency_key") or ""
                left = event["data"]["object"]
                if (
                    key.startswith(key_prefix)
                    and left["id"] == subscription_id
                    and left.get("pending_update")
                ):
                    return str(left["latest_invoice"])
            if not page["has_more"]:
                return None
            query["starting_after"] = page["data"][-1]["id"]

    async def update_was_applied(
        self, subscription_id: SubscriptionId, invoice_id: str, *, since: int
    ) -> bool:
        """Return True if Stripe's events show that the change that waited for this invoice took effect.

        `since` is a Unix second, at most 30 days ago.
        """
        query: dict[str, Any] = {
            "type": "customer.subscription.pending_update_applied",
            "created": {"gte": since},
            "limit": PAGE_SIZE,
        }
        while True:
            page = (await self._client.get("/v1/events", query)).data
            for event in page["data"]:
                shown = event["data"]["object"]
                if (shown["id"], shown["latest_invoice"]) == (subscription_id, invoice_id):
                    return True
            if not page["has_more"]:
                return False
            query["starting_after"] = page["data"][-1]["id"]

    async def invoices_of(
        self, subscription_id: SubscriptionId, *, status: str, created_from: int = 0
    ) -> list[Invoice]:
        """Return a subscription's invoices of one status, created since a Unix second, with all their lines."""
        query: dict[str, Any] = {"subscription": subscription_id, "status": status}
        if created_from:
            query["created"] = {"gte": created_from}
        found = [await self._whole(source, 0) for source in await self._all(_PATHS["invoice"], query)]
        return [one.snapshot for one in found if isinstance(one.snapshot, Invoice)]

    async def payment_methods(self, customer_id: CustomerId) -> Page:
        """Return all payment methods of a customer as one page, with the Unix second of the first answer."""
        first = await self._client.get(f"{customer_path(customer_id)}/payment_methods", {"limit": PAGE_SIZE})
        sources = list(first.data["data"])
        if first.data["has_more"]:
            sources = await self._all(f"{customer_path(customer_id)}/payment_methods", {})
        return read_page("payment_method", {"data": sources}, first.at)

    def customer_creation(
        self, *, email: str | None, name: str | None, metadata: Mapping[str, str]
    ) -> Write[Fetched]:
        """Return the write that creates a customer."""
        params: dict[str, Any] = {"metadata": dict(metadata)}
        if email is not None:
            params["email"] = email
        if name is not None:
            params["name"] = name
        return Write(self._client, "post", _PATHS["customer"], params, read=_customer)

    async def customers_with_email(self, email: str) -> list[Fetched]:
        """Return the customers with exactly this e-mail. The list is up to date; Stripe's search may lag behind."""
        answer = await self._client.get(_PATHS["customer"], {"email": email, "limit": PAGE_SIZE})
        return [Fetched(parsing.customer(source), answer.at) for source in answer.data["data"]]

    async def is_unused(self, customer_id: CustomerId) -> bool:
        """Return True if nobody has used the customer for anything but a seat.

        It has no subscription of any status, payment method, invoice or invoice item, balance, tax id, and no metadata
        of others.
        """
        path = customer_path(customer_id)
        data = (await self._client.get(path)).data
        metadata = data.get("metadata") or {}
        has_others = not all(keys.is_seat_key(key) for key in metadata)
        settings = data.get("invoice_settings") or {}
        if has_others or settings.get("default_payment_method"):
            return False
        if any(data.get(name) not in _NOTHING for name in _USES):
            return False
        lists: list[tuple[str, dict[str, Any]]] = [
            (_PATHS["subscription"], {"customer": customer_id, "status": "all"}),
            (_PATHS["invoice"], {"customer": customer_id}),
            ("/v1/invoiceitems", {"customer": customer_id}),
            (f"{path}/payment_methods", {}),
            (f"{path}/tax_ids", {}),
        ]
        for listed, query in lists:
            if (await self._client.get(listed, {**query, "limit": 1})).data["data"]:
                return False
        return True

    async def delete_customer(self, customer_id: CustomerId) -> Fetched:
        """Delete a customer. Stripe keeps no idempotency keys of deletions: another one finds it deleted."""
        path = customer_path(customer_id)
        write = Write(self._client, "delete", path, {}, read=_customer, absent=lambda at: Fetched(None, at))
        return await write.now(f"delete/{uuid4()}")

    def metadata_change(self, customer_id: CustomerId, values: Mapping[str, str]) -> Write[Fetched]:
        """Return the write that changes a customer's metadata. Other keys do not change; a value of "" removes its key.

        Its result has no snapshot if the customer does not exist any more.
        """
        path = customer_path(customer_id)
        params = {"metadata": dict(values)}
        return Write(self._client, "post", path, params, read=_customer, absent=lambda at: Fetched(None, at))


_NOTHING: tuple[object, ...] = (None, "", 0, False, [], {}, "none")
_USES = ("balance", "default_source", "delinquent", "discount", "address", "shipping", "phone", "test_clock")


def customer_path(customer_id: CustomerId) -> str:
    """Return the path of a customer. An id from before 2018 may hold any character."""
    return f"{_PATHS['customer']}/{quote(customer_id, safe='')}"


def _customer(answer: Answer) -> Fetched:
    return Fetched(parsing.customer(answer.data), answer.at, stale=answer.replayed)
