"""Traces: a request, its calls to Stripe, and the worker that finishes its operation after a kill."""

import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from testkit.collector import Collector, collecting
from testkit.company import running_service
from testkit.service import api_process, as_user, inherited, service_environment, worker_process
from testkit.simulator import Simulator

OFF = """
import sys
from app import tracing
import app.worker, app.operations.store, app.stripe.client
assert not tracing.is_on() and tracing.current() is None
with tracing.span("x") as span:
    span.note(a=1)
assert [name for name in sys.modules if name.startswith("opentelemetry")] == []
import app.main
assert [name for name in sys.modules if name.startswith("opentelemetry.sdk")] == []
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


def test_nothing_is_imported_when_tracing_is_off() -> None:
    subprocess.run([sys.executable, "-c", OFF], check=True, env=inherited(), cwd=Path(__file__).parents[2])


async def test_trace_leads_from_the_request_to_stripe_and_the_worker_when_the_process_is_killed(
    stripe_account: Simulator, database_url: str, collector: Collector
) -> None:
    """One trace is followed: the worker's span is in another process, after a kill, and links to the request's."""
    environment = service_environment(
        database_url=database_url,
        stripe_base=stripe_account.base_url,
        stripe_key=stripe_account.api_key,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OPERATION_LEASE="1",
    )
    async with running_service(stripe_account, database_url) as service:
        company = await service.company(seats=5)
        await service.fill()
    traces = [secrets.token_hex(16) for _ in range(2)]
    headers = [
        {**as_user(company.owner.subject), "traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
        for trace in traces
    ]
    path = f"{company.path}/users"
    with api_process(environment) as (base_url, process):
        async with httpx.AsyncClient(base_url=base_url, timeout=30) as client:
            body = {"add": [{"email": "ada@example.com"}]}
            assert (await client.patch(path, json=body, headers=headers[0])).status_code == 200
            request = collector.wait_for("updateSharedSubscriptionUsers")
            call = collector.wait_for("stripe POST /v1/customers")
            assert request.trace == call.trace == traces[0] and call.parent == request.id
            assert request.attributes["http.response.status_code"] == "200"
            # The next one is killed while Stripe is silent.
            await stripe_account.add_fault(method="POST", path="/v1/customers", timeout=30.0)
            body = {"add": [{"email": "bob@example.com"}]}
            with pytest.raises(httpx.ReadTimeout):
                await client.patch(path, json=body, headers=headers[1], timeout=3)
        process.process.kill()
    await stripe_account.clear_faults()
    with worker_process(environment):
        finished = collector.wait_for("finish operation", within=30)
    [(linked, _)] = finished.links
    assert (linked, finished.process) == (traces[1], "worker")
    assert any(
        span.parent == finished.id and span.name.startswith("stripe ") and span.process == "worker"
        for span in collector.spans
    )
    told = repr(collector.spans)
    assert "@" not in told and company.owner.customer_id not in told and company.subscription_id not in told


async def test_requests_are_answered_when_the_collector_is_away(
    stripe_account: Simulator, database_url: str
) -> None:
    environment = service_environment(
        database_url=database_url,
        stripe_base=stripe_account.base_url,
        stripe_key=stripe_account.api_key,
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
    )
    with api_process(environment) as (base_url, _):
        async with httpx.AsyncClient(base_url=base_url) as client:
            for given in (
                {},
                {"traceparent": "nonsense"},
                {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-01"},
            ):
                assert (await client.get("/v1/products", headers=given)).status_code == 200
