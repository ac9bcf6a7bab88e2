"""One schedule: a seed decides, whenever everybody waits, which one thing happens next; then the faults end.

Held are: every statement of every process, every request to Stripe before its effect and its answer after it, every
webhook, every late execution. What is not chosen waits, and the clock stands still until it is told to go on.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from testkit.event_fold import event_mismatches
from testkit.memberships import MISMATCHES
from verification.simulation.actors import Actors, Wish
from verification.simulation.held_database import Change, Gate, Turn
from verification.simulation.held_loop import Killed, held_loop
from verification.simulation.held_stripe import Answer, Call, Json
from verification.simulation.inviting import Inviting
from verification.simulation.world import (
    API_NAMES,
    DAY_SECONDS,
    WORKER_NAMES,
    Asked,
    Parts,
    World,
    is_inviting,
)

FAULT_SHARE = 0.95
"""Of the schedules; the others show that the calm is judged right as well."""
LONG_PAUSE_SHARE = 0.05
LONG_PAUSE_SECONDS = (22.9 * 3600, 25.0 * 3600)
LATE_SECONDS = 300.0
PROXY_SHARE = 0.3
"""Of the faults of writes."""
RATES = "/rates/"
"""In the name of a seed: many writes are answered 429, as when an account is at its limit."""
RATE_SHARE, RATE_FAULTS = 0.6, 0.35
PROXY_ANSWER = Answer(504, [(b"content-type", b"text/html")], b"<html>504 Gateway Time-out</html>")
FEWEST_STEPS, MOST_STEPS = 30, 400
"""While faults last, statements not counted."""
MOST_DECISIONS = 6_000
REST_SECONDS = 3_600.0
LOOK_SECONDS = 0.2
"""As often as a worker looks for what is due."""

_DUE = """
    select extract(epoch from least(
        (select min(greatest(not_before, coalesce(lease_until, not_before))) from refreshes
            where notifications > 0 and dead_at is null),
        (select min(lease_until) from operations where settled_at is null)))::float8 as due,
        (select count(*) from operations where settled_at is null) as unsettled
    where $1"""


@dataclass(slots=True, eq=False)
class Delivery:
    """One copy of an event; `tick`: when the service had answered 2xx, so that it was committed."""

    event: Json
    task: Any = None
    tick: int | None = None


@dataclass(slots=True)
class Temper:
    """What a seed is like: how readily each sort of thing goes on, and how often it goes wrong."""

    fault: float
    answer: float
    webhook: float
    look: float
    time: float
    kill: float
    requests: int
    edits: int
    rate: float = 0.0
    """The share of a write's faults that are answered 429."""
    long_pause: bool = False
    """Does about a day pass at once, so that keys are forgotten?"""

    @classmethod
    def some(cls, rng: random.Random) -> Temper:
        faulty = rng.random() < FAULT_SHARE
        return cls(
            fault=rng.choice((0.12, 0.2, 0.35)) if faulty else 0.0,
            answer=rng.choice((0.5, 2.0, 6.0)),
            webhook=rng.choice((0.1, 0.5, 2.0)),
            look=rng.choice((0.1, 0.4)),
            time=rng.choice((0.2, 0.6, 1.5)),
            kill=rng.choice((0.0, 0.01, 0.03)) if faulty else 0.0,
            requests=rng.randint(7, 13),
            edits=rng.choice((0, 0, 2, 5, 8)),
        )


@dataclass(slots=True)
class Record:
    """All that happened, for whoever judges it."""

    seed: str
    world: World
    asked: list[Asked]
    changes: list[Change]
    deliveries: list[Delivery]
    decisions: list[str]
    faults: int
    statements: int
    calm_at: float
    """When the faults ended."""
    calm_tick: int
    rested: bool
    errors: list[str]
    initial: frozenset[str]
    """Objects that were cached before it began."""
    settled_after: float = 0.0
    """Seconds from then until no operation was open."""
    ended_at: float = 0.0
    """When the schedule was over."""

    @property
    def actors(self) -> int:
        """Different clients, and whoever edits by hand."""
        by_hand = any(text.startswith("by hand") for text in self.decisions)
        return len({asked.who for asked in self.asked}) + by_hand

    @property
    def steps(self) -> int:
        """Decisions that are not about the order of two statements."""
        return sum(not text.startswith("sql ") for text in self.decisions)

    def digest(self) -> str:
        """Of the decisions and of the stand-in's log."""
        found = hashlib.sha256("\n".join(self.decisions).encode())
        for version in self.world.stripe.versions:
            entry = (version.number, version.kind, version.id, version.actor, version.at, version.state)
            found.update(orjson.dumps(entry))
        for request in self.world.stripe.world.requests:
            found.update(
                orjson.dumps(
                    (
                        request.id,
                        request.method,
                        request.path,
                        request.params,
                        request.status,
                        request.replayed,
                    )
                )
            )
        return found.hexdigest()


