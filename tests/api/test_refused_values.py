"""A value of the caller's that only Stripe can judge: his to mend, so 422 with its place, never our 502."""

import pytest

from app.errors import StripeRejected
from app.stripe.client import StripeClient
from testkit.company import Service
from testkit.problems import pointers, problem
from testkit.service import as_service
from testkit.simulator import Simulator

PAST = "2020-01-01T00:00:00Z"


@pytest.mark.parametrize("tail", ["", "/preview"])
async def test_a_trial_that_ended_before_it_began(service: Service, tail: str) -> None:
    company = await service.company()
    path = f"/v1/subscriptions/{company.subscription_id}{tail}"
    answer = await service.send("POST" if tail else "PATCH", path, as_service("admin"), {"trial_end": PAST})
    [error] = problem(answer, 422, "invalid_request")["errors"]
    assert (error["pointer"], error["code"]) == ("/trial_end", "refused_by_stripe")
    assert PAST not in answer.text
    assert (await company.state())["trial_end"] is None


async def test_a_card_that_was_detached(service: Service) -> None:
    """Stripe: a payment method that was detached can never be attached again."""
    company = await service.company()
    method = await service.stripe.post(
        "/v1/payment_methods/pm_card_mastercard/attach", customer=company.owner.customer_id
    )
    await service.stripe.post(f"/v1/payment_methods/{method['id']}/detach")
    body = {"payment_method_id": method["id"]}
    answer = await service.send("POST", "/v1/customers/me/payment-methods", company.owner.headers, body)
    assert pointers(problem(answer, 422, "invalid_request")) == ["/payment_method_id"]


async def test_what_the_caller_did_not_choose_is_ours(stripe_account: Simulator) -> None:
    client = StripeClient(stripe_account.api_key, api_base=stripe_account.base_url)
    try:
        await stripe_account.add_fault(status=400, code="parameter_unknown")
        with pytest.raises(StripeRejected):
            await client.post("/v1/customers", {"name": "Ada"}, idempotency_key="k1")
    finally:
        await client.close()
