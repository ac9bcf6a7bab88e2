"""A body is refused where a route takes none, and may be left out where every field of it may be."""

from typing import Any

import httpx
import pytest

from testkit.company import Service
from testkit.problems import ok, pointers, problem
from testkit.service import as_service, as_user
from tests.contract.declared import Operation, operations

WITHOUT_BODY = [one for one in operations().values() if one.method != "GET" and not one.takes_body]


def test_some_routes_take_no_body() -> None:
    assert {"givePurchasePermission", "resumeSubscription", "leaveSharedSubscription", "acceptTransfer"} <= {
        one.name for one in WITHOUT_BODY
    }


@pytest.mark.parametrize("operation", WITHOUT_BODY, ids=[one.name for one in WITHOUT_BODY])
async def test_route_refuses_a_body_when_it_takes_none(service: Service, operation: Operation) -> None:
    """What a body said was ignored, so `{"allowed": false}` gave the permission."""
    path, admin = operation.path.replace("{", "").replace("}", ""), as_service("admin")
    named = await service.send(operation.method, path, admin, {"allowed": False, "a" * 60: 1})
    assert pointers(problem(named, 422, "invalid_request")) == ["/allowed", f"/{'a' * 40}"]
    typed = {**admin, "Content-Type": "application/json"}
    for body in (b"[]", b"1", b'"x"', b'{"a":1,"a":2}', b"{", b"allowed=false", b"null"):
        refused = await service.client.request(operation.method, path, headers=typed, content=body)
        assert pointers(problem(refused, 422, "invalid_request")) == [""], body


async def test_write_does_nothing_when_its_body_is_refused(service: Service) -> None:
    """Nothing is written, and the key is as good as new."""
    company = await service.company(payer_is_owner=False)
    path, key = f"{company.path}/purchase-permission", {"Idempotency-Key": "refused-body"}
    who = {**company.payer.headers, **key}
    await service.get(company.path, company.payer.headers)
    before = await service.row_counts()
    problem(await service.send("PUT", path, who, {"allowed": False}), 422, "invalid_request")
    assert await service.row_counts() == before
    ok(await service.send("PUT", path, who))


@pytest.mark.parametrize("body", [None, {}], ids=["absent", "empty"])
async def test_route_without_a_body_is_served_when_it_is_absent_or_empty(service: Service, body: Any) -> None:
    company = await service.company()
    path = f"/v1/subscriptions/{company.subscription_id}/resume"
    ok(await service.send("POST", path, company.owner.headers, body))


@pytest.mark.parametrize("content", [b"", b"{}", b"null"], ids=["absent", "empty", "null"])
async def test_login_gets_a_customer_when_the_body_names_no_field(service: Service, content: bytes) -> None:
    """Every field is optional, and the body was required."""
    who = {**as_user(), "Content-Type": "application/json"}
    made = await service.client.post("/v1/customers", headers=who, content=content)
    ok(made, httpx.codes.CREATED)


async def test_secret_is_replaced_when_the_body_is_absent(service: Service) -> None:
    admin = as_service("admin")
    made = ok(
        await service.send("POST", "/v1/webhook-endpoints", admin, {"url": "http://127.0.0.1:9/hooks"}), 201
    )
    path = f"/v1/webhook-endpoints/{made['webhook_endpoint']['id']}/rotate-secret"
    assert ok(await service.send("POST", path, admin))["secret"] != made["secret"]
