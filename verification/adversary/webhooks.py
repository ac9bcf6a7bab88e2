"""Deliveries that nobody signed, and signed ones that say nothing: what each may leave, and that none does more.

`python -m verification.adversary.webhooks` sends all of them to a real server. What is not signed, or is no event, is
answered with 4xx and leaves no row. A signed event is always claimed, so that its repetition is known: one row of the
inbox, and nothing else (`ignored`), or beside it one noted refresh of the object that it names (`noted`), because
only Stripe can say what that object is. The cached objects themselves stay as they are, also once what was noted is
fetched.
"""

import argparse
import asyncio
import gzip
import json
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from app.mirror.first_fill import check_account
from app.mirror.store.rows import MIRRORS
from app.stripe.webhooks import MAXIMUM_BODY_BYTES
from testkit.company import Company, event_of, running_service
from testkit.service import api_process
from testkit.simulator import Simulator, new_account_key
from testkit.truth import cached_rows
from tests.stripe.test_webhooks import FORGED, NEW, OLD, UNREADABLE, header
from verification.adversary.raw import Header, RawAnswer, exchange, row_counts
from verification.adversary.running import finish, parts, tell
from verification.adversary.world import environment_of

Kind = Literal["refused", "ignored", "noted"]
PATH = "/webhooks/stripe"
JSON: Header = ("Content-Type", b"application/json")


@dataclass(frozen=True)
class Delivery:
    name: str
    body: bytes
    headers: list[Header]
    wanted: Kind = "refused"
    method: str = "POST"
    path: str = PATH


@dataclass
class Seen:
    deliveries: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)
    answers: Counter[int] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    misses: list[str] = field(default_factory=list)


def signature(value: str) -> Header:
    return "Stripe-Signature", value.encode("utf-8", "surrogatepass")


def genuine(body: bytes) -> list[Header]:
    return [JSON, signature(header(body, at=int(time.time())))]


def unsigned(company: Company, states: Mapping[str, Any]) -> list[Delivery]:
    """Events that would do harm, about objects that are there, under every way of not being signed."""
    found = [
        Delivery(f"forged {number}", body, [JSON, *([] if given is None else [signature(given)])])
        for number, (body, given) in enumerate(FORGED)
    ]
    for event_type, state in states.items():
        body = json.dumps(event_of(event_type, state)).encode()
        now = int(time.time())
        good = header(body, at=now).rpartition("v1=")[2]
        for name, headers in {
            "no signature": [],
            "another's secret": [signature(header(body, secret="whsec_somebody_elses", at=now))],
            "an empty secret": [signature(header(body, secret="", at=now))],
            "a signature of another body": [signature(header(body + b" ", at=now))],
            "yesterday's signature": [signature(header(body, at=now - 86_400))],
            "tomorrow's signature": [signature(header(body, at=now + 86_400))],
            "the test scheme": [signature(f"t={now},v0={good}")],
            "another instant": [signature(f"t={now + 1},v1={good}")],
            "two instants": [signature(f"t={now},t={now + 90_000},v1={good}")],
            "one bit": [signature(f"t={now},v1={'0' if good[0] != '0' else '1'}{good[1:]}")],
        }.items():
            found.append(Delivery(f"{event_type} with {name}", body, [JSON, *headers]))
    return found


def unreadable() -> list[Delivery]:
    return [Delivery(f"nonsense {number}", body, genuine(body)) for number, body in enumerate(UNREADABLE)]


def misdirected(states: Mapping[str, Any]) -> list[Delivery]:
    """Signed, but not what the endpoint takes: too long, packed, or sent elsewhere."""
    body = json.dumps(event_of("customer.deleted", states["customer.deleted"])).encode()
    long = body[:-1] + b', "padding": "' + b"x" * MAXIMUM_BODY_BYTES + b'"}'
    packed = gzip.compress(body)
    return [
        Delivery("longer than the limit", long, genuine(long)),
        Delivery("packed", packed, [*genuine(packed), ("Content-Encoding", b"gzip")]),
        Delivery("packed, but signed as it was", packed, [*genuine(body), ("Content-Encoding", b"gzip")]),
        *(
            Delivery(f"by {method}", body, genuine(body), method=method)
            for method in ("PUT", "PATCH", "DELETE")
        ),
        *(
            Delivery(f"to {path}", body, genuine(body), path=path)
            for path in (
                "/webhooks/stripe/",
                "/webhooks/",
                "/webhooks",
                "/webhooks/stripe2",
                "/v1/webhooks/stripe",
            )
        ),
        Delivery("a form", body, [("Content-Type", b"application/x-www-form-urlencoded")]),
    ]


