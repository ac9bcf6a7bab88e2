"""P8: of two values of one header, a proxy may check the one and the service use the other, so neither is taken."""

import json
import time

import httpx
import pytest

from testkit.company import Service, event_of, signed
from testkit.problems import pointers, problem
from testkit.service import as_service

ROUTES = (
    ("GET", "/v1/shared-subscriptions/{subscription}"),
    ("GET", "/v1/shared-subscriptions/{subscription}?fresh=true"),
    ("GET", "/v1/subscriptions/{subscription}"),
    ("GET", "/v1/customers/{customer}"),
    ("POST", "/v1/customers"),
    ("PATCH", "/v1/customers/{customer}"),
    ("GET", "/v1/products"),
    ("GET", "/healthz"),
    ("GET", "/openapi.json"),
    ("GET", "/v1/nothing"),
)
DOUBLED = ("Authorization", "X-Acting-Customer", "Idempotency-Key", "Stripe-Signature")


@pytest.mark.parametrize("name", DOUBLED)
async def test_a_doubled_header_is_refused_on_every_route(service: Service, name: str) -> None:
    """P8: `X-Acting-Customer` twice; its siblings are the other headers, equal values, and the plain reads."""
    company = await service.company()
    other = await service.person("other")
    owner = company.owner.customer_id
    before = await service.row_counts()
    values = {
        "Authorization": (as_service("write")["Authorization"], other.headers["Authorization"]),
        "X-Acting-Customer": (owner, other.customer_id),
        "Idempotency-Key": ("first-key", "second-key"),
        "Stripe-Signature": ("t=1,v1=00", "t=2,v1=00"),
    }[name]
    for method, template in ROUTES:
        path = template.format(subscription=company.subscription_id, customer=owner)
        for given in (values, values[::-1], (values[0], values[0])):
            once = {**as_service("write", acting_for=owner), "Content-Type": "application/json"}
            once.pop(name, None)
            headers = [*once.items(), (name, given[0]), (name.lower(), given[1])]
            content = b'{"name": "Doubled"}' if method in ("POST", "PATCH") else None
            answer = await service.client.request(method, path, headers=headers, content=content)
            assert pointers(problem(answer, 400, "duplicate_header")) == [f"header/{name}"], path
    assert await service.row_counts() == before


@pytest.mark.parametrize("name", DOUBLED)
async def test_a_delivery_with_a_doubled_header_is_refused(service: Service, name: str) -> None:
    """P8: also where both signatures are good."""
    person = await service.person("delivered")
    state = await service.stripe.get(f"/v1/customers/{person.customer_id}")
    body = json.dumps(event_of("customer.updated", state, created=int(time.time()))).encode()
    once = signed(body)
    value = once.pop("Stripe-Signature", "") if name == "Stripe-Signature" else "Bearer x"
    before = await service.row_counts()
    for other in (value, "t=1,v1=00"):
        headers = [*once.items(), (name, other), (name, value)]
        answer = await service.client.post("/webhooks/stripe", content=body, headers=headers)
        problem(answer, 400, "invalid_webhook")
    assert await service.row_counts() == before
    good = await service.client.post("/webhooks/stripe", content=body, headers=signed(body))
    assert good.status_code == httpx.codes.OK
