"""The record of each request: what it was, who sent it and what became of it, and no more lines than help."""

import io
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import structlog

from app.commands.log_sampling import MOST, Sampling
from testkit.company import Company, Service, new_email, running_service
from testkit.logs import captured_logs
from testkit.service import api_process, as_service, as_user
from testkit.simulator import Simulator, new_account_key


@pytest.fixture(scope="module")
async def service(stripe_simulator: str, module_database_url: str) -> AsyncIterator[Service]:
    async with (
        Simulator(stripe_simulator, new_account_key()) as stripe,
        running_service(stripe, module_database_url) as running,
    ):
        yield running


@pytest.fixture(scope="module")
async def company(service: Service) -> Company:
    return await service.company(seats=5)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What a process at the level info writes."""
    with captured_logs("info") as stream:
        yield stream


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [line for line in found if line["event"] == "request"]


async def test_record_names_operation_caller_and_code(
    service: Service, company: Company, lines: io.StringIO
) -> None:
    """O15: the line of a refusal had no code and no caller."""
    changed = await company.change(company.owner.headers, add=[new_email()])
    acting = as_service("write", acting_for=company.owner.customer_id)
    await service.get(f"{company.path}/users", acting)
    await service.get("/v1/customers/cus_absent", as_service("read"))
    await service.get("/v1/customers/me")
    await service.get("/v1/nothing")
    await company.change(company.stranger.headers, remove=["cus_1"])
    shown = [
        {name: line.get(name) for name in ("operation", "status", "principal", "code", "operation_id")}
        for line in records(lines)
    ]
    operation_id = shown[0].pop("operation_id")
    assert operation_id == changed.json()["operation_id"]
    assert str(shown[-1].pop("operation_id")).startswith("op_")
    common = {"code": None, "operation_id": None}
    assert shown == [
        {"operation": "updateSharedSubscriptionUsers", "status": 200, "principal": "end_user", "code": None},
        common
        | {"operation": "getSharedSubscriptionUsers", "status": 200, "principal": "acting_service_key"},
        common | {"operation": "getCustomer", "status": 404, "principal": "service_key", "code": "not_found"},
        common
        | {"operation": "getCustomer", "status": 401, "principal": "anonymous", "code": "unauthenticated"},
        common | {"operation": "unmatched", "status": 404, "principal": None, "code": "not_found"},
        {
            "operation": "updateSharedSubscriptionUsers",
            "status": 404,
            "principal": "end_user",
            "code": "not_found",
        },
    ]
    assert "@" not in lines.getvalue()


async def test_answers_are_counted_and_timed_by_operation(service: Service, company: Company) -> None:
    """O15: latency and answers by operationId, and no id of a customer in a label."""
    text = (await service.get("/metrics")).text

    def counted(text: str) -> float:
        found = re.search(
            r'^coseat_requests_total\{operation="getSharedSubscription",status="200"\} (\S+)$',
            text,
            re.MULTILINE,
        )
        return float(found[1]) if found else 0.0

    for path in (company.path, f"{company.path}?fresh=true"):
        assert (await service.get(path, company.owner.headers)).status_code == 200
    after = (await service.get("/metrics")).text
    assert counted(after) == counted(text) + 2
    assert 'coseat_request_seconds_count{operation="getSharedSubscription"}' in after
    labels = set(re.findall(r'"([^"]*)"', "\n".join(_samples(after))))
    assert not [value for value in labels if re.search(r"@|\b(?:cus|sub|op|in|req)_", value)]
    # What other tests of this process counted is in its registry.
    assert len(_samples(after)) - len(_samples(text)) < 200


async def test_series_of_a_process_are_few(service: Service, company: Company) -> None:
    """O15: labels take no values that grow with the customers."""
    with api_process(service.environment()) as (base_url, _):
        async with httpx.AsyncClient(
            base_url=base_url, headers=company.owner.headers, timeout=20.0
        ) as client:
            for path in (company.path, f"{company.path}/users", "/v1/customers/me", "/v1/products"):
                assert (await client.get(path)).status_code == 200
            change = {"add": [{"email": new_email()}]}
            assert (await client.patch(f"{company.path}/users", json=change)).status_code == 200
            text = (await client.get("/metrics")).text
    assert 50 < len(_samples(text)) < 2000
    # A first failure is an increase, which an alert can see, only from a counter that was there.
    shown = dict(
        re.findall(r'^coseat_requests_total\{operation="(\w+)",status="500"\} (\S+)$', text, re.MULTILINE)
    )
    assert set(shown.values()) == {"0.0"}
    assert {"addSubscription", "updateSharedSubscriptionUsers", "stripeWebhook", "unmatched"} <= shown.keys()


def _samples(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("coseat_")]


async def test_log_stays_short_when_many_requests_are_refused(service: Service, lines: io.StringIO) -> None:
    """U10: 450 bytes to 1.6 kB of log for each refused request of a storm."""
    number = 500
    for _ in range(number):
        assert (await service.get("/v1/customers/me", as_user("nobody"))).status_code == 404
    assert len(lines.getvalue()) / number < 100
    assert all(len(line) < 400 for line in lines.getvalue().splitlines())


def test_repeated_lines_are_left_out_and_their_number_is_told() -> None:
    """U10: each kind of line has a share of its own, and successes are never left out."""
    now = [0.0]
    sampling = Sampling(clock=lambda: now[0])

    def written(number: int, level: str = "warning", **event: Any) -> list[dict[str, Any]]:
        found = []
        for _ in range(number):
            try:
                found.append(dict(sampling.process(None, level, {"event": "request", **event})))
            except structlog.DropEvent:
                continue
        return found

    assert len(written(MOST + 100, status=503, code="stripe_unavailable")) == MOST
    refused = written(MOST + 7, "info", status=404)
    assert len(refused) == MOST and refused[0]["lines_left_out"] == 100
    assert len(written(1000, "info", status=200)) == 1000
    [other] = written(1, status=503, code="database_unavailable")
    assert other["lines_left_out"] == 7
    now[0] = 5.0
    [again] = written(1, status=503, code="stripe_unavailable")
    assert "lines_left_out" not in again


def test_records_of_libraries_are_left_out_when_they_repeat(lines: io.StringIO) -> None:
    for _ in range(MOST * 3):
        logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    assert len(lines.getvalue().splitlines()) == MOST
