"""The stand-in for Stripe in this process, with every request held before its effect and every answer after it.

The requests are the official SDK's, the effects are the stand-in's own; between the two nothing happens by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from stripe_simulator import browser
from stripe_simulator.errors import ApiError
from stripe_simulator.history import Version
from stripe_simulator.journal import Journal
from stripe_simulator.lifecycle import run_due
from stripe_simulator.server import Api, Engine
from stripe_simulator.world import Transaction, World, Worlds
from testkit.simulator import encode_form
from verification.simulation.held_loop import PROCESS, HeldLoop, Process

Json = dict[str, Any]

EPOCH = 1_790_000_000
"""The second at which the loop's clock would stand at 0."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass(slots=True, eq=False)
class Call:
    """One request of the service. `seen`: the versions that existed as it left; `executed`: those after its effect.

    `late`: its sender has gone, and its effect is still to come. `torn`: the body of its answer was cut off, so its
    sender read nothing.
    """

    number: int
    process: Process
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    key: str | None
    tick: int
    at: float
    seen: int
    reply: asyncio.Future[Answer]
    answer: Answer | None = None
    first_version: int = 0
    executed: int | None = None
    executed_tick: int = 0
    executed_at: float = 0.0
    answered_tick: int | None = None
    late: bool = False
    torn: bool = False

    @property
    def is_write(self) -> bool:
        return self.method != "GET"

    @property
    def gone(self) -> bool:
        return self.reply.done()

    def __str__(self) -> str:
        return f"{self.process.name} {self.method} {self.path}" + (f" [{self.key}]" if self.key else "")