def empty(company: Company, states: Mapping[str, Any]) -> list[Delivery]:
    """Signed events that are nobody's, or whose object cannot be read, about objects that are there."""
    customer = dict(states["customer.deleted"])
    plan = dict(states["customer.subscription.deleted"])
    ignored: dict[str, dict[str, Any]] = {
        "of the other mode": {**event_of("customer.deleted", customer), "livemode": True},
        "of a connected account": {**event_of("customer.deleted", customer), "account": "acct_other"},
        "of a sibling in the organisation": {
            **event_of("customer.deleted", customer),
            "context": "acct_other",
        },
        "of an account without a name": {**event_of("customer.deleted", customer), "context": {"id": 1}},
        "of a plan in the other mode": {**event_of("customer.subscription.deleted", plan), "livemode": True},
    }
    for name in (
        "*",
        "x",
        "customer",
        "charge.succeeded",
        "v1.billing.meter.error",
        "balance.available",
        "é",
        "'--",
    ):
        ignored[f"of the type {name}"] = event_of(name, customer)
    for event_type in (
        "customer.deleted",
        "customer.subscription.deleted",
        "product.deleted",
        "price.deleted",
    ):
        for given in (
            {},
            {"object": None},
            {"object": "token"},
            {"object": ["customer"]},
            {"object": "Customer"},
        ):
            ignored[f"{event_type} about {given}"] = event_of(event_type, {"id": customer["id"], **given})
    kinds = {"customer.deleted": "customer", "customer.subscription.deleted": "subscription"}
    for event_type, kind in kinds.items():
        for odd in (None, "", 5, True, [customer["id"]], {"id": 1}, "x" * 300, "a\x00b", "cus_\n"):
            ignored[f"{event_type} of the id {odd!r}"] = event_of(event_type, {"object": kind, "id": odd})
    noted: dict[str, dict[str, Any]] = {}
    versions: dict[str, dict[str, Any]] = {
        "another version": {"api_version": "2019-01-01"},
        "no version": {"api_version": None},
        "a version that is no text": {"api_version": 20261028},
    }
    for name, members in versions.items():
        noted[f"a customer in {name}"] = {
            **event_of("customer.updated", {**customer, "name": "Mallory", "metadata": {}}),
            **members,
        }
        noted[f"a plan in {name}"] = {
            **event_of("customer.subscription.updated", {**plan, "status": "canceled"}),
            **members,
        }
    customers: dict[str, dict[str, Any]] = {
        "metadata in a list": {"metadata": ["billing_shared_subscription_role"]},
        "metadata in a text": {"metadata": "manager"},
        "a creation in words": {"created": "now"},
        "no creation": {"created": None},
        "a balance in words": {"balance": "1"},
    }
    for name, fields in customers.items():
        noted[f"a customer with {name}"] = event_of("customer.updated", {**customer, **fields})
    plans: dict[str, dict[str, Any]] = {
        "items in a text": {"items": "all"},
        "no items": {"items": None},
        "items without prices": {
            "items": {**plan["items"], "data": [{"id": "si_1", "object": "subscription_item"}]}
        },
        "items cut short": {"items": {**plan["items"], "has_more": True}},
        "a quantity in words": {"items": _quantity(plan, "9999")},
        "a quantity in parts": {"items": _quantity(plan, 1.5)},
        "a status that is none": {"status": ["active"]},
        "a customer that is none": {"customer": 5},
    }
    for name, fields in plans.items():
        noted[f"a plan with {name}"] = event_of("customer.subscription.updated", {**plan, **fields})
    made = [(name, event, "ignored") for name, event in ignored.items()]
    made += [(name, event, "noted") for name, event in noted.items()]
    found = []
    for name, event, wanted in made:
        body = json.dumps(event).encode()
        found.append(Delivery(f"signed: {name}", body, genuine(body), wanted))  # type: ignore[arg-type]
    thin = json.dumps({"id": f"evt_{secrets.token_hex(8)}", "object": "v2.core.event", "type": "x"}).encode()
    return [*found, Delivery("signed: thin", thin, genuine(thin), "ignored")]


def _quantity(plan: Mapping[str, Any], quantity: object) -> dict[str, Any]:
    item = {**plan["items"]["data"][0], "quantity": quantity}
    return {**plan["items"], "data": [item]}


