"""What Stripe's refusals and silences become, and how often a call is sent: counted where it arrives."""

import asyncio
from typing import Any

import pytest
import stripe

from app.errors import (
    BillingError,
    InvalidRequest,
    NotFound,
    PaymentRequired,
    ServiceUnavailable,
    StripeErrorStored,
    StripeOutcomeUnknown,
    StripeRejected,
)
from app.stripe import client as client_module
from app.stripe.client import StripeClient
from app.stripe.gateway import StripeGateway
from app.stripe.translate import translate
from testkit.plans import new_customer, new_plan
from testkit.simulator import Simulator

ATTEMPTS = 4


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_FIRST_PAUSE_SECONDS", 0.01)


async def sent(account: Simulator, path: str = "/v1/customers") -> list[Any]:
    """What the service itself sent, as the stand-in logged it."""
    return [entry for entry in await account.requests(path=path) if entry["actor"] == "api"]


async def read(client: StripeClient) -> BillingError | None:
    try:
        await client.get("/v1/customers")
    except BillingError as error:
        return error
    return None


async def write(client: StripeClient, key: str = "k1") -> BillingError | None:
    try:
        await client.post("/v1/customers", {"name": "Ada"}, idempotency_key=key)
    except BillingError as error:
        return error
    return None


READS: list[tuple[dict[str, Any], type[BillingError], str, int]] = [
    ({"status": 429}, ServiceUnavailable, "stripe_unavailable", ATTEMPTS),
    ({"status": 429, "code": "lock_timeout"}, ServiceUnavailable, "stripe_unavailable", ATTEMPTS),
    ({"status": 409}, ServiceUnavailable, "stripe_unavailable", ATTEMPTS),
    ({"status": 500}, ServiceUnavailable, "stripe_unavailable", ATTEMPTS),
    ({"status": 503}, ServiceUnavailable, "stripe_unavailable", ATTEMPTS),
    ({"truncate": True}, ServiceUnavailable, "stripe_unavailable", ATTEMPTS),
    ({"status": 400}, StripeRejected, "stripe_rejected", 1),
    ({"status": 401}, ServiceUnavailable, "stripe_unavailable", 1),
    ({"status": 403}, StripeRejected, "stripe_rejected", 1),
    ({"status": 404, "code": "resource_missing"}, NotFound, "not_found", 1),
]


@pytest.mark.parametrize(("fault", "expected", "code", "times"), READS, ids=str)
async def test_a_read(
    stripe_account: Simulator,
    client: StripeClient,
    fault: dict[str, Any],
    expected: type[BillingError],
    code: str,
    times: int,
) -> None:
    await stripe_account.add_fault(**fault, times=0)
    error = await read(client)
    assert type(error) is expected
    assert error.code == code
    assert len(await sent(stripe_account)) == times


WRITES: list[tuple[dict[str, Any], type[BillingError], int]] = [
    ({"status": 429}, ServiceUnavailable, ATTEMPTS),
    ({"status": 429, "code": "lock_timeout"}, ServiceUnavailable, ATTEMPTS),
    ({"status": 409}, ServiceUnavailable, ATTEMPTS),
    ({"status": 500}, StripeOutcomeUnknown, 1),
    ({"status": 500, "effect": "after", "save": True}, StripeOutcomeUnknown, 1),
    ({"status": 502}, StripeOutcomeUnknown, 1),
    ({"status": 400}, StripeRejected, 1),
    ({"status": 401}, ServiceUnavailable, 1),
    ({"status": 403}, ServiceUnavailable, 1),
    ({"status": 402}, PaymentRequired, 1),
    ({"status": 404, "code": "resource_missing"}, NotFound, 1),
]


@pytest.mark.parametrize(("fault", "expected", "times"), WRITES, ids=str)
async def test_a_write(
    stripe_account: Simulator,
    client: StripeClient,
    fault: dict[str, Any],
    expected: type[BillingError],
    times: int,
) -> None:
    await stripe_account.add_fault(**fault, times=0)
    assert type(await write(client)) is expected
    log = await sent(stripe_account)
    assert [entry["idempotency_key"] for entry in log] == ["k1"] * times


@pytest.mark.parametrize(
    "fault", [{"status": 429}, {"status": 500}, {"status": 409}, {"truncate": True}], ids=str
)
async def test_a_read_survives_passing_faults(
    stripe_account: Simulator, client: StripeClient, fault: dict[str, Any]
) -> None:
    await stripe_account.add_fault(**fault, times=ATTEMPTS - 1)
    assert await read(client) is None
    assert len(await sent(stripe_account)) == ATTEMPTS


@pytest.mark.parametrize(("fault", "times"), [({"status": 429}, 3), ({"truncate": True}, 2)], ids=str)
async def test_a_write_that_is_sent_again_takes_effect_once(
    stripe_account: Simulator, client: StripeClient, fault: dict[str, Any], times: int
) -> None:
    """A truncated answer was already remembered under the key, so it is replayed whole."""
    await stripe_account.add_fault(**fault, times=2)
    assert await write(client) is None
    log = await sent(stripe_account)
    assert [entry["idempotency_key"] for entry in log] == ["k1"] * times
    assert len(await stripe_account.state("customer")) == 1


