"""What a schedule plays in: an account with two plans, the processes of the service, and the people who use it."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import httpx
import orjson
from fastapi import FastAPI

from app import worker
from app.context import Context, Rules
from app.domain.roles import RolePolicy
from app.errors import BillingError
from app.events import announcing
from app.http.in_flight import WritesInFlight
from app.identity.authenticator import Authenticator
from app.main import create_app
from app.mirror.ingest import Ingest
from app.mirror.store import fills
from app.mirror.store import rows as mirror
from app.settings import Settings, load_settings
from app.sharing import cleanup
from app.sharing.rulebooks import RULEBOOKS
from app.stripe import parsing
from app.stripe.billing import BillingCalls
from app.stripe.breaker import Breakers
from app.stripe.client import StripeClient
from app.stripe.gateway import StripeGateway
from app.stripe.rate_budget import RateBudget
from app.stripe.rate_refusals import RateRefusals
from testkit.asgi import Reply, ask
from testkit.company import signed
from testkit.event_fold import state_now
from testkit.service import as_service, as_user, service_environment
from verification.simulation.held_database import Gate, HeldDatabase
from verification.simulation.held_loop import HeldLoop, Process, held_loop
from verification.simulation.held_stripe import HeldStripe, Json

FOREIGN_METADATA = {"crm_reference": "  A-17 "}
API_NAMES = ("api0", "api1")
WORKER_NAMES = ("worker0", "worker1")
_PATHS = {
    "product": "/v1/products",
    "price": "/v1/prices",
    "customer": "/v1/customers",
    "subscription": "/v1/subscriptions",
    "payment_method": "/v1/payment_methods",
    "invoice": "/v1/invoices",
}
PAYING_SHARE = 0.25
"""Of the schedules; in those one company's card is not charged at once, so that purchases wait for their payment."""
_CARDS = ("pm_card_authenticationRequired", "pm_card_chargeCustomerFail")
_PAYMENT_WINDOWS = (20.0, 90.0, 200.0)
INVITATIONS = "/invitations/"
"""In the name of a seed: people are invited, beside all that happens anyway."""
DAY_SECONDS = 86_400.0
_INVITATION_TERMS = (15.0, 60.0, 14 * DAY_SECONDS)
MARKER = 1_790_009_000
"""Of the rows that a schedule begins with: before everything that happens in it."""


def is_paying(seed: str) -> bool:
    """True for a schedule in which purchases wait for their payment."""
    return random.Random(f"{seed} payments").random() < PAYING_SHARE


def memberships_of(seed: str) -> int:
    """How many plans one person may be on; more than one only where the seed's first part says `several`."""
    return random.Random(f"{seed} several").choice((2, 3, 20)) if seed.startswith("several") else 1


def is_inviting(seed: str) -> bool:
    """True for a schedule in which people are invited."""
    return INVITATIONS in seed


def with_invitations(rules: Rules, seed: str) -> Rules:
    """The rules of such a schedule: the term and the addressees of invitations, and the plans of a person."""
    draw = random.Random(f"{seed} invitation rules")
    return replace(
        rules,
        invitation_days=draw.choice(_INVITATION_TERMS) / DAY_SECONDS,
        invitation_email_must_match=draw.random() < 0.25,
        memberships_per_customer=draw.choice((1, 2, 3, 20)),
    )


@dataclass(frozen=True, slots=True)
class Person:
    """A customer and the end user whom its metadata links; `headers` are his credentials."""

    label: str
    customer_id: str
    email: str
    headers: Mapping[str, str] = field(repr=False)


@dataclass(slots=True)
class Company:
    subscription_id: str
    item_id: str
    owner: Person
    managers: list[Person]
    users: list[Person]
    seats: int

    @property
    def path(self) -> str:
        return f"/v1/shared-subscriptions/{self.subscription_id}"

    @property
    def people(self) -> list[Person]:
        return [self.owner, *self.managers, *self.users]


@dataclass(slots=True, eq=False)
class Asked:
    """One request of a client; `reply` stays None where its process died before it answered."""

    number: int
    who: str
    actor_id: str | None
    method: str
    path: str
    body: Any
    key: str | None
    process: Process
    tick: int
    at: float
    headers: Mapping[str, str] = field(repr=False)
    task: asyncio.Task[Reply] | None = None
    reply: Reply | None = None
    reply_tick: int | None = None