class Schedule:
    def __init__(self, parts: Parts, gate: Gate, seed: str, order: Iterator[int]) -> None:
        self.rng = random.Random(seed)
        self.seed = seed
        self.gate = gate
        self.loop = held_loop()
        self.order = order
        self.world = World(parts, gate, seed, self.rng, order)
        self.stripe = self.world.stripe
        self.temper = Temper.some(self.rng)
        self.proxy = random.Random(f"{seed} proxy")
        """Draws of its own, so that the schedules of before stay as they were but for what a proxy answers."""
        if RATES in seed:
            self.temper.rate, self.temper.fault = RATE_SHARE, RATE_FAULTS
        self.temper.long_pause = random.Random(f"{seed} long pause").random() < LONG_PAUSE_SHARE
        self.actors = Actors(self.world, self.rng)
        self.inviting = Inviting(self.world, seed) if is_inviting(seed) else None
        self.decisions: list[str] = []
        self.asked: list[Asked] = []
        self.events: list[Delivery] = []
        self.deliveries: list[Delivery] = []
        self.errors: list[str] = []
        self.restarts: list[tuple[float, str]] = []
        self.awaiting: dict[str, None] = {}
        """The operations whose purchase waits for its payment, as committed."""
        self._noticed = 0
        self.faults = 0
        self.steps = 0
        self.requests_left, self.edits_left = self.temper.requests, self.temper.edits
        self.calm = False
        self.calm_at, self.calm_tick = 0.0, 0
        self.settled_at: float | None = None
        self._next_look = 0.0
        self._cleaning: asyncio.Task[int] | None = None
        self._ending: asyncio.Task[int] | None = None
        self.loop.set_exception_handler(self._went_wrong)

    def _went_wrong(self, _: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Killed):
            self.errors.append(f"{context.get('message')}: {error!r}")

    async def run(self) -> Record:
        await self.world.fill()
        self.world.start_all()
        is_looked_at = False
        while True:
            # Whoever got a lock meanwhile goes on before anything is decided, however slow the machine is.
            quiet = await self.loop.quiet()
            if quiet == "stalled" or (self.gate.anything_blocked and not is_looked_at):
                is_changed = await self.gate.look_for_locks()
                # A look while a statement is under way may be older than the end of that statement.
                is_looked_at = quiet == "idle" and not is_changed
                continue
            is_looked_at = False
            self._take_notice()
            if len(self.decisions) > MOST_DECISIONS:
                self.errors.append("it does not end")
                break
            if not self.calm and self._is_over():
                self._calm_down()
            if not self.calm:
                await self._choose()
            elif not await self._rest():
                break
        rested = self.settled_at is not None and len(self.decisions) <= MOST_DECISIONS
        for process in self.world.started:
            await self.gate.kill(process)
        for one in await self.gate.ask(f"select * from ({MISMATCHES}) found where $1", True):
            self.errors.append(f"memberships: {one['problem']} {one['row']}")
        await self.world.announce()
        self.errors += await event_mismatches(self.gate.ask, self.world.known)
        return Record(
            seed=self.seed,
            world=self.world,
            asked=self.asked,
            changes=list(self.gate.changes),
            deliveries=self.deliveries,
            decisions=self.decisions,
            faults=self.faults,
            statements=self.gate.statements,
            calm_at=self.calm_at,
            calm_tick=self.calm_tick,
            rested=rested,
            errors=self.errors,
            initial=frozenset(version.id for version in self.stripe.versions[: self.world.first_version]),
            settled_after=(self.settled_at or self.loop.time()) - self.calm_at,
            ended_at=self.loop.time(),
        )

    def _say(self, text: str) -> None:
        self.decisions.append(text)

    def _take_notice(self) -> None:
        """Of answers that clients and Stripe have got, and of what Stripe has to tell."""
        for asked in self.asked:
            if asked.task is not None and asked.task.done():
                task, asked.task = asked.task, None
                if task.cancelled() or isinstance(task.exception(), Killed):
                    continue
                if task.exception() is not None:
                    self.errors.append(f"{asked.method} {asked.path}: {task.exception()!r}")
                    continue
                asked.reply, asked.reply_tick = task.result(), next(self.order)
                self._say(f"    {asked.number} answered {asked.reply.status}")
        for delivery in self.deliveries:
            if delivery.task is not None and delivery.task.done():
                task, delivery.task = delivery.task, None
                lost = task.cancelled() or task.exception() is not None or task.result().status != 200
                if lost:
                    self.events.append(Delivery(delivery.event))
                else:
                    delivery.tick = next(self.order)
        self._note_waiting()
        for event in self.stripe.new_events():
            for _ in range(2 if self.temper.fault and self.rng.random() < 0.1 else 1):
                self.events.append(Delivery(event))

    def _note_waiting(self) -> None:
        for change in self.gate.changes[self._noticed :]:
            if change.table == "operation_steps":
                operation_id = change.row["operation_id"]
                if change.row["state"] == "awaiting_payment":
                    self.awaiting[operation_id] = None
                elif change.row["invoice_id"] is not None:
                    self.awaiting.pop(operation_id, None)
        if self.inviting is not None:
            self.inviting.take_notice(self.gate.changes[self._noticed :])
        self._noticed = len(self.gate.changes)

    def _is_over(self) -> bool:
        return self.steps > MOST_STEPS or (
            (self.steps >= FEWEST_STEPS)
            and not (
                self.requests_left
                or self.edits_left
                or (self.inviting is not None and self.inviting.left)
                or any(asked.task is not None for asked in self.asked)
            )
        )

    # ---------------------------------------------------------------------------------------- while it lasts

    async def _choose(self) -> None:
        rng, temper, stripe = self.rng, self.temper, self.stripe
        options: list[tuple[float, Callable[[], Any]]] = []
        if self.gate.waiting:
            options.append((12.0, self._statement))
        if stripe.waiting:
            options.append((1.0 + len(stripe.waiting), self._call))
        if stripe.answered:
            options.append((temper.answer * len(stripe.answered), self._answer))
        if stripe.late:
            options.append((0.3, self._late))
        if self.events:
            options.append((temper.webhook * min(3, len(self.events)), self._webhook))
        under_way = sum(asked.task is not None for asked in self.asked)
        if self.requests_left and under_way < 5:
            options.append((1.5 / (1 + under_way), self._request))
        if self.edits_left:
            options.append((0.15, self._edit))
        options += self._about_payments()
        options += self._about_invitations(under_way)
        options.append((temper.look, self._look))
        options.append((temper.kill, self._kill))
        if not self.gate.waiting and not self.gate.sent:
            options.append((temper.time, self._time))
        if self.restarts and self.restarts[0][0] <= self.loop.time():
            options.append((3.0, self._restart))
        chosen = rng.choices([option for _, option in options], [weight for weight, _ in options])[0]
        if chosen != self._statement:
            self.steps += 1
        await chosen()

    def _about_payments(self) -> list[tuple[float, Callable[[], Any]]]:
        found: list[tuple[float, Callable[[], Any]]] = []
        if self.world.is_paying and self.stripe.open_invoices():
            # Readily while the service is about to void one.
            is_voided = any(call.path.endswith("/void") for call in self.stripe.waiting)
            found.append((2.0 if is_voided else 0.3, self._payer))
        if self.awaiting:
            found.append((0.2, self._abandon))
        return found

    def _about_invitations(self, under_way: int) -> list[tuple[float, Callable[[], Any]]]:
        if self.inviting is None:
            return []
        found: list[tuple[float, Callable[[], Any]]] = [(0.15, self._end_invitations)]
        if self.inviting.left and under_way < 5:
            found.append((2.0 / (1 + under_way), self._about_an_invitation))
        return found

    async def _statement(self) -> None:
        turns = self.gate.eligible()
        turn: Turn = turns[0] if len(turns) == 1 else self.rng.choice(turns)
        self._say(f"sql {turn}")
        await self.gate.release(turn)

    async def _call(self) -> None:
        """Something becomes of a request: its effect, no effect, or none yet."""
        calls = sorted(self.stripe.waiting, key=str)
        call = self.rng.choice(calls)
        if self.rng.random() < self.temper.fault:
            self.faults += 1
            self._fault(call)
            return
        self.stripe.waiting.remove(call)
        if call.gone and self.rng.random() < 0.3:
            self._say(f"lost {call}")
            return
        self._execute(call)
        if self.rng.random() < 0.5:
            self.stripe.reply(call)
        elif not call.gone:
            self.stripe.answered.append(call)

    def _execute(self, call: Call, fault: Json | None = None) -> Answer:
        answer = self.stripe.execute(call, fault)
        self._say(f"stripe {call}: {answer.status}" + (f" by {fault}" if fault else ""))
        return answer

    def _fault(self, call: Call) -> None:
        rng, stripe = self.rng, self.stripe
        stripe.waiting.remove(call)
        if call.is_write and self.temper.rate and self.proxy.random() < self.temper.rate:
            self._execute(call, {"status": 429})
            stripe.reply(call)
            return
        if call.is_write and self.proxy.random() < PROXY_SHARE:
            # A proxy in front of Stripe gives up; the request behind it runs on.
            in_flight = self.proxy.random() < 0.3
            self._say(f"504 late{' in flight' if in_flight else ''} {call}")
            stripe.be_late(call, in_flight=in_flight)
            call.answer = PROXY_ANSWER
            stripe.reply(call)
            return
        kind = rng.choice(
            (
                "429",
                "lock",
                "500",
                "500 saved",
                "500 after",
                "reset",
                "reset after",
                "hang",
                "hang after",
                "late",
                "late",
                "late in flight",
                "torn",
            )
        )
        match kind:
            case "429" | "lock" | "500" | "500 saved" | "500 after":
                fault: Json = {"status": 429 if kind in ("429", "lock") else 500}
                if kind == "lock":
                    fault["code"] = "lock_timeout"
                fault |= {"save": kind in ("500 saved", "500 after")} if fault["status"] == 500 else {}
                if kind == "500 after":
                    fault["effect"] = "after"
                self._execute(call, fault)
                stripe.reply(call)
            case "reset" | "reset after":
                if kind == "reset after":
                    self._execute(call)
                self._say(f"{kind} {call}")
                stripe.fail(call)
            case "hang" | "hang after":
                if kind == "hang after":
                    self._execute(call)
                self._say(f"{kind} {call}")
            case "torn":
                answer = self._execute(call)
                call.answer = Answer(answer.status, answer.headers, answer.body[: len(answer.body) // 2])
                call.torn = True
                self._say(f"torn {call}")
                stripe.reply(call)
            case _:
                self._say(f"{kind} {call}")
                stripe.be_late(call, in_flight=kind == "late in flight")
                if rng.random() < 0.5:
                    stripe.fail(call)

    async def _answer(self) -> None:
        call = self.rng.choice(sorted(self.stripe.answered, key=str))
        self.stripe.answered.remove(call)
        self._say(f"answer {call}")
        self.stripe.reply(call)

    async def _late(self) -> None:
        call = self.rng.choice(self.stripe.late)
        self.stripe.late.remove(call)
        self._execute(call)

    async def _webhook(self) -> None:
        delivery = self.events.pop(0 if self.rng.random() < 0.4 else self.rng.randrange(len(self.events)))
        if self.temper.fault and self.rng.random() < 0.08:
            self.faults += 1
            self._say(f"not delivered {delivery.event['id']}")
            self.events.append(delivery)
            return
        self._deliver(delivery)

    def _deliver(self, delivery: Delivery) -> None:
        alive = [name for name in API_NAMES if self.world.processes[name].alive]
        if not alive:
            self.events.append(delivery)
            return
        name = self.rng.choice(alive)
        self._say(f"webhook {name} {delivery.event['type']} {delivery.event['id']}")
        self.deliveries.append(delivery)
        delivery.task = self.world.deliver(name, delivery.event)

    async def _request(self) -> None:
        alive = [name for name in API_NAMES if self.world.processes[name].alive]
        if not alive:
            return
        name = self.rng.choice(alive)
        again = [asked for asked in self.asked if asked.key is not None]
        if again and self.rng.random() < 0.25:
            earlier = self.rng.choice(again)
            body = earlier.body
            if self.rng.random() < 0.15 and isinstance(body, dict) and body:
                body = {**body, "add": [{"email": "other@example.com"}]} if "add" in body else body
            self._send(
                name,
                earlier.who,
                earlier.actor_id,
                earlier.headers,
                earlier.method,
                earlier.path,
                body,
                earlier.key,
            )
            return
        self.requests_left -= 1
        wish = self.actors.wish()
        key = f"key-{len(self.asked)}" if wish.method != "GET" and self.rng.random() < 0.6 else None
        self._send(name, wish.who, wish.actor_id, wish.headers, wish.method, wish.path, wish.body, key)

    async def _about_an_invitation(self) -> None:
        alive = [name for name in API_NAMES if self.world.processes[name].alive]
        if alive and self.inviting is not None:
            self._send_wish(self.rng.choice(alive), self.inviting.wish())

    def _send_wish(self, name: str, wish: Wish) -> None:
        is_repeatable = wish.method != "GET" and self.rng.random() < 0.5
        key = f"key-{len(self.asked)}" if is_repeatable else None
        self._send(name, wish.who, wish.actor_id, wish.headers, wish.method, wish.path, wish.body, key)

    def _send(
        self,
        name: str,
        who: str,
        actor_id: str | None,
        headers: Any,
        method: str,
        path: str,
        body: Any,
        key: str | None,
    ) -> None:
        sent = {**headers, "Content-Type": "application/json"}
        if key is not None:
            sent["Idempotency-Key"] = key
        text = b"" if body is None else orjson.dumps(body)
        asked = Asked(
            len(self.asked),
            who,
            actor_id,
            method,
            path,
            body,
            key,
            self.world.processes[name],
            next(self.order),
            self.loop.time(),
            headers,
        )
        self._say(f"request {asked.number} {name} {who} {method} {path} {text.decode()} {key or ''}")
        self.asked.append(asked)
        asked.task = self.world.call(name, method, path, sent, text)

    async def _payer(self) -> None:
        """Somebody pays an open invoice, tries to, or gives it up in the Dashboard."""
        found, drawn = self.stripe.open_invoices(), self.rng.random()
        if not found:
            return
        invoice_id = self.rng.choice(found)
        if drawn < 0.2:
            how = "void" if drawn < 0.12 else "mark_uncollectible"
            self.stripe.dashboard("POST", f"/v1/invoices/{invoice_id}/{how}", {})
            self._say(f"by hand: {how} {invoice_id}")
            return
        card = "pm_card_visa" if drawn < 0.8 else "pm_card_chargeCustomerFail"
        self._say(f"the payer tries {invoice_id}: {self.stripe.pay(invoice_id, card)}")

    async def _abandon(self) -> None:
        alive = [name for name in API_NAMES if self.world.processes[name].alive]
        if alive:
            self._send_abandon(self.rng.choice(alive), self.rng.choice(list(self.awaiting)))

    def _send_abandon(self, name: str, operation_id: str) -> None:
        wish = self.actors.abandon(operation_id)
        self._send(name, wish.who, wish.actor_id, wish.headers, wish.method, wish.path, wish.body, None)

    async def _edit(self) -> None:
        self.edits_left -= 1
        self._say(f"by hand: {self.actors.edit()}")

    async def _look(self) -> None:
        alive = [name for name in WORKER_NAMES if self.world.processes[name].alive]
        if not alive:
            return
        name = self.rng.choice(alive)
        if self.rng.random() < 0.03:
            self._say(f"clean up {name}")
            self.world.clean_up(name)
            return
        self._say(f"look {name}")
        self.world.look(name)

    async def _end_invitations(self) -> None:
        """As a worker does every minute."""
        alive = [name for name in WORKER_NAMES if self.world.processes[name].alive]
        if alive:
            name = self.rng.choice(alive)
            self._say(f"end invitations {name}")
            self.world.end_invitations(name)

    async def _kill(self) -> None:
        alive = [name for name in (*API_NAMES, *WORKER_NAMES) if self.world.processes[name].alive]
        if not alive:
            return
        name = self.rng.choice(alive)
        self.faults += 1
        self._say(f"kill {name}")
        process = self.world.processes[name]
        await self.world.kill(name)
        for call in [call for call in self.stripe.waiting if call.process is process]:
            if self.rng.random() < 0.5:
                # It had left the machine: what becomes of it is Stripe's to say.
                self.stripe.waiting.remove(call)
                self.stripe.be_late(call, in_flight=False)
            else:
                self.stripe.waiting.remove(call)
        self.stripe.answered = [call for call in self.stripe.answered if call.process is not process]
        self.restarts.append((self.loop.time() + self.rng.choice((0.0, 2.0, 20.0)), name))
        self.restarts.sort()

    async def _restart(self) -> None:
        _, name = self.restarts.pop(0)
        self._say(f"start {name}")
        self.world.start(name)

    async def _time(self) -> None:
        drawn, now = self.rng.random(), self.loop.time()
        # No request is under way for a day.
        at_rest = not (self.stripe.waiting or self.stripe.late)
        if self.temper.long_pause and at_rest and drawn < LONG_PAUSE_SHARE:
            self.temper.long_pause = False
            self._advance(now + self.rng.uniform(*LONG_PAUSE_SECONDS))
            return
        if drawn < 0.7:
            moment = now + self.rng.uniform(0.05, 1.0)
            if self.loop.next_timer is not None and drawn < 0.5:
                moment = min(max(self.loop.next_timer, now + 0.03), now + 10.0)
        elif drawn < 0.96:
            moment = now + self.rng.uniform(1.0, 6.0)
        else:
            moment = now + self.rng.uniform(8.0, 45.0)
        self._advance(moment)

    def _advance(self, moment: float) -> None:
        overdue = [call for call in self.stripe.late if moment - call.at > LATE_SECONDS]
        for call in overdue:
            self.stripe.late.remove(call)
            self._execute(call)
        self.loop.advance_to(moment)
        self.stripe.tell_time()
        self._say(f"time {self.loop.time():.3f}")

    # --------------------------------------------------------------------------------------- until all is quiet

    def _calm_down(self) -> None:
        self.calm, self.calm_at, self.calm_tick = True, self.loop.time(), next(self.order)
        self._say("calm")
        for _, name in self.restarts:
            self.world.start(name)
        self.restarts.clear()
        for operation_id in self.awaiting:
            if self.rng.random() < 0.5:
                self._send_abandon(self.rng.choice(API_NAMES), operation_id)
        if self.inviting is not None:
            for invited in self.inviting.open_ones():
                if self.rng.random() < 0.4:
                    self._send_wish(self.rng.choice(API_NAMES), self.inviting.accept(invited))

    async def _rest(self) -> bool:
        """Everything that can happen happens, one by one; False once nothing is left to do."""
        stripe = self.stripe
        if self.gate.waiting:
            await self._statement()
        elif stripe.waiting:
            call = self.rng.choice(sorted(stripe.waiting, key=str))
            if call.path.endswith("/void") and self.rng.random() < 0.3:
                await self._payer()
            stripe.waiting.remove(call)
            self._execute(call)
            stripe.reply(call)
        elif stripe.answered:
            await self._answer()
        elif stripe.late and self.rng.random() < 0.3:
            await self._late()
        elif self.events and self.rng.random() < 0.7:
            self._deliver(self.events.pop(self.rng.randrange(len(self.events))))
        else:
            return await self._wait_for_what_is_due()
        return True

    async def _wait_for_what_is_due(self) -> bool:
        [row] = await self.gate.ask(_DUE, True)
        due, now = row["due"], self.loop.time()
        if row["unsettled"]:
            self.settled_at = None
        elif self.settled_at is None:
            self.settled_at = now
        busy = any(process.tasks for process in self.world.processes.values())
        if due is not None and due < now and now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            name = self.rng.choice(WORKER_NAMES)
            self._say(f"look {name}")
            self.world.look(name)
            return True
        wake = None if due is None else max(due + 0.01, self._next_look)
        moments = [moment for moment in (wake, self.loop.next_timer) if moment is not None]
        if not moments or not (busy or due is not None):
            if self.events or self.stripe.late:
                return True
            return await self._clean_up()
        if now - self.calm_at > REST_SECONDS:
            self.errors.append("it does not come to rest")
            return False
        self._advance(max(min(moments), now + 0.03))
        return True

    async def _clean_up(self) -> bool:
        """Members of ended subscriptions, as a worker does every minute; False once there are none.

        Invitations with a short term are over by then.
        """
        task = self._cleaning
        if task is None or (task.done() and task.result()):
            self._say("clean up")
            self._cleaning = self.world.clean_up(WORKER_NAMES[0])
            return True
        if not task.done():
            return True
        if self.inviting is None:
            return False
        ending = self._ending
        if ending is None:
            term = self.world.rules.invitation_days * DAY_SECONDS
            if term < DAY_SECONDS:
                self._advance(self.loop.time() + term)
        if ending is None or (ending.done() and ending.result()):
            self._say("end invitations")
            self._ending = self.world.end_invitations(WORKER_NAMES[1])
            return True
        return not ending.done()