async def test_a_saved_500_is_answered_again_under_its_key(
    stripe_account: Simulator, client: StripeClient
) -> None:
    await stripe_account.add_fault(status=500, save=True)
    assert type(await write(client)) is StripeOutcomeUnknown
    assert type(await write(client)) is StripeErrorStored
    assert await write(client, "k2") is None


async def test_silence_ends_after_the_stated_time(
    stripe_account: Simulator, client: StripeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "TOTAL_SECONDS", 0.5)
    await stripe_account.add_fault(timeout=True, times=0)
    started = asyncio.get_running_loop().time()
    assert type(await read(client)) is ServiceUnavailable
    lost = await write(client)
    assert type(lost) is StripeOutcomeUnknown
    assert lost.retry_after == 2
    assert asyncio.get_running_loop().time() - started < 5


async def test_a_write_whose_answer_was_lost_is_the_same_under_its_key(
    stripe_account: Simulator, client: StripeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "TOTAL_SECONDS", 0.5)
    await stripe_account.add_fault(timeout=True, effect="after")
    assert type(await write(client)) is StripeOutcomeUnknown
    monkeypatch.setattr(client_module, "TOTAL_SECONDS", 10.0)
    assert await write(client) is None
    assert len(await stripe_account.state("customer")) == 1


async def test_a_key_with_other_parameters_is_used_up_and_what_it_did_is_unknown(
    stripe_account: Simulator, client: StripeClient
) -> None:
    assert await write(client) is None
    with pytest.raises(StripeErrorStored):
        await client.post("/v1/customers", {"name": "Grace"}, idempotency_key="k1")
    assert len(await sent(stripe_account)) == 2


async def test_a_declined_card_is_told_with_its_reason(
    stripe_account: Simulator, client: StripeClient
) -> None:
    plan = await new_plan(stripe_account)
    payer = await new_customer(stripe_account, card="pm_card_chargeCustomerFail")
    with pytest.raises(PaymentRequired) as declined:
        await client.post(
            "/v1/subscriptions",
            {"customer": payer, "items": [{"price": plan.price}], "payment_behavior": "error_if_incomplete"},
            idempotency_key="k1",
        )
    assert declined.value.code == "card_declined"
    assert declined.value.members["decline_code"] == "generic_decline"


async def test_a_parameter_that_stripe_refuses_is_named(client: StripeClient) -> None:
    with pytest.raises(StripeRejected) as refused:
        await client.post("/v1/customers", {"nmae": "Ada"}, idempotency_key="k1")
    assert refused.value.members["stripe_param"] == "nmae"


async def test_a_server_that_is_not_there(client: StripeClient) -> None:
    nobody = StripeClient("sk_test_x", api_base="http://127.0.0.1:9")
    try:
        assert type(await read(nobody)) is ServiceUnavailable
        # Nothing was sent, so nothing is unknown.
        unsent = await write(nobody)
        assert type(unsent) is ServiceUnavailable
    finally:
        await nobody.close()


async def test_an_answer_carries_the_second_at_which_it_was_given(
    stripe_account: Simulator, client: StripeClient, gateway: StripeGateway
) -> None:
    await stripe_account.control("POST", "clock", freeze=1_900_000_000)
    assert (await client.get("/v1/customers")).at == 1_900_000_000
    customer = await new_customer(stripe_account, card=None)
    assert (await gateway.fetch("customer", customer)).at == 1_900_000_000
    assert (await gateway.page("customer", starting_after=None)).at == 1_900_000_000


MISSING: list[tuple[str | None, type[BillingError], str, list[str]]] = [
    (None, NotFound, "not_found", []),
    ("subscription", NotFound, "not_found", []),
    ("customer", NotFound, "not_found", []),
    ("starting_after", NotFound, "not_found", []),
    ("discounts[0][promotion_code]", InvalidRequest, "invalid_request", ["/promotion_code"]),
    ("discounts[0][coupon]", InvalidRequest, "invalid_request", ["/discounts"]),
    ("default_tax_rates[0]", InvalidRequest, "invalid_request", ["/default_tax_rates"]),
    ("items[0][tax_rates][0]", InvalidRequest, "invalid_request", ["/items"]),
    ("items[0][price]", InvalidRequest, "price_not_available", ["/items"]),
    ("subscription_details[items][0][price]", InvalidRequest, "price_not_available", ["/items"]),
    ("items[1][id]", InvalidRequest, "invalid_request", ["/items"]),
    ("default_payment_method", NotFound, "not_found", []),
    ("invoice_settings[default_payment_method]", NotFound, "not_found", []),
    ("transfer_data[destination]", StripeRejected, "stripe_rejected", []),
]


@pytest.mark.parametrize(("param", "expected", "code", "pointers"), MISSING, ids=str)
def test_resource_missing_belongs_to_its_param_when_stripe_answers_400(
    param: str | None, expected: type[BillingError], code: str, pointers: list[str]
) -> None:
    """M11: what Stripe did not find is told as what it is, and only an object of the path as not found."""
    body = {"error": {"type": "invalid_request_error", "code": "resource_missing", "param": param}}
    refused = stripe.InvalidRequestError(  # type: ignore[no-untyped-call]
        "No such object: 'x'", param, code="resource_missing", http_status=400, json_body=body
    )
    told = translate(refused)
    assert (type(told), told.code) == (expected, code)
    assert [error.pointer for error in told.errors] == pointers
    assert "subscription" not in told.detail or "/items" in pointers
