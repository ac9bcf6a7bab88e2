"""The API over HTTP: authentication, idempotency, faults, transactions and answers."""

import asyncio
import base64
import binascii
import hashlib
import logging
import time
from collections import deque
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote

import orjson
from starlette.types import Receive, Scope, Send

from . import API_VERSION, forms, request_parameters, routes
from .call import Call
from .delivery import Deliveries
from .errors import ApiError, invalid
from .faults import Fault, Faults, error_of, rate_limited
from .objects import Obj
from .wire import expand
from .world import RequestEntry, Stored, Transaction, World, Worlds

logger = logging.getLogger("stripe_simulator.server")

KEY_PREFIX = "sk_test_"
MAX_BODY_BYTES = 1_000_000
MAX_KEY_LENGTH = 255


@dataclass(slots=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]


@dataclass(slots=True)
class Request:
    """One API request after its credentials were accepted."""

    world: World
    method: str
    path: str
    encoded: str
    key: str | None
    actor: Obj
    id: str
    version: str


class Engine:
    """Everything that outlives a request."""

    def __init__(self, worlds: Worlds) -> None:
        self.worlds = worlds
        self.deliveries = Deliveries(worlds)
        self.faults: dict[str, Faults] = {}
        self.rates: dict[tuple[str, str], deque[float]] = {}
        self.background: set[asyncio.Task[Any]] = set()

    def faults_of(self, world: World) -> Faults:
        return self.faults.setdefault(world.api_key, Faults())

    def commit(self, tx: Transaction, key: Obj | None = None) -> None:
        records = tx.commit(key)
        if records and self.deliveries.running:
            self.deliveries.enqueue(tx.world, records)
        for action in tx.after_commit:
            action()

    def limited(self, world: World, method: str, template: str) -> str | None:
        """Which of the account's rate limits this request exceeds, over sliding windows of one real second."""
        limits = world.settings.get("rate_limits")
        if not limits:
            return None
        now = time.monotonic()
        reason = None
        for name, place in (("endpoint_per_s", f"{method} {template}"), ("account_per_s", "")):
            limit = limits.get(name)
            if not limit:
                continue
            window = self.rates.setdefault((world.api_key, place), deque())
            while window and now - window[0] >= 1.0:
                window.popleft()
            if len(window) >= limit:
                reason = "endpoint-rate" if place else "global-rate"
                break
            window.append(now)
        return reason

    def execute(self, request: Request, entry: RequestEntry, *, remember: bool = True) -> Answer:
        """Runs the handler in a transaction; the answer is stored under the idempotency key with the effect."""
        world = request.world
        tx = Transaction(world, request.actor)
        fingerprint = _fingerprint(request)
        try:
            result, status = self._handle(request, tx, entry), 200
        except ApiError as failure:
            answer = _failed(failure)
            key = None
            if remember and failure.stored and request.key and request.method == "POST":
                key = _key_record(request, fingerprint, answer)
            if failure.commit:
                self._commit_logged(tx, entry, key)
            elif key is not None:
                self._commit_logged(Transaction(world, request.actor), entry, key)
            return answer
        answer = Answer(status, orjson.dumps(result), {})
        key = None
        if remember and request.key and request.method == "POST":
            key = _key_record(request, fingerprint, answer)
        self._commit_logged(tx, entry, key)
        return answer

    def _commit_logged(self, tx: Transaction, entry: RequestEntry, key: Obj | None) -> None:
        before = len(tx.world.versions)
        self.commit(tx, key)
        if len(tx.world.versions) > before:
            entry.first_version, entry.last_version = before + 1, len(tx.world.versions)

    def _handle(self, request: Request, tx: Transaction, entry: RequestEntry) -> Obj:
        found = routes.find(request.method, request.path)
        if found is None:
            raise ApiError(
                404,
                f"Unrecognized request URL ({request.method}: {request.path}). Please see https://stripe.com/docs "
                "or we can help at https://support.stripe.com/.",
                stored=False,
            )
        route, ids = found
        given = entry.params
        params = request_parameters.check(route.params, given) if route.params else given
        paths = params.pop("expand", None) if route.params else given.get("expand")
        call = Call(tx, params, ids)
        answer = route.handler(call)
        if paths:
            answer = expand(call.lookup or tx, answer, paths)
        return self.faults_of(request.world).shown(answer)


