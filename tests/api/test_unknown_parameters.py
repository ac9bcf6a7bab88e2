"""A query parameter that a route does not have is refused, before anything is done."""

import pytest

from testkit.company import Service
from testkit.problems import pointers, problem
from testkit.service import as_service
from tests.contract.declared import operations

MACHINES = ("/healthz", "/readyz")


def routes() -> list[tuple[str, str]]:
    return [
        (operation.method, operation.path)
        for operation in operations().values()
        if operation.path not in MACHINES
    ]


@pytest.mark.parametrize(("method", "path"), routes(), ids=[" ".join(route) for route in routes()])
async def test_every_route_refuses_when_a_parameter_is_unknown(
    service: Service, method: str, path: str
) -> None:
    """O16: a misspelt filter answered an empty list, and an unknown one was ignored."""
    answer = await service.send(
        method, f"{path.replace('{', '').replace('}', '')}?actve=true", as_service("admin")
    )
    refused = problem(answer, 422, "unknown_parameter")
    assert pointers(refused) == ["query/actve"]


async def test_the_refusal_names_the_parameters_of_the_route(service: Service) -> None:
    company = await service.company()
    answer = await service.get(
        "/v1/customers/me/subscriptions", company.owner.headers, satus="active", limit=1
    )
    refused = problem(answer, 422, "unknown_parameter")
    assert "query/satus" in refused["detail"] and "cursor, limit, role, status" in refused["detail"]


async def test_a_write_does_nothing_when_a_parameter_is_unknown(service: Service) -> None:
    """Nothing is written at Stripe, and the key is as good as new."""
    company = await service.company()
    path, body = f"{company.path}/users", {"add": [{"email": "quiet@example.com"}]}
    before, key = await service.row_counts(), {"Idempotency-Key": "unknown-parameter"}
    refused = await service.send("PATCH", f"{path}?dry_run=true", {**company.owner.headers, **key}, body)
    problem(refused, 422, "unknown_parameter")
    assert await service.row_counts() == before
    done = await service.send("PATCH", path, {**company.owner.headers, **key}, body)
    assert done.status_code == 200, done.text


async def test_a_long_name_is_shortened_in_the_answer(service: Service) -> None:
    answer = await service.get("/v1/products", None, **{"n" * 500: "1"})
    assert pointers(problem(answer, 422, "unknown_parameter")) == [f"query/{'n' * 40}"]
