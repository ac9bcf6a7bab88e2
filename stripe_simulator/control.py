"""The control API under ``/_simulator``: the clock, the truth, the logs, deliveries, faults and bulk data."""

import logging
import re
import time
from collections.abc import Callable
from typing import Any

import orjson
from starlette.types import Message, Receive, Scope, Send

from .browser import confirm
from .call import Call
from .errors import ApiError, invalid, no_such
from .history import Version
from .lifecycle import run_due
from .objects import Obj
from .resources import catalogue, customers, refunds, subscriptions
from .resources.account import new_endpoint
from .server import Engine, api_key, read_body
from .wire import bare, invoice, subscription
from .world import Transaction, World

logger = logging.getLogger("stripe_simulator.control")

BULK_CHUNK = 5_000
LOCAL_ORIGIN = re.compile(r"http://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?")
UNCAPPED = 1_000_000
SETTINGS = {
    "created_lag_s",
    "date_lag_s",
    "lag_jitter",
    "latency_s",
    "search_delay_s",
    "rate_limits",
    "subscription_limits",
    "deliveries",
    "dunning",
    "debit_days",
    "detach_keeps_default",
    "schedule_refuses",
}


class Control:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._actions: dict[tuple[str, str], Callable[[World, Obj], Any]] = {
            ("POST", "clock"): self.move_clock,
            ("GET", "clock"): lambda world, _: {"now": world.clock.now(), **world.clock.state()},
            ("POST", "confirm"): self.confirm,
            ("POST", "disputes"): self.dispute,
            ("GET", "versions"): self.versions,
            ("GET", "requests"): self.requests,
            ("GET", "state"): self.state,
            ("POST", "bulk"): self.bulk,
            ("POST", "with-id"): self.with_id,
            ("POST", "deliveries"): self.set_deliveries,
            ("GET", "deliveries"): lambda world, _: self.engine.deliveries.summary(world),
            ("POST", "deliveries/release"): self.release,
            ("GET", "deliveries/held"): lambda world, _: {"data": self.engine.deliveries.held(world)},
            ("POST", "faults"): self.add_faults,
            ("GET", "faults"): lambda world, _: {"data": [f.dump() for f in engine.faults_of(world).all()]},
            ("DELETE", "faults"): self.clear_faults,
            ("POST", "odd"): self.show_odd,
            ("POST", "settings"): self.change_settings,
            ("GET", "settings"): lambda world, _: world.settings,
            ("POST", "organisation"): self.join,
            ("POST", "reset"): self.reset,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive)
        path = scope["path"].removeprefix("/_simulator/").strip("/")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        send = _for_pages(headers.get("origin"), send)
        if path == "health" or scope["method"] == "OPTIONS":
            await _reply(send, 200, {"status": "ok", "accounts": len(self.engine.worlds.by_key)})
            return
        try:
            world = self.engine.worlds.of(api_key(headers))
            action = self._actions.get((scope["method"], path))
            if action is None:
                raise ApiError(404, f"No such control: {scope['method']} {path}")
            given = _json(body) if body else _query(scope["query_string"].decode())
            status, answer = 200, action(world, given)
        except ApiError as failure:
            status, answer = failure.status, failure.body
        except (KeyError, TypeError, ValueError) as failure:
            logger.exception("%s %s failed", scope["method"], path)
            status, answer = 400, {"error": {"message": repr(failure), "type": "invalid_request_error"}}
        await _reply(send, status, answer)

    def move_clock(self, world: World, given: Obj) -> Obj:
        """``advance`` seconds, ``freeze`` at a moment (or ``true`` for now), or ``unfreeze``."""
        clock = world.clock
        if "freeze" in given:
            clock.freeze(clock.now() if given["freeze"] is True else float(given["freeze"]))
        if given.get("unfreeze"):
            clock.unfreeze()
        steps = 0
        if "advance" in given:
            target = clock.now() + float(given["advance"])
            steps = run_due(world, self.engine.commit, target)
            clock.move_to(max(target, clock.now()))
        world.journal.append({"account": world.api_key, "clock": clock.state()})
        return {"now": clock.now(), "steps": steps, **clock.state()}

    def confirm(self, world: World, given: Obj) -> Obj:
        """Plays the browser: confirms the intent of ``client_secret`` with ``payment_method`` (default a visa card).

        ``authenticate`` (default true) is the cardholder's answer to a 3-D Secure challenge. Gives the intent.
        """
        tx = Transaction(world, {"type": "browser", "request": world.new_id("req_"), "idempotency_key": None})
        try:
            answer = confirm(
                tx, given["client_secret"], given.get("payment_method"), given.get("authenticate", True)
            )
        except ApiError as failure:
            if failure.commit:
                self.engine.commit(tx)
            raise
        self.engine.commit(tx)
        return answer

    def dispute(self, world: World, given: Obj) -> Obj:
        """Plays the payer's bank: opens a dispute of a ``charge`` or ``payment_intent``, or decides a ``dispute``."""
        tx = Transaction(world, {"type": "control", "request": None, "idempotency_key": None})
        answer = refunds.dispute(tx, given)
        self.engine.commit(tx)
        return answer

    def versions(self, world: World, given: Obj) -> Obj:
        """Every state of one ``object``, or of all; ``since`` skips up to a number, ``type`` keeps one kind."""
        since, kind = int(given.get("since", 0)), given.get("type")
        if given.get("object"):
            found = [world.versions[number] for number in world.versions_of.get(given["object"], [])]
        else:
            found = world.versions[since:]
        tx = Transaction(world, {"type": "control"})
        chosen = [v for v in found if v.number > since and (kind is None or v.kind == kind)]
        return {"data": [self._version(tx, version) for version in chosen], "last": len(world.versions)}

    @staticmethod
    def _version(tx: Transaction, version: Version) -> Obj:
        state = version.state
        return {
            "number": version.number,
            "type": version.kind,
            "id": version.id,
            "actor": version.actor,
            "at": version.at,
            "wall": version.wall,
            "state": None if state is None else _whole(tx, state),
        }

    def requests(self, world: World, given: Obj) -> Obj:
        """The request log, oldest first; ``method`` and ``path`` (a prefix) filter it, ``since`` is a real time."""
        since = float(given.get("since", 0.0))
        rows = [
            entry.dump()
            for entry in world.requests
            if entry.started >= since
            and given.get("method") in (None, entry.method)
            and entry.path.startswith(given.get("path", ""))
        ]
        return {"data": rows[-int(given["limit"]) :] if given.get("limit") else rows}

    def state(self, world: World, given: Obj) -> Obj:
        """All present objects of a type as they are, deleted stubs included, oldest first."""
        kind = given["type"]
        if kind == "event":
            return {"data": [record.event for record in world.events], "last": len(world.versions)}
        tx = Transaction(world, {"type": "control"})
        collection = world.collection(kind)
        rows = [
            _whole(tx, obj)
            for identifier in collection.order
            if (obj := collection.objects.get(identifier)) is not None
        ]
        return {"data": rows, "last": len(world.versions)}

    def with_id(self, world: World, given: Obj) -> Obj:
        """Makes a ``customer`` or ``price`` with a chosen ``id``, as accounts have from before 2018; ``params``."""
        tx = Transaction(world, {"type": "control", "request": None, "idempotency_key": None})
        makers = {"customer": customers.create_customer, "price": catalogue.create_price}
        answer = makers[given["kind"]](Call(tx, given.get("params") or {}, [given["id"]]))
        self.engine.commit(tx)
        return answer

    def bulk(self, world: World, given: Obj) -> Obj:
        """Makes many customers, each with a subscription if asked; ``{n}`` in texts is the running number.

        Fields: ``customers`` (how many), ``name``, ``email``, ``metadata``, ``subscription`` (parameters of a create
        without the customer; ``{customer}`` in its metadata), ``start``, ``events`` (default false), ``ids``,
        ``subscriptions`` (ids, dealt out in turn as ``{subscription}`` in texts).
        """
        count, start = int(given.get("customers", 0)), int(given.get("start", 1))
        actor = {"type": "control", "request": None, "idempotency_key": None}
        made: list[str] = []
        subs: list[str] = []
        for first in range(start, start + count, BULK_CHUNK):
            tx = Transaction(world, actor)
            for number in range(first, min(first + BULK_CHUNK, start + count)):
                self._bulk_customer(tx, given, number, made, subs)
            if not given.get("events"):
                tx.events.clear()
            self.engine.commit(tx)
        answer: Obj = {
            "customers": len(made),
            "first": made[0] if made else None,
            "last": made[-1] if made else None,
        }
        if given.get("ids"):
            answer.update(ids=made, subscriptions=subs)
        return answer

    @staticmethod
    def _bulk_customer(tx: Transaction, given: Obj, number: int, made: list[str], subs: list[str]) -> None:
        known = given.get("subscriptions") or [""]

        def filled(text: str | None) -> str | None:
            if text is None:
                return None
            return text.replace("{n}", str(number)).replace("{subscription}", known[number % len(known)])

        identifier = tx.new_id("cus_")
        customer = customers.blank(identifier, tx.now, identifier[-8:].upper())
        customer["name"] = filled(given.get("name", "Customer {n}"))
        customer["email"] = filled(given.get("email", "customer{n}@example.com"))
        customer["metadata"] = {key: filled(value) for key, value in (given.get("metadata") or {}).items()}
        tx.store("customer", customer)
        if given.get("events"):
            tx.emit("customer.created", bare(customer))
        made.append(identifier)
        wanted = given.get("subscription")
        if wanted:
            meta = {
                key: value.replace("{customer}", identifier).replace("{n}", str(number))
                for key, value in (wanted.get("metadata") or {}).items()
            }
            shown = subscriptions.create_subscription(
                Call(tx, {**wanted, "customer": identifier, "metadata": meta}, [])
            )
            subs.append(shown["id"])

    def set_deliveries(self, world: World, given: Obj) -> Obj:
        """Replaces the named knobs: ``delay_s``, ``duplicate``, ``reorder``, ``drop`` and ``hold``."""
        known = {"delay_s", "duplicate", "reorder", "drop", "hold"}
        if set(given) - known:
            raise invalid(f"Unknown delivery knob; known: {', '.join(sorted(known))}")
        policy = {**(world.settings.get("deliveries") or {}), **given}
        self._save_settings(world, {**world.settings, "deliveries": policy})
        return {**policy, **self.engine.deliveries.summary(world)}

    def release(self, world: World, given: Obj) -> Obj:
        return {"released": self.engine.deliveries.release(world, given)}

    def change_settings(self, world: World, given: Obj) -> Obj:
        strange = set(given) - SETTINGS
        if strange:
            raise invalid(f"Unknown setting: {min(strange)}; known: {', '.join(sorted(SETTINGS))}")
        self._save_settings(world, {**world.settings, **given})
        return world.settings

    @staticmethod
    def _save_settings(world: World, settings: Obj) -> None:
        world.settings = settings
        world.journal.append({"account": world.api_key, "settings": settings})

    def join(self, world: World, given: Obj) -> Obj:
        """Makes one organisation of this account and the ``accounts`` of other keys, with an endpoint for all of them.

        ``url`` and ``secret`` are the endpoint's; ``enabled_events`` (default ``["*"]``). Each event that it gets names
        its account as ``context``.
        """
        worlds = [world, *(self.engine.worlds.of(key) for key in given.get("accounts", ()))]
        for member in worlds:
            tx = Transaction(member, {"type": "control", "request": None, "idempotency_key": None})
            endpoint = new_endpoint(tx, given["url"], given.get("enabled_events", ["*"]), given["secret"])
            tx.store("webhook_endpoint", {**endpoint, "_organisation": True})
            self.engine.commit(tx)
        return {"accounts": [member.account_id for member in worlds]}

    def add_faults(self, world: World, given: Obj) -> Obj:
        rows = given.get("faults", [given])
        return {"data": [self.engine.faults_of(world).add(row).dump() for row in rows]}

    def clear_faults(self, world: World, given: Obj) -> Obj:
        identifier = int(given["id"]) if given.get("id") else None
        return {"cleared": self.engine.faults_of(world).clear(identifier)}

    def show_odd(self, world: World, given: Obj) -> Obj:
        """Shows ``fields`` of ``object`` in every answer, as no call could set them, until faults are cleared."""
        self.engine.faults_of(world).show_odd(given["object"], given.get("fields") or {})
        return {"object": given["object"]}

    def reset(self, world: World, given: Obj) -> Obj:
        self.engine.deliveries.forget(world)
        self.engine.faults_of(world).clear()
        world.reset()
        world.settings = {}
        world.journal.append({"account": world.api_key, "reset": True})
        return {"reset": True, "at": time.time()}


def _whole(tx: Transaction, state: Obj) -> Obj:
    if state.get("object") == "subscription":
        return subscription(tx, state, UNCAPPED)
    if state.get("object") == "invoice":
        return invoice(tx, state, UNCAPPED)
    return bare(state)


def _json(body: bytes) -> Obj:
    given = orjson.loads(body)
    if not isinstance(given, dict):
        raise no_such("control", "body", "body", 400)
    return given


def _query(encoded: str) -> Obj:
    from .forms import decode

    return decode(encoded)


def _for_pages(origin: str | None, send: Send) -> Send:
    """Lets pages of this machine read the answers, whatever their port: an application in development."""
    if origin is None or not LOCAL_ORIGIN.fullmatch(origin):
        return send
    allowed = [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-allow-headers", b"authorization, content-type"),
        (b"access-control-allow-methods", b"GET, POST, DELETE"),
        (b"vary", b"Origin"),
    ]

    async def allowing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *allowed]}
        await send(message)

    return allowing


async def _reply(send: Send, status: int, answer: Any) -> None:
    body = orjson.dumps(answer)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