def _key_record(request: Request, fingerprint: str, answer: Answer) -> Obj:
    return {
        "key": request.key,
        "fingerprint": fingerprint,
        "status": answer.status,
        "body": answer.body.decode(),
        "request_id": request.id,
    }


def _path(scope: Scope) -> str:
    """The path decoded segment by segment: a ``/`` or ``%`` inside of an id stays encoded."""
    parts = [unquote(part) for part in scope["raw_path"].decode("latin-1").split("/")]
    return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)


def _failed(failure: ApiError) -> Answer:
    return Answer(failure.status, orjson.dumps(failure.body), dict(failure.headers))


def _fingerprint(request: Request) -> str:
    text = f"{request.method} {request.path}\n" + "&".join(sorted(request.encoded.split("&")))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Api:
    """The ASGI application behind ``/v1``."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        body = await read_body(receive)
        method, path = scope["method"], _path(scope)
        version = headers.get("stripe-version", API_VERSION)
        try:
            world = self.engine.worlds.of(api_key(headers))
            if body is None:
                raise ApiError(413, "Request body too large.", stored=False)
        except ApiError as failure:
            request_id = "req_" + hashlib.blake2b(str(time.time_ns()).encode(), digest_size=7).hexdigest()
            await _send(send, _failed(failure), request_id, time.time(), version)
            return
        query = scope["query_string"].decode("latin-1")
        encoded = body.decode("utf-8", "replace") if method == "POST" else query
        if method == "DELETE" and body:
            encoded = body.decode("utf-8", "replace")
        request = _request(world, method, path, encoded, headers, version)
        await self._serve(request, receive, send)

    async def _serve(self, request: Request, receive: Receive, send: Send) -> None:
        engine, world = self.engine, request.world
        entry = RequestEntry(
            request.id, request.method, request.path, {}, request.key, request.actor["type"], time.time()
        )
        world.requests.append(entry)
        fault: Fault | None = None
        try:
            entry.params = forms.decode(request.encoded)
            found = routes.find(request.method, request.path)
            template, ids = (found[0].template, found[1]) if found else (request.path, [])
            reason = engine.limited(world, request.method, template)
            if reason is not None:
                raise rate_limited(reason)
            replayed = self._replay(request, entry)
            if replayed is not None:
                answer = replayed
            else:
                customer = entry.params.get("customer")
                fault = engine.faults_of(world).take(world, request.method, template, ids, customer)
                answer = await self._perform(request, entry, fault, receive)
        except ApiError as failure:
            answer = _failed(failure)
        except _NeverAnswered:
            await _drop(receive)
            return
        except Exception:
            logger.exception("%s %s failed", request.method, request.path)
            answer = _failed(
                ApiError(500, "The simulator failed; its log tells how.", kind="api_error", stored=False)
            )
        entry.status, entry.ended = answer.status, time.time()
        lag = float(world.settings.get("date_lag_s") or 0.0)
        if lag and world.settings.get("lag_jitter", True):
            lag = world.random.uniform(0.0, lag)
        if request.key is not None:
            answer.headers["Idempotency-Key"] = request.key
        cut = fault is not None and fault.truncate
        if fault is not None and fault.proxy and fault.status is not None:
            await _send_page(send, fault.status)
            return
        await _send(send, answer, request.id, world.clock.now() - lag, request.version, cut=cut)
        if cut:
            await _drop(receive)

    def _replay(self, request: Request, entry: RequestEntry) -> Answer | None:
        """The stored first answer of the request's key. Raises 400 for other parameters, 409 while it is in flight."""
        key = request.key
        if key is None or request.method != "POST":
            return None
        if len(key) > MAX_KEY_LENGTH:
            raise invalid(f"Idempotency keys can have up to {MAX_KEY_LENGTH} characters.")
        stored: Stored | None = request.world.remembered(key)
        if stored is not None:
            if stored.fingerprint != _fingerprint(request):
                raise ApiError(
                    400,
                    "Keys for idempotent requests can only be used with the same parameters they were first used with. "
                    f"Try using a key other than '{key}' if you meant to execute a different request.",
                    kind="idempotency_error",
                    stored=False,
                )
            entry.replayed = True
            headers = {"Idempotent-Replayed": "true", "Original-Request": stored.request_id}
            return Answer(stored.status, stored.body, headers)
        if key in request.world.in_flight:
            raise ApiError(
                409,
                "There is currently another in-progress request using this Idempotent Key (that probably means you "
                f"submitted twice, and the other request is still going through): {key}. Please try again later.",
                kind="idempotency_error",
                code="idempotency_key_in_use",
                stored=False,
                headers={"Stripe-Should-Retry": "true"},
            )
        return None

    async def _perform(
        self, request: Request, entry: RequestEntry, fault: Fault | None, receive: Receive
    ) -> Answer:
        world = request.world
        latency = float(world.settings.get("latency_s") or 0.0)
        if fault is None and not latency:
            return self.engine.execute(request, entry)
        if fault is None:
            # Half before and half after, so that answers are overtaken as they are on a real network.
            half = latency * world.random.uniform(0.5, 1.5) / 2
            fault = Fault(latency_s=half, answer_s=half)
        flight = world.in_flight
        held = request.key if request.method == "POST" else None
        if held is not None:
            flight.add(held)
        late = False
        try:
            if fault.latency_s:
                await asyncio.sleep(fault.latency_s)
            if fault.late_s is not None and fault.status is not None:
                self._behind_an_answer(request, entry, fault)
                return _failed(error_of(fault))
            if fault.late_s is not None:
                late = True
                self._later(request, entry, fault, receive, held)
                await _gone(receive, 3600.0)
                raise _NeverAnswered
            answer = await self._with_fault(request, entry, fault, receive)
        finally:
            if held is not None and not late:
                flight.discard(held)
        if fault.answer_s:
            await asyncio.sleep(fault.answer_s)
        return answer

    def _later(
        self, request: Request, entry: RequestEntry, fault: Fault, receive: Receive, held: str | None
    ) -> None:
        """Executes once the client has gone and ``late_s`` more seconds have passed."""

        async def run() -> None:
            try:
                await asyncio.sleep(fault.late_s or 0.0)
                answer = self.engine.execute(request, entry)
                entry.status, entry.ended = answer.status, time.time()
            finally:
                if held is not None:
                    request.world.in_flight.discard(held)

        async def wait() -> None:
            await _gone(receive, 3600.0)
            await run()

        task = asyncio.get_running_loop().create_task(run() if fault.effect == "after" else wait())
        self.engine.background.add(task)
        task.add_done_callback(self.engine.background.discard)

    def _behind_an_answer(self, request: Request, entry: RequestEntry, fault: Fault) -> None:
        """Executes ``late_s`` seconds after the error was answered, as behind a proxy that gave up waiting.

        Nothing is stored under the key, unless the fault saves the late answer. If the key has an answer by then, the
        late request is its repetition and does nothing.
        """

        async def run() -> None:
            await asyncio.sleep(fault.late_s or 0.0)
            if request.method == "POST" and request.key and request.world.remembered(request.key):
                return
            self.engine.execute(request, entry, remember=fault.save)

        task = asyncio.get_running_loop().create_task(run())
        self.engine.background.add(task)
        task.add_done_callback(self.engine.background.discard)

    async def _with_fault(
        self, request: Request, entry: RequestEntry, fault: Fault, receive: Receive
    ) -> Answer:
        engine = self.engine
        wrong = fault.status is not None or fault.timeout is not None
        if not wrong:
            return engine.execute(request, entry)
        failure = error_of(fault)
        saves = fault.status is not None and fault.save and bool(request.key) and request.method == "POST"
        if fault.effect == "after":
            # A saved error takes the place of the answer that the key would have remembered.
            answer = engine.execute(request, entry, remember=fault.timeout is not None)
            if fault.timeout is None and answer.status >= 400:
                return answer
        if fault.timeout is not None:
            await _gone(receive, float(fault.timeout))
            entry.ended = time.time()
            raise _NeverAnswered
        answer = _failed(failure)
        if saves:
            engine.commit(
                Transaction(request.world, request.actor), _key_record(request, _fingerprint(request), answer)
            )
        return answer