async def harmful(company: Company) -> dict[str, Any]:
    """What the cache would lose if it believed these."""
    stripe = company.service.stripe
    owner = await stripe.get(f"/v1/customers/{company.owner.customer_id}")
    manager = await stripe.get(f"/v1/customers/{company.manager.customer_id}")
    plan = await company.state()
    promoted = {**manager, "metadata": {**manager["metadata"], "billing_shared_subscription_role": "manager"}}
    return {
        "customer.deleted": owner,
        "customer.updated": {**promoted, "email": "mallory@example.com"},
        "customer.subscription.deleted": {**plan, "status": "canceled"},
        "customer.subscription.updated": {**plan, "items": _quantity(plan, 999_999)},
        "product.updated": {**await stripe.get(f"/v1/products/{company.product_id}"), "metadata": {}},
        "price.updated": {**await stripe.get(f"/v1/prices/{company.price_id}"), "unit_amount": 0},
        "invoice.paid": {**await stripe.get(f"/v1/invoices/{company.invoice_id}"), "amount_paid": 0},
    }


async def _deliver(base_url: str, delivery: Delivery) -> RawAnswer:
    return await exchange(base_url, delivery.method, delivery.path, delivery.headers, delivery.body)


def _judge(seen: Seen, delivery: Delivery, answer: RawAnswer, grown: Mapping[str, int]) -> None:
    seen.deliveries += 1
    seen.by_kind[delivery.wanted] += 1
    seen.answers[answer.status] += 1
    seen.left.update(grown)
    thin = delivery.name == "signed: thin"
    wanted: dict[Kind, dict[str, int]] = {
        "refused": {},
        "ignored": {} if thin else {"webhook_events": 1},
        "noted": {"webhook_events": 1, "refreshes": 1},
    }
    ok = 400 <= answer.status < 500 if delivery.wanted == "refused" else answer.status == 200
    if not ok:
        seen.misses.append(f"{delivery.name}: {answer.status} {answer.body[:200]!r}")
    # Another note of an object that is noted already is no row.
    allowed = (
        [wanted[delivery.wanted], {"webhook_events": 1}]
        if delivery.wanted == "noted"
        else [wanted[delivery.wanted]]
    )
    if dict(grown) not in allowed:
        seen.misses.append(f"{delivery.name}: left {dict(grown)}, not {wanted[delivery.wanted]}")


async def _cached(database_url: str) -> dict[str, Any]:
    return {kind: await cached_rows(database_url, kind) for kind in MIRRORS}


def _told(rows: Mapping[str, Any]) -> dict[str, Any]:
    """What the rows say of their objects, without what the sync itself keeps there."""
    ours = {"serial", "marker", "synced_at"}
    return {
        kind: {key: {n: v for n, v in row.items() if n not in ours} for key, row in of_kind.items()}
        for kind, of_kind in rows.items()
    }


async def run(stripe_base: str, database_url: str, *, every: int = 1) -> Seen:
    """Sends each delivery, or one of `every` so many, and counts the rows of every table around it."""
    seen = Seen()
    async with Simulator(stripe_base, new_account_key()) as stripe:
        environment = environment_of(stripe, database_url, STRIPE_WEBHOOK_SECRETS=f"{OLD},{NEW}")
        async with running_service(stripe, database_url) as service:
            company = await service.company()
            states = await harmful(company)
            corpus = [
                *unsigned(company, states),
                *unreadable(),
                *misdirected(states),
                *empty(company, states),
            ]
            await service.refresh("customer", company.owner.customer_id)
            await check_account(service.context)
            tell(f"{len(corpus[::every])} deliveries")
            cached = _told(await _cached(database_url))
            with api_process(environment) as (base_url, _):
                before = await row_counts(database_url)
                for delivery in corpus[::every]:
                    answer = await _deliver(base_url, delivery)
                    after = await row_counts(database_url)
                    grown = {
                        name: after[name] - before[name] for name in after if after[name] != before[name]
                    }
                    _judge(seen, delivery, answer, grown)
                    before = after
            if _told(await _cached(database_url)) != cached:
                seen.misses.append("a delivery has changed a cached object")
            for row in await service.fetch("select id, kind from refreshes where notifications > 0"):
                await service.refresh(row["kind"], row["id"])
            if _told(await _cached(database_url)) != cached:
                seen.misses.append("a fetch that a delivery caused has changed a cached object")
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0] if __doc__ else None)
    parser.add_argument("--every", type=int, default=1, help="send one delivery of every so many")
    given = parser.parse_args()
    with parts() as (stripe_base, database_url):
        seen = asyncio.run(run(stripe_base, database_url, every=given.every))
    report = {
        "check": "webhooks",
        "deliveries": seen.deliveries,
        "wanted": dict(seen.by_kind),
        "answers": {str(status): number for status, number in sorted(seen.answers.items())},
        "rows_left": dict(seen.left),
        "server_errors": sum(number for status, number in seen.answers.items() if status >= 500),
    }
    finish(report, seen.misses)


if __name__ == "__main__":
    main()
