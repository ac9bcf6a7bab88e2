"""How requests and answers look: parameters, errors, lists, expansion, headers, idempotency."""

import email.utils
import time
from typing import Any

import pytest
import stripe

from tests.stripe_simulator.simulator_support import Account, Catalogue


def test_unknown_and_mistyped_parameters_are_refused(account: Account) -> None:
    status, _, body = account.raw("POST", "/v1/customers", "nmae=x")
    assert (status, body["error"]["code"], body["error"]["param"]) == (400, "parameter_unknown", "nmae")
    status, _, body = account.raw("POST", "/v1/subscriptions", "items[0][prise]=x")
    assert (status, body["error"]["param"]) == (400, "items[0][prise]")
    status, _, body = account.raw("POST", "/v1/subscriptions", "items[0][quantity]=many")
    assert (status, body["error"]["code"]) == (400, "parameter_invalid_integer")
    status, _, body = account.raw("POST", "/v1/products", "active=true")
    assert (status, body["error"]["code"], body["error"]["param"]) == (400, "parameter_missing", "name")
    status, _, body = account.raw("GET", "/v1/customers?limit=101")
    assert (status, body["error"]["param"]) == (400, "limit")


def test_errors_have_stripes_shape(account: Account) -> None:
    with pytest.raises(stripe.InvalidRequestError) as missing:
        account.client.v1.subscriptions.retrieve("sub_none")
    assert missing.value.http_status == 404
    assert missing.value.error is not None
    assert (missing.value.error.code, missing.value.error.param) == ("resource_missing", "id")
    assert missing.value.request_id is not None and missing.value.request_id.startswith("req_")
    stranger = stripe.StripeClient("pk_live_x", base_addresses={"api": account.url})
    with pytest.raises(stripe.AuthenticationError):
        stranger.v1.accounts.retrieve_current()
    assert account.raw("GET", "/v1/nothing")[0] == 404
    assert account.raw("DELETE", "/v1/customers")[0] == 404


def test_accounts_are_isolated_and_named_by_their_key(account: Account, simulator: str) -> None:
    other = Account(simulator, account.key + "2")
    identifier = account.client.v1.customers.create({}).id
    with pytest.raises(stripe.InvalidRequestError):
        other.client.v1.customers.retrieve(identifier)
    first = account.client.v1.accounts.retrieve_current().id
    assert first.startswith("acct_")
    assert first == account.client.v1.accounts.retrieve_current().id
    assert first != other.client.v1.accounts.retrieve_current().id


def test_pages_are_newest_first_with_both_cursors(account: Account) -> None:
    made = account.control("POST", "bulk", {"customers": 250, "ids": True})["ids"]
    client = account.client.v1.customers
    assert [c.id for c in client.list().data] == made[:-11:-1]
    seen = [c.id for c in client.list({"limit": 100}).auto_paging_iter()]
    assert seen == made[::-1]
    before = client.list({"limit": 3, "ending_before": made[100]})
    assert [c.id for c in before.data] == [made[103], made[102], made[101]]
    assert before.has_more
    with pytest.raises(stripe.InvalidRequestError) as unknown:
        client.list({"starting_after": "cus_none"})
    assert unknown.value.param == "starting_after"


def test_created_filters(account: Account) -> None:
    for moment in (1_000, 2_000, 3_000):
        account.control("POST", "clock", {"freeze": moment})
        account.client.v1.customers.create({"name": str(moment)})
    client = account.client.v1.customers

    def names(**created: int) -> list[str | None]:
        params: Any = {"created": created}
        return [c.name for c in client.list(params).data]

    assert names(gt=1_000) == ["3000", "2000"]
    assert names(gte=1_000, lt=3_000) == ["2000", "1000"]
    assert names(lte=1_999) == ["1000"]


def test_expansion(account: Account, catalogue: Catalogue) -> None:
    client = account.client.v1
    client.subscriptions.create({"customer": catalogue.customer, "items": [{"price": catalogue.monthly}]})
    page = client.subscriptions.list(
        {"expand": ["data.customer", "data.items.data.price.product", "data.latest_invoice"]}
    )
    sub = page.data[0].to_dict()
    assert sub["customer"]["object"] == "customer"
    assert sub["items"]["data"][0]["price"]["product"]["name"] == "Team plan"
    assert sub["latest_invoice"]["object"] == "invoice"
    with pytest.raises(stripe.InvalidRequestError):
        client.subscriptions.list({"expand": ["data.nonsense"]})
    with pytest.raises(stripe.InvalidRequestError):
        client.customers.retrieve(catalogue.customer, {"expand": ["a.b.c.d.e"]})


def test_headers_come_from_the_accounts_clock(account: Account) -> None:
    account.control("POST", "clock", {"freeze": 1_900_000_000})
    _, headers, body = account.raw("POST", "/v1/customers", "name=x", {"Stripe-Version": "2026-10-28.endive"})
    assert body["created"] == 1_900_000_000
    assert email.utils.parsedate_to_datetime(headers["date"]).timestamp() == 1_900_000_000
    assert headers["stripe-version"] == "2026-10-28.endive"
    assert headers["request-id"].startswith("req_")


def test_an_idempotency_key_replays_the_first_result(account: Account) -> None:
    key = {"Idempotency-Key": "k1"}
    _, first_headers, first = account.raw("POST", "/v1/customers", "name=x", key)
    status, headers, again = account.raw("POST", "/v1/customers", "name=x", key)
    assert (status, again, headers["idempotent-replayed"]) == (200, first, "true")
    assert headers["original-request"] == first_headers["request-id"]
    status, _, body = account.raw("POST", "/v1/customers", "name=y", key)
    assert (status, body["error"]["type"]) == (400, "idempotency_error")
    assert len(account.control("GET", "state?type=customer")["data"]) == 1


def test_a_key_forgets_validation_errors_but_keeps_refusals(account: Account) -> None:
    key = {"Idempotency-Key": "k1"}
    assert account.raw("POST", "/v1/customers", "nmae=x", key)[0] == 400
    assert account.raw("POST", "/v1/customers", "name=x", key)[0] == 200
    other = {"Idempotency-Key": "k2"}
    assert account.raw("POST", "/v1/customers/cus_none", "name=x", other)[0] == 404
    assert "idempotent-replayed" in account.raw("POST", "/v1/customers/cus_none", "name=x", other)[1]


def test_pages_of_a_large_account_are_fast(account: Account) -> None:
    started = time.monotonic()
    account.control("POST", "bulk", {"customers": 20_000})
    assert time.monotonic() - started < 5
    started = time.monotonic()
    cursor = ""
    for _ in range(20):
        _, _, page = account.raw("GET", f"/v1/customers?limit=100{cursor}")
        cursor = f"&starting_after={page['data'][-1]['id']}"
    assert time.monotonic() - started < 2


def test_a_key_is_forgotten_after_a_day(account: Account) -> None:
    key = {"Idempotency-Key": "k1"}
    first = account.raw("POST", "/v1/customers", "name=x", key)[2]
    account.control("POST", "clock", {"advance": 86_000})
    assert account.raw("POST", "/v1/customers", "name=x", key)[2] == first
    account.control("POST", "clock", {"advance": 500})
    assert account.raw("POST", "/v1/customers", "name=x", key)[2]["id"] != first["id"]