class _NeverAnswered(Exception):
    """The client gets no answer; the connection is dropped."""


async def _drop(receive: Receive) -> None:
    """Closes the connection with the answer missing or unfinished; what was written still leaves.

    ASGI has no word for it, so this reaches for the transport of uvicorn's request.
    """
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is not None:
        transport.close()
        await _gone(receive, 1.0)


async def _gone(receive: Receive, seconds: float) -> None:
    """Waits until the client has disconnected, at most ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return


def _request(
    world: World, method: str, path: str, encoded: str, headers: dict[str, str], version: str
) -> Request:
    request_id = world.new_id("req_")
    key = headers.get("idempotency-key")
    dashboard = headers.get("x-simulator-actor") == "dashboard"
    actor = {
        "type": "dashboard" if dashboard else "api",
        "request": request_id,
        "idempotency_key": None if dashboard else key,
    }
    return Request(world, method, path, encoded, key, actor, request_id, version)


def api_key(headers: dict[str, str]) -> str:
    """The secret key of a Bearer or Basic credential. Raises 401 for anything else."""
    scheme, _, credential = headers.get("authorization", "").partition(" ")
    credential = credential.strip()
    if scheme.lower() == "basic":
        try:
            credential = base64.b64decode(credential).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            credential = ""
    if not credential:
        raise ApiError(
            401,
            "You did not provide an API key. You need to provide your API key in the Authorization header, using "
            "Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
            stored=False,
            headers={"WWW-Authenticate": 'Basic realm="Stripe"'},
        )
    if not credential.startswith(KEY_PREFIX) or len(credential) == len(KEY_PREFIX):
        shown = credential[:8] + "*" * max(0, len(credential) - 12) + credential[-4:]
        raise ApiError(401, f"Invalid API Key provided: {shown}", stored=False)
    return credential


async def read_body(receive: Receive) -> bytes | None:
    """The whole body, or None when it is larger than any request of Stripe's API."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return body
    chunks = [body]
    size = len(body)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"".join(chunks)
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > MAX_BODY_BYTES:
            return None
        if not message.get("more_body"):
            return b"".join(chunks)


async def _send_page(send: Send, status: int) -> None:
    page = f"<html><head><title>{status}</title></head><body><center>{status}</center></body></html>".encode()
    headers = [(b"content-type", b"text/html"), (b"content-length", str(len(page)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": page})


async def _send(
    send: Send,
    answer: Answer,
    request_id: str,
    moment: float,
    version: str,
    *,
    cut: bool = False,
) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(answer.body)).encode()),
        (b"date", formatdate(moment, usegmt=True).encode()),
        (b"request-id", request_id.encode()),
        (b"stripe-version", version.encode()),
    ]
    headers += [
        (name.lower().encode(), value.encode("latin-1", "replace")) for name, value in answer.headers.items()
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if cut:
        await send(
            {"type": "http.response.body", "body": answer.body[: len(answer.body) // 2], "more_body": True}
        )
        return
    await send({"type": "http.response.body", "body": answer.body})
