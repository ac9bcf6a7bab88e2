"""What every answer carries, who may call from which page, and what a production process does not show."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.main import create_app
from app.settings import load_settings
from testkit.company import Company, Service, event_of, running_service, signed
from testkit.problems import problem
from testkit.service import as_service, service_environment
from testkit.simulator import Simulator, new_account_key
from tests.contract.declared import operations

APP = "https://app.example.com"
TOKEN = "scrape-only-for-tests"


@pytest.fixture(scope="module")
async def service(stripe_simulator: str, module_database_url: str) -> AsyncIterator[Service]:
    async with (
        Simulator(stripe_simulator, new_account_key()) as stripe,
        running_service(
            stripe,
            module_database_url,
            CORS_ORIGINS=f"{APP},http://localhost:3000",
            METRICS_TOKEN=TOKEN,
        ) as running,
    ):
        yield running


@pytest.fixture(scope="module")
async def company(service: Service) -> Company:
    return await service.company()


async def every_kind_of_answer(service: Service, company: Company) -> AsyncIterator[httpx.Response]:
    owner = company.owner.headers
    read = await service.get(company.path, owner)
    yield read
    yield await service.get(company.path, {**owner, "If-None-Match": read.headers["etag"]})
    for path in (
        f"{company.path}/users",
        "/v1/customers/me",
        "/v1/customers/me/subscriptions",
        f"/v1/subscriptions/{company.subscription_id}?fresh=true",
        "/v1/subscriptions/sub_absent",
        "/v1/nothing",
        "/v1/customers/ä",
        "/metrics",
    ):
        yield await service.get(path, owner)
    yield await service.get(company.path)
    for path in ("/v1/products", "/healthz", "/readyz", "/docs", "/openapi.json", "/nothing"):
        yield await service.get(path)
    yield await service.get("/metrics", {"Authorization": f"Bearer {TOKEN}"})
    change = {"remove": [company.user.customer_id]}
    for _ in range(2):
        yield await service.send("PATCH", f"{company.path}/users", owner, change, Idempotency_Key="one")
    yield await service.send("PATCH", f"{company.path}/users", owner, {"surprise": 1})
    yield await service.send("PUT", "/v1/customers", owner)
    yield await service.client.post("/v1/customers", content=b"{}", headers={"Content-Type": "text/plain"})
    event = event_of("customer.updated", {"id": "cus_x", "object": "customer", "created": 1, "metadata": {}})
    assert (await service.deliver(event)).status_code == 200
    yield await service.deliver(event)
    yield await service.client.post("/webhooks/stripe", content=b"{}", headers=signed(b"[]"))
    yield await service.client.options(
        "/v1/products", headers={"Origin": APP, "Access-Control-Request-Method": "GET"}
    )


async def test_every_answer_is_guarded(service: Service, company: Company) -> None:
    seen = set()
    async for answer in every_kind_of_answer(service, company):
        where = f"{answer.request.method} {answer.request.url.path} {answer.status_code}"
        seen.add(answer.status_code)
        headers = answer.headers
        assert headers["x-content-type-options"] == "nosniff", where
        assert headers["x-frame-options"] == "DENY", where
        assert "frame-ancestors 'none'" in headers["content-security-policy"], where
        assert headers["referrer-policy"] == "no-referrer", where
        assert headers["x-request-id"], where
        assert "server" not in headers and "x-powered-by" not in headers, where
        if answer.request.method == "OPTIONS":
            continue
        kept = headers["cache-control"]
        if answer.request.method == "GET" and answer.status_code in (200, 304) and "etag" in headers:
            assert kept == "private, no-cache", where
        elif answer.request.url.path in ("/docs", "/openapi.json"):
            assert kept == "no-cache", where
        else:
            assert kept == "no-store", where
    assert seen >= {200, 304, 400, 401, 404, 405, 415, 422}


# Cross-origin calls.

FOREIGN = [
    "null",
    "https://app.example.com.attacker.example",
    "https://attacker-app.example.com",
    "https://xapp.example.com",
    "https://app.example.co",
    "https://app.example.comx",
    "https://sub.app.example.com",
    "https://example.com",
    "http://app.example.com",
    "https://app.example.com:444",
    "https://app.example.com:443",
    "https://app.example.com/",
    "https://app.example.com/path",
    "https://app.example.com?x",
    "https://APP.example.com",
    "HTTPS://app.example.com",
    "https://app.example.com ",
    "https://app.example.com,http://localhost:3000",
    "https://user@app.example.com",
    "https://app.example.com@attacker.example",
    "https://app%2eexample.com",
    "https://appXexample.com",
    "app.example.com",
    "//app.example.com",
    "http://localhost",
    "http://localhost:3001",
    "http://localhost:30000",
    "http://127.0.0.1:3000",
    "file://",
    "chrome-extension://abc",
    "*",
    "",
    "https://",
]


def preflight(origin: str, headers: str = "authorization,content-type,idempotency-key,if-match") -> Any:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": headers,
    }


@pytest.mark.parametrize("origin", FOREIGN)
async def test_no_other_page_may_read(service: Service, company: Company, origin: str) -> None:
    # A cookie must not make a difference, and nothing here sets or reads one.
    for cookie in ({}, {"Cookie": "session=1"}):
        asked = await service.client.options(company.path, headers={**preflight(origin), **cookie})
        read = await service.get(company.path, {**company.owner.headers, "Origin": origin, **cookie})
        failed = await service.get(company.path, {"Origin": origin, **cookie})
        for answer in (asked, read, failed):
            assert "access-control-allow-origin" not in answer.headers, origin
            assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("origin", [APP, "http://localhost:3000"])
async def test_named_pages_may(service: Service, company: Company, origin: str) -> None:
    asked = await service.client.options(company.path, headers=preflight(origin))
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == origin
    other = await service.client.options(company.path, headers=preflight(origin, "x-acting-customer"))
    assert other.status_code == 400, "service keys do not belong into pages"
    for answer in (
        await service.get(company.path, {**company.owner.headers, "Origin": origin}),
        await service.get(company.path, {"Origin": origin}),
        await service.send("PATCH", f"{company.path}/users", {"Origin": origin}, {"remove": 1}),
    ):
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["vary"] == "Origin"
        exposed = answer.headers["access-control-expose-headers"]
        assert "Retry-After" in exposed and "ETag" in exposed
        assert "access-control-allow-credentials" not in answer.headers


async def test_even_a_refused_crowd_can_be_read_by_its_page(
    stripe_account: Simulator, database_url: str
) -> None:
    """A page that is told nothing cannot wait as it should."""
    async with running_service(
        stripe_account, database_url, CORS_ORIGINS=APP, ANONYMOUS_RATE_LIMIT="1"
    ) as strict:
        for _ in range(4):
            await strict.get("/v1/products")
        answer = await strict.get("/v1/products", {"Origin": APP})
        problem(answer, 429, "rate_limited")
        assert answer.headers["access-control-allow-origin"] == APP


# Metrics, and what is shown beside which key.


async def test_metrics_are_for_whom_they_are_meant(service: Service, company: Company) -> None:
    for who in ({}, company.owner.headers, as_service("admin"), {"Authorization": TOKEN}):
        problem(await service.get("/metrics", dict(who)), 401, "unauthenticated")
    for close in (TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "é" + TOKEN):
        answer = await service.client.get("/metrics", headers={b"Authorization": f"Bearer {close}".encode()})
        problem(answer, 401, "unauthenticated")
    answer = await service.get("/metrics", {"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200 and "coseat_request_seconds" in answer.text


LIVE = {"STRIPE_API_KEY": "sk_live_1"}


@pytest.mark.parametrize(
    ("variables", "docs", "metrics"),
    [
        ({}, True, True),
        (LIVE, False, False),
        ({**LIVE, "METRICS_TOKEN": TOKEN}, False, True),
        ({**LIVE, "DOCS": "true", "METRICS": "true"}, True, True),
        ({"DOCS": "false", "METRICS": "false"}, False, False),
        ({"METRICS": "false", "METRICS_TOKEN": TOKEN}, True, False),
    ],
)
def test_what_shows_beside_which_key(variables: dict[str, str], docs: bool, metrics: bool) -> None:
    settings = load_settings(variables, process="test")
    assert (settings.shows_docs, settings.shows_metrics) == (docs, metrics)


async def test_what_is_off_is_not_there(stripe_account: Simulator, database_url: str) -> None:
    async with running_service(stripe_account, database_url, DOCS="false", METRICS="false") as closed:
        absent = await closed.get("/nothing")
        pages = ("/docs", "/docs/start.js", "/docs/swagger-ui.css", "/openapi.json", "/redoc")
        for path in (*pages, "/metrics"):
            answer = await closed.get(path)
            problem(answer, 404, "not_found")
            assert answer.json().keys() == absent.json().keys()
            assert answer.json()["detail"] == absent.json()["detail"]


def test_no_route_is_there_that_nobody_knows_of() -> None:
    environment = service_environment(database_url="postgresql://h/d", stripe_base="", stripe_key="sk_live_1")
    environment.pop("STRIPE_API_BASE")
    from fastapi.routing import iter_route_contexts

    app = create_app(load_settings(environment))
    known = {operation.path for operation in operations().values()} | {"/webhooks/stripe", "/metrics"}
    assert {context.path for context in iter_route_contexts(app.routes)} == known
