"""How much one process takes on, and what the rest is told."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from app.http import overload
from app.http.overload import ConcurrencyLimit
from testkit.company import Company, Service, event_of, running_service, signed
from testkit.problems import problem
from testkit.service import as_service
from testkit.simulator import Simulator, new_account_key


class Slow:
    """An application that answers when it is told to, and counts who is inside."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.go = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            if Request(scope).url.path.startswith("/slow"):
                await self.go.wait()
            await PlainTextResponse("done")(scope, receive, send)
        finally:
            self.inside -= 1


@asynccontextmanager
async def client_of(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        yield client


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_so_many_at_work_so_many_waiting_and_the_rest_refused() -> None:
    slow = Slow()
    async with client_of(ConcurrencyLimit(slow, most=3, waiting=2)) as client:
        asked = [asyncio.create_task(client.get("/slow")) for _ in range(8)]
        await settle()
        refused = [await task for task in asked if task.done()]
        assert len(refused) == 3
        for answer in refused:
            assert answer.status_code == 503 and answer.json()["code"] == "overloaded"
            assert answer.headers["retry-after"] == "1"
        # What operators ask goes through.
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await client.get(path)).status_code == 200
        slow.go.set()
        answers = await asyncio.gather(*asked)
        assert [answer.status_code for answer in answers].count(200) == 5
        assert (await client.get("/again")).status_code == 200
    assert slow.most <= 4


async def test_nobody_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overload, "LONGEST_WAIT", 0.05)
    slow = Slow()
    gate = ConcurrencyLimit(slow, most=1, waiting=5)
    async with client_of(gate) as client:
        first = asyncio.create_task(client.get("/slow"))
        await settle()
        late = await asyncio.gather(*(client.get("/slow") for _ in range(5)))
        assert {answer.status_code for answer in late} == {503}
        slow.go.set()
        assert (await first).status_code == 200
        assert gate.working == 0 and (await client.get("/fast")).status_code == 200


async def test_places_are_not_lost_by_those_who_go_away() -> None:
    slow = Slow()
    gate = ConcurrencyLimit(slow, most=2, waiting=50)
    async with client_of(gate) as client:
        for turn in range(200):
            asked = [asyncio.create_task(client.get("/slow")) for _ in range(6)]
            await settle()
            slow.go.set()
            for number, task in enumerate(asked):
                if (turn + number) % 3 == 0:
                    task.cancel()
                if turn % 5 == number:
                    await asyncio.sleep(0)
            await asyncio.gather(*asked, return_exceptions=True)
            slow.go.clear()
            assert gate.working == 0, turn
        slow.go.set()
        assert (await client.get("/slow")).status_code == 200
    assert slow.most <= 2


async def test_place_is_given_back_when_the_answer_is_handed_over() -> None:
    """C13: a request whose answer cannot be written yet holds no place."""
    unread = asyncio.Event()
    answered: list[int] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answered.append(message["status"])
            await unread.wait()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    gate = ConcurrencyLimit(PlainTextResponse("done"), most=1, waiting=0)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "state": {}}
    asked = [asyncio.create_task(gate(dict(scope), receive, send)) for _ in range(5)]
    await settle()
    assert answered == [200] * 5 and gate.working == 0
    unread.set()
    await asyncio.gather(*asked)
    assert gate.working == 0


@pytest.fixture(scope="module")
async def busy(stripe_simulator: str, module_database_url: str) -> AsyncIterator[Service]:
    """Two connections to the database, and room for four requests and four more."""
    async with (
        Simulator(stripe_simulator, new_account_key()) as stripe,
        running_service(
            stripe,
            module_database_url,
            DATABASE_POOL_SIZE="2",
            MAX_REQUESTS="4",
            MAX_WAITING_REQUESTS="4",
            MAX_WAITING_DELIVERIES="3",
        ) as running,
    ):
        yield running


@pytest.fixture(scope="module")
async def company(busy: Service) -> Company:
    return await busy.company()


async def test_too_many_at_once(busy: Service, company: Company) -> None:
    async def ask() -> httpx.Response:
        return await busy.get("/v1/customers/me/subscriptions", company.owner.headers)

    answers = await asyncio.gather(*(ask() for _ in range(60)))
    found = [answer.status_code for answer in answers]
    assert found.count(200) >= 8 and found.count(503) == 60 - found.count(200)
    for answer in answers:
        if answer.status_code == 503:
            problem(answer, 503, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
    assert (await ask()).status_code == 200


async def test_a_database_whose_connections_are_all_in_use(busy: Service, company: Company) -> None:
    """503 within the time that a request may wait for a connection, and healthy as soon as there is one."""
    pool = busy.context.database
    started = asyncio.get_running_loop().time()
    async with pool.connection(), pool.reading():
        answers = await asyncio.gather(
            busy.get(company.path, company.owner.headers),
            busy.get("/v1/products"),
            busy.send("PATCH", f"{company.path}/users", as_service("write"), {"remove": ["cus_absent"]}),
        )
        body = _delivery()
        delivered = await busy.client.post("/webhooks/stripe", content=body, headers=signed(body))
    for answer in (*answers, delivered):
        problem(answer, 503, "database_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
    assert asyncio.get_running_loop().time() - started < 15
    assert (await busy.get(company.path, company.owner.headers)).status_code == 200


def _delivery() -> bytes:
    state = {"id": "cus_waiting", "object": "customer", "created": 1, "metadata": {}}
    return json.dumps(event_of("customer.updated", state)).encode()


async def test_deliveries_beyond_the_cap_are_left_to_stripe(busy: Service, company: Company) -> None:
    """None of them is acknowledged and none is lost: Stripe sends a refused one again."""

    async def deliver(body: bytes) -> httpx.Response:
        return await busy.client.post("/webhooks/stripe", content=body, headers=signed(body))

    bodies = [_delivery() for _ in range(20)]
    pool = busy.context.database
    async with pool.connection():
        asked = [asyncio.create_task(deliver(body)) for body in bodies]
        await settle()
    answers = await asyncio.gather(*asked)
    refused = [body for body, answer in zip(bodies, answers, strict=True) if answer.status_code != 200]
    assert len(refused) == 17
    for answer in answers:
        if answer.status_code != 200:
            problem(answer, 503, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
    for body in refused:
        assert (await deliver(body)).status_code == 200
    kept = await busy.fetch("select count(*) as n from webhook_events where object_id = 'cus_waiting'")
    assert kept[0]["n"] == 20


async def test_a_flood_of_probes_costs_one_connection(busy: Service) -> None:
    pool = busy.context.database
    async with pool.connection():
        probes = await asyncio.gather(
            *(busy.get(path) for path in ("/readyz", "/metrics", "/healthz") for _ in range(100))
        )
    assert {answer.status_code for answer in probes} == {200}