class HeldStripe(httpx.AsyncBaseTransport):
    """One account. `waiting`: not carried out yet; `answered`: carried out, the answer not on its way yet."""

    def __init__(self, loop: HeldLoop, api_key: str, order: Iterator[int], lent: Mapping[Any, int]) -> None:
        self._loop = loop
        self._order = order
        self._lent = lent
        self.engine = Engine(Worlds(Journal(None)))
        self._api = Api(self.engine)
        self._authorization = b"Bearer " + api_key.encode()
        self.world: World = self.engine.worlds.of(api_key)
        self.calls: list[Call] = []
        self.waiting: list[Call] = []
        self.answered: list[Call] = []
        self.late: list[Call] = []
        self.in_transaction: list[str] = []
        """Calls that were made while a connection of the database was lent."""
        self.ticks: list[int] = []
        """Of every version its place in the order of everything."""
        self.versions_at_event: dict[str, int] = {}
        """How many versions there were when an event was made: it tells of none that came later."""
        self._events_taken = self._events_noted = 0
        self.tell_time()

    def tell_time(self) -> None:
        now = EPOCH + self._loop.time()
        run_due(self.world, self.engine.commit, now)
        self.world.clock.freeze(now)
        self._note()

    def _note(self) -> None:
        tick = next(self._order)
        self.ticks += [tick] * (len(self.versions) - len(self.ticks))
        for record in self.world.events[self._events_noted :]:
            self.versions_at_event[record.id] = len(self.versions)
        self._events_noted = len(self.world.events)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        process = PROCESS.get()
        if process is None:
            raise LookupError("only processes of the service call Stripe")
        process.check()
        task = asyncio.current_task()
        if task in self._lent:
            self.in_transaction.append(f"{request.method} {request.url.path}")
        headers = {name.decode(): value.decode() for name, value in request.headers.raw}
        call = Call(
            number=len(self.calls),
            process=process,
            method=request.method,
            path=request.url.raw_path.decode(),
            headers=headers,
            body=await request.aread(),
            key=request.headers.get("idempotency-key"),
            tick=next(self._order),
            at=self._loop.time(),
            seen=len(self.world.versions),
            reply=self._loop.create_future(),
        )
        self.calls.append(call)
        self.waiting.append(call)
        answer = await call.reply
        return httpx.Response(answer.status, headers=answer.headers, content=answer.body)

    def execute(self, call: Call, fault: Json | None = None) -> Answer:
        """Its effect, at this very moment; `fault` is one of the stand-in's own."""
        faults = self.engine.faults_of(self.world)
        if call.late and call.key is not None:
            self.world.in_flight.discard(call.key)
        if fault is not None:
            faults.add(dict(fault))
        call.first_version = len(self.world.versions) + 1
        call.answer = self._ask(call.method, call.path, list(call.headers.items()), call.body)
        faults.clear()
        self._note()
        call.executed, call.executed_tick = len(self.world.versions), next(self._order)
        call.executed_at = self._loop.time()
        return call.answer

    def reply(self, call: Call) -> None:
        if call.answer is not None and not call.reply.done():
            call.answered_tick = next(self._order)
            call.reply.set_result(call.answer)

    def fail(self, call: Call) -> None:
        """The connection breaks; whoever waits learns that much and no more."""
        if not call.reply.done():
            call.reply.set_exception(httpx.ReadError("connection reset"))

    def be_late(self, call: Call, *, in_flight: bool) -> None:
        """Its effect comes later; `in_flight`: Stripe has begun with it, and refuses its key meanwhile."""
        call.late = True
        if in_flight and call.key is not None:
            self.world.in_flight.add(call.key)
        self.late.append(call)

    def dashboard(self, method: str, path: str, fields: Mapping[str, Any] | None = None) -> Json:
        """What somebody does by hand, at once. Raises LookupError where it is refused."""
        form = httpx.QueryParams(encode_form(fields or {}))
        headers = [("x-simulator-actor", "dashboard"), ("content-type", "application/x-www-form-urlencoded")]
        answer = self._ask(method, path, headers, str(form).encode())
        found: Json = orjson.loads(answer.body)
        if answer.status != httpx.codes.OK:
            raise LookupError(f"{method} {path}: {found}")
        self._note()
        return found

    def open_invoices(self) -> list[str]:
        """Those that a payer is asked to pay, oldest first."""
        found = self.world.collection("invoice").objects.items()
        return [
            identifier
            for identifier, invoice in found
            if invoice["status"] == "open" and invoice["_confirmation_secret"] is not None
        ]

    def pay(self, invoice_id: str, card: str) -> str:
        """What the payer does on the page of an invoice; the status of the payment after it."""
        invoice = self.world.get("invoice", invoice_id)
        if invoice is None or invoice["_confirmation_secret"] is None:
            raise LookupError(f"{invoice_id} cannot be paid")
        actor = {"type": "browser", "request": self.world.new_id("req_"), "idempotency_key": None}
        tx = Transaction(self.world, actor)
        try:
            secret = invoice["_confirmation_secret"]["client_secret"]
            status = str(browser.confirm(tx, secret, card, True)["status"])
        except ApiError as failure:
            status = "declined"
            if not failure.commit:
                return status
        self.engine.commit(tx)
        self._note()
        return status

    def _ask(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        sent: list[Json] = []

        async def receive() -> Json:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        bare, _, query = path.partition("?")
        raw = [
            (name.lower().encode(), value.encode())
            for name, value in headers
            if name.lower() != "authorization"
        ]
        scope: Json = {
            "type": "http",
            "method": method,
            "path": bare,
            "raw_path": bare.encode(),
            "query_string": query.encode(),
            "headers": [*raw, (b"authorization", self._authorization)],
        }
        work = self._api(scope, receive, send)
        try:
            work.send(None)
        except StopIteration:
            pass
        else:
            work.close()
            raise AssertionError("the stand-in waited for something")
        return Answer(sent[0]["status"], sent[0]["headers"], sent[1]["body"])

    def new_events(self) -> list[Json]:
        found = [record.event for record in self.world.events[self._events_taken :]]
        self._events_taken = len(self.world.events)
        return found

    @property
    def versions(self) -> list[Version]:
        return self.world.versions