class Parts:
    """What costs time to build and holds no state of a schedule: the applications and the official SDK's client."""

    def __init__(self, database_url: str) -> None:
        environment = service_environment(
            database_url=database_url,
            stripe_base="http://127.0.0.1:9",
            stripe_key="sk_test_schedules",
            LOG_LEVEL="critical",
        )
        self.settings: Settings = load_settings(environment)
        self.apps: list[FastAPI] = [create_app(self.settings) for _ in API_NAMES]
        self.authenticator = Authenticator(self.settings)
        self.client = StripeClient(self.settings.stripe_key, api_base="http://127.0.0.1:9")
        self._tokens: dict[str, dict[str, str]] = {}

    def headers_of(self, label: str) -> dict[str, str]:
        if label not in self._tokens:
            self._tokens[label] = as_user(label, exp=4_000_000_000)
        return self._tokens[label]

    def verified_headers_of(self, label: str, email: str) -> dict[str, str]:
        """Of a token that verifies the person's address."""
        if email not in self._tokens:
            self._tokens[email] = as_user(label, exp=4_000_000_000, email=email, email_verified=True)
        return self._tokens[email]


class World:
    def __init__(self, parts: Parts, gate: Gate, seed: str, rng: random.Random, order: Iterator[int]) -> None:
        self.parts = parts
        self.gate = gate
        self.loop: HeldLoop = held_loop()
        self.rng = rng
        self.order = order
        self.stripe = HeldStripe(self.loop, f"sk_test_{seed.replace('/', 'x')}", order, gate.lent)
        # The SDK takes no transport of its own.
        http: Any = parts.client._http
        http._client_async = httpx.AsyncClient(transport=self.stripe, trust_env=False)
        self._labels = count()
        self.rules = self._rules(memberships_of(seed))
        self.is_inviting = is_inviting(seed)
        if self.is_inviting:
            self.rules = with_invitations(self.rules, seed)
        self.more_seats = random.Random(f"{seed} more seats")
        self.has_several = self.rules.memberships_per_customer > 1
        self.own_keys = random.Random(f"{seed} own keys")
        self.per_second = rng.choice((15, 50, 400))
        self.strangers = [self._person() for _ in range(3)]
        self.companies = [self._company() for _ in range(2)]
        # Draws of its own, so that the other schedules stay as they were.
        self.is_paying = is_paying(seed)
        if self.is_paying:
            payments = random.Random(f"{seed} cards")
            self.rules = replace(self.rules, payment_window=payments.choice(_PAYMENT_WINDOWS))
            self._charge_to(self.companies[0].owner, payments.choice(_CARDS))
        self.stripe.new_events()
        self.first_version = len(self.stripe.versions)
        self.processes: dict[str, Process] = {}
        self.contexts: dict[str, Context] = {}
        self.jobs: dict[str, worker._Jobs] = {}
        self.started: list[Process] = []

    def _rules(self, memberships: int) -> Rules:
        draw = self.rng.random
        rules = Rules.of(self.parts.settings)
        roles = RolePolicy(managers_manage_managers=draw() < 0.2, managers_buy_seats=draw() < 0.4)
        return replace(
            rules, roles=roles, owner_uses_seat=draw() < 0.15, memberships_per_customer=memberships
        )

    def _person(self, **metadata: str) -> Person:
        label = f"person{next(self._labels)}"
        email = f"{label}@example.com"
        made = self.stripe.dashboard(
            "POST",
            "/v1/customers",
            {
                "email": email,
                "name": label,
                "metadata": {"billing_user_id": label, **FOREIGN_METADATA, **metadata},
            },
        )
        return Person(label, made["id"], email, self.parts.headers_of(label))

    def _charge_to(self, payer: Person, card: str) -> None:
        ask = self.stripe.dashboard
        method = ask("POST", f"/v1/payment_methods/{card}/attach", {"customer": payer.customer_id})
        path = f"/v1/customers/{payer.customer_id}"
        ask("POST", path, {"invoice_settings": {"default_payment_method": method["id"]}})

    def _company(self) -> Company:
        ask, rng = self.stripe.dashboard, self.rng
        product = ask(
            "POST",
            "/v1/products",
            {"name": "T", "metadata": {"billing_supports_shared_subscriptions": "true"}},
        )
        terms = {
            "product": product["id"],
            "currency": "usd",
            "unit_amount": 1200,
            "recurring": {"interval": "month"},
        }
        price = ask("POST", "/v1/prices", terms)
        owner = self._person()
        self._charge_to(owner, "pm_card_visa")
        managers, users = rng.choice(((1, 1), (2, 1), (1, 2), (2, 2)))
        seats = managers + users + rng.choice((0, 1, 1, 2, 3)) + (1 if self.rules.owner_uses_seat else 0)
        seats += self.more_seats.choice((1, 2, 3)) if self.is_inviting else 0
        made = ask(
            "POST",
            "/v1/subscriptions",
            {
                "customer": owner.customer_id,
                "items": [{"price": price["id"], "quantity": seats}],
                "metadata": {"billing_shared_subscription_owner": owner.customer_id, **FOREIGN_METADATA},
            },
        )

        def seated(role: str) -> Person:
            return self._person(
                billing_shared_subscription_id=made["id"], billing_shared_subscription_role=role
            )

        return Company(
            made["id"],
            made["items"]["data"][0]["id"],
            owner,
            [seated("manager") for _ in range(managers)],
            [seated("user") for _ in range(users)],
            seats,
        )

    async def fill(self) -> None:
        """The cache as it would be after the first fill."""
        process = Process("fill")
        database = HeldDatabase(self.gate, process)

        async def write() -> None:
            for kind in _PATHS:
                found = [parsing.PARSERS[kind](source) for source in self._all(kind)]
                async with database.connection() as connection:
                    await mirror.apply_page(connection, found, marker=MARKER)
            async with database.connection() as connection:
                await connection.execute(
                    # Nothing else happens, so no transaction is waited for that may not know of the fill.
                    "insert into event_log (position, purged_to, sequence_floor, filled_until)"
                    " values (0, 0, 0, 0) on conflict (single) do update set filled_until = 0"
                )
                await fills.remember_account(connection, "acct_schedules", livemode=False)
                await fills.note_filled(connection)

        await self._alone(process.spawn(write()))
        await self.announce()
        self.known = await state_now(self.gate.ask)
        self.gate.changes.clear()

    async def announce(self) -> None:
        """Every fact becomes an event, while nothing else happens."""
        process = Process("events")
        context = self._context(HeldDatabase(self.gate, process))

        async def announce() -> None:
            while await announcing.announce_pending(context):
                pass

        await self._alone(process.spawn(announce()))

    async def _alone(self, task: asyncio.Task[None]) -> None:
        while not task.done():
            await self.loop.quiet()
            if self.gate.waiting:
                await self.gate.release(self.gate.waiting[0])
        await task

    def _all(self, kind: str) -> list[Json]:
        ask = self.stripe.dashboard
        if kind != "payment_method":
            found: list[Json] = ask("GET", f"{_PATHS[kind]}?limit=100")["data"]
            return found
        stored = self.stripe.world.collection(kind).objects
        return [ask("GET", f"{_PATHS[kind]}/{identifier}") for identifier in stored]

    # -------------------------------------------------------------------------------------------- processes

    def _context(self, database: HeldDatabase) -> Context:
        client = copy.copy(self.parts.client)
        client._budget = RateBudget(database, per_second=self.per_second)
        # What a process remembers of Stripe's answers ends with it, and is of the schedule's time.
        client._refusals = RateRefusals(self.loop.time)
        client._breakers = Breakers(self.loop.time)
        client._breakers.probe_by(client._is_answered)
        gateway = StripeGateway(client, livemode=False)
        return Context(
            database, gateway, BillingCalls(client), self.rules, RULEBOOKS, breakers=client._breakers
        )

    def start(self, name: str) -> Process:
        process = Process(name)
        context = self._context(HeldDatabase(self.gate, process))
        self.processes[name], self.contexts[name] = process, context
        self.started.append(process)
        if name in API_NAMES:
            app = self.parts.apps[API_NAMES.index(name)]
            app.state.context = context
            app.state.authenticator = self.parts.authenticator
            # What a killed process had in memory is gone: deliveries that waited for their commit, places of writes.
            app.state.webhook._ingest = Ingest()
            app.state.in_flight = WritesInFlight(self.parts.settings)
        else:
            self.jobs[name] = worker._Jobs(context)
        return process

    def start_all(self) -> None:
        for name in (*API_NAMES, *WORKER_NAMES):
            self.start(name)

    async def kill(self, name: str) -> None:
        await self.gate.kill(self.processes[name])

    def look(self, name: str) -> None:
        """One look of a worker for what is due."""
        self.processes[name].spawn(self.jobs[name].begin_what_is_due())

    def clean_up(self, name: str) -> asyncio.Task[int]:
        return self.processes[name].spawn(_cleaned_up(self.contexts[name], _clear_ended))

    def end_invitations(self, name: str) -> asyncio.Task[int]:
        return self.processes[name].spawn(_cleaned_up(self.contexts[name], cleanup.end_invitations))

    def call(
        self, name: str, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> asyncio.Task[Reply]:
        app = self.parts.apps[API_NAMES.index(name)]
        return self.processes[name].spawn(ask(app, method, path, headers, body, host="schedules.test"))

    def deliver(self, name: str, event: Json) -> asyncio.Task[Reply]:
        body = orjson.dumps(event)
        return self.call(name, "POST", "/webhooks/stripe", signed(body), body)


SERVICE = as_service("admin")


async def _clear_ended(context: Context) -> int:
    """0 once no member of an ended subscription may be tried."""
    return int(await cleanup.clear_ended(context) is not None)


async def _cleaned_up(context: Context, part: Callable[[Context], Awaitable[int]]) -> int:
    """As the worker's upkeep: where a part is away, another round comes."""
    try:
        return await part(context)
    except BillingError:
        return 1
