"""Deliveries that Stripe may send and that must not be taken for what they resemble."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.stripe.webhooks import MAXIMUM_BODY_BYTES
from testkit.company import Service, event_of, running_service, signed
from testkit.plans import new_customer
from testkit.simulator import Simulator, new_account_key


@pytest.fixture(scope="module")
async def service(stripe_simulator: str, live_database_url: str) -> AsyncIterator[Service]:
    async with (
        Simulator(stripe_simulator, new_account_key()) as stripe,
        running_service(stripe, live_database_url) as running,
    ):
        yield running


async def outcome(service: Service, event: dict[str, Any]) -> str:
    """Deliver an event, and return the outcome that the inbox recorded."""
    response = await service.deliver(event)
    assert response.status_code == httpx.codes.OK, response.text
    [row] = await service.fetch("select outcome from webhook_events where id = $1", event["id"])
    return str(row["outcome"])


async def counted(service: Service, name: str) -> float:
    text = (await service.client.get("/metrics")).text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return float(lines.get(f'coseat_webhook_events_total{{outcome="{name}"}}', 0))


def renamed(customer: str, **member: Any) -> dict[str, Any]:
    state = {"id": customer, "object": "customer", "name": "Mallory", "created": 1_700_000_000}
    return {**event_of("customer.updated", state, created=int(time.time()) + 60), **member}


SIBLINGS: list[dict[str, Any]] = [
    {"context": "acct_sibling"},
    {"context": "org_1/acct_sibling"},
    {"account": "acct_sibling"},
    {"context": ["acct_sibling"]},
    {"account": {"id": "acct_sibling"}},
    {"context": ""},
]


@pytest.mark.parametrize("member", SIBLINGS, ids=str)
async def test_event_changes_nothing_when_it_is_of_another_account(
    service: Service, member: dict[str, Any]
) -> None:
    """C2: an event of a sibling in the organisation was applied, and made a stranger a manager."""
    customer = (await service.stripe.post("/v1/customers", name="Ada"))["id"]
    await service.refresh("customer", customer)
    before = await counted(service, "foreign")
    assert await outcome(service, renamed(customer, **member)) == "foreign: other account"
    [row] = await service.fetch(
        "select name, (select notifications from refreshes r where r.id = c.id) as pending from customers c "
        "where id = $1",
        customer,
    )
    assert tuple(row) == ("Ada", 0)
    assert await counted(service, "foreign") == before + 1


async def test_event_is_applied_when_an_organisation_sends_it_for_our_account(service: Service) -> None:
    """C2: the endpoint of an organisation names the account of each event, ours too."""
    own = (await service.stripe.get("/v1/account"))["id"]
    for context in (own, f"org_1/{own}"):
        assert await outcome(service, renamed(f"cus_{context[:3]}", context=context)) == "applied"
    assert (
        await outcome(service, renamed("cus_both", context=own, account="acct_x")) == "foreign: other account"
    )


async def test_event_is_foreign_when_it_is_of_the_other_mode(service: Service) -> None:
    """C2, W11: 200 with no effect, counted as foreign."""
    before = await counted(service, "foreign")
    assert await outcome(service, renamed("cus_live", livemode=True)) == "foreign: other mode"
    assert await counted(service, "foreign") == before + 1


async def test_former_customer_is_fetched_when_its_default_is_detached(service: Service) -> None:
    """C7: the event of the detached payment method names its customer only in `previous_attributes`."""
    customer = await new_customer(service.stripe)
    default = (await service.stripe.get(f"/v1/customers/{customer}"))["invoice_settings"]
    method = default["default_payment_method"]
    await service.refresh("customer", customer)
    await service.refresh("payment_method", method)
    detached = await service.stripe.post(f"/v1/payment_methods/{method}/detach")
    event = event_of("payment_method.detached", detached)
    event["data"]["previous_attributes"] = {"customer": customer}
    assert (await outcome(service, event)).startswith("noted")
    rows = await service.fetch(
        "select id from refreshes where notifications > 0 and id = any($1)", [customer, method]
    )
    assert {row["id"] for row in rows} == {customer, method}
    await service.refresh("customer", customer)
    [row] = await service.fetch("select default_payment_method_id from customers where id = $1", customer)
    assert row["default_payment_method_id"] is None


@pytest.mark.parametrize("kibibytes", [280, 1023])
async def test_event_is_applied_when_it_is_up_to_a_mebibyte(service: Service, kibibytes: int) -> None:
    """C9: Stripe was answered 413 for three days."""
    event = renamed(f"cus_large_{kibibytes}")
    event["data"]["object"]["description"] = "x" * (kibibytes * 1024)
    assert await outcome(service, event) == "applied"


async def test_event_is_refused_when_it_is_larger_than_a_mebibyte(service: Service) -> None:
    """C9: the limit is 1 MiB; a body of the API has 64 KiB."""
    body = json.dumps({**renamed("cus_huge"), "padding": "x" * MAXIMUM_BODY_BYTES}).encode()
    refused = await service.client.post("/webhooks/stripe", content=body, headers=signed(body))
    assert (refused.status_code, refused.json()["code"]) == (413, "payload_too_large")
    refused = await service.send("POST", "/v1/customers", None, {"name": "x" * 66_000})
    assert refused.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE


async def test_preview_of_an_invoice_is_not_stored_when_it_has_an_id(service: Service) -> None:
    """C10: `invoice.upcoming` was stored as an invoice."""
    preview = {
        "id": "in_upcoming1",
        "object": "invoice",
        "total": 500,
        "lines": {"data": [], "has_more": False},
    }
    assert await outcome(service, event_of("invoice.upcoming", preview)) == "ignored: not kept"
    preview["id"] = "upcoming_in_1"
    assert await outcome(service, event_of("invoice.created", preview)) == "ignored: not its id"
    rows = await service.fetch(
        "select id from invoices where id = any($1)", ["in_upcoming1", "upcoming_in_1"]
    )
    assert rows == []


@pytest.mark.parametrize(
    ("event_type", "kind", "object_id"),
    [
        ("customer.updated", "customer", "sub_other"),
        ("customer.deleted", "customer", "in_other"),
        ("customer.subscription.updated", "subscription", "cus_other"),
        ("customer.subscription.deleted", "subscription", "si_other"),
        ("invoice.paid", "invoice", "sub_other2"),
        ("payment_method.attached", "payment_method", "cus_other2"),
        ("product.updated", "product", "cus_ABCDEFGHIJKLMN"),
        ("price.updated", "price", "prod_ABCDEFGHIJKLMN"),
    ],
)
async def test_event_changes_nothing_when_the_id_is_that_of_another_kind(
    service: Service, event_type: str, kind: str, object_id: str
) -> None:
    """C10: the object was applied, or noted under the id of another kind."""
    state = {"id": object_id, "object": kind, "status": "active", "type": "card", "created": 1_700_000_000}
    state["items"] = state["lines"] = {"data": [], "has_more": False}
    assert await outcome(service, event_of(event_type, state)) == "ignored: not its id"
    tables = {"payment_method": "payment_methods"}
    assert (
        await service.fetch(f"select id from {tables.get(kind, f'{kind}s')} where id = $1", object_id) == []
    )
    assert await service.fetch("select id from refreshes where id = $1", object_id) == []
