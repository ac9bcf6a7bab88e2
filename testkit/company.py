"""A shared subscription with its people, set up through the stand-in's API, and the service that answers for it."""

import asyncio
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import uuid4

import asyncpg
import httpx

from app.context import Context
from app.customers import seat_moves
from app.events import announcing
from app.identity import acts
from app.main import create_app
from app.mirror import first_fill
from app.mirror import refreshing as sync
from app.operations import lease_store, recovery
from app.settings import load_settings
from app.sharing import cleanup
from app.stripe.breaker import WINDOW_SECONDS
from app.stripe.budget import KINDS
from app.stripe.client import API_VERSION
from testkit.service import WEBHOOK_SECRET, as_service, as_user, in_process, service_environment
from testkit.simulator import Simulator

Who = Mapping[str, str] | None


@dataclass(frozen=True)
class Person:
    """A customer, and the login whose subject its `billing_user_id` names."""

    customer_id: str
    subject: str
    email: str
    name: str
    headers: Mapping[str, str] = field(repr=False)


class Service:
    """The application in this process, over one simulated account and one database."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        context: Context,
        stripe: Simulator,
        database_url: str,
    ) -> None:
        self.client = client
        self.context = context
        self.stripe = stripe
        self.database_url = database_url

    async def get(self, path: str, who: Who = None, **query: Any) -> httpx.Response:
        return await self.client.get(path, headers=dict(who or {}), params=query)

    async def send(
        self, method: str, path: str, who: Who, body: Any = None, **headers: str
    ) -> httpx.Response:
        """`body` as JSON; underscores in the names of `headers` are dashes."""
        extra = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.request(method, path, headers={**(who or {}), **extra}, json=body)

    async def fill(self) -> None:
        """The first fill, as `coseat sync` runs it."""
        await first_fill.fill(self.context, lambda _: None)

    async def refresh(self, kind: str, object_id: str) -> None:
        """Applies the object as the stand-in has it now, as a worker would after a webhook."""
        await sync.read_through(self.context, kind, object_id)

    async def work_off(self) -> None:
        """Finishes every operation whose lease has run out, as a worker would."""
        token = uuid4()
        async with self.context.database.connection() as connection:
            found = await lease_store.take_orphaned(
                connection, limit=100, lease_token=token, lease_seconds=30
            )
        for operation_id in found:
            await recovery.finish(self.context, operation_id, token)

    async def move_seats(self) -> None:
        """Moves seats to the logins whose addresses were verified, as a worker would, at once."""
        await acts.drain()
        while await seat_moves.move_due(self.context, limit=8):
            pass

    async def clean_up(self) -> None:
        """Clears the members of ended subscriptions, as a worker would."""
        while await cleanup.clear_ended(self.context):
            pass

    async def end_invitations(self) -> int:
        """Ends the invitations whose term is over, as a worker would; their number."""
        return await cleanup.end_invitations(self.context)

    def environment(self, **overrides: str) -> dict[str, str]:
        """The variables of a process beside this service: the same database and the same account."""
        return service_environment(
            database_url=self.database_url,
            stripe_base=self.stripe.base_url,
            stripe_key=self.stripe.api_key,
            **overrides,
        )

    async def announce(self, *, within: float = 30.0) -> None:
        """Makes events of all facts, as a worker would, for at most `within` seconds while others hold it up.

        The log waits for every older transaction of the server, so those of other test processes hold it up too.
        """
        give_up = time.monotonic() + within
        while await announcing.has_pending(self.context):
            if not await announcing.announce_pending(self.context):
                if time.monotonic() > give_up:
                    return
                await asyncio.sleep(0.01)

    async def deliver(self, event: Mapping[str, Any]) -> httpx.Response:
        body = json.dumps(event).encode()
        return await self.client.post("/webhooks/stripe", content=body, headers=signed(body))

    async def deliver_state(self, kind: str, state: Mapping[str, Any], *, later: int = 60) -> None:
        """A signed `…updated` event that carries `state`, dated so far ahead that it is applied at once."""
        name = {"subscription": "customer.subscription.updated", "customer": "customer.updated"}[kind]
        response = await self.deliver(event_of(name, state, created=int(time.time()) + later))
        assert response.status_code == httpx.codes.OK, response.text

    async def deliver_events(self, event_type: str) -> int:
        """Posts what the stand-in would deliver of one type, oldest first; the number of events."""
        events = (await self.stripe.get("/v1/events", type=event_type, limit=100))["data"]
        for event in reversed(events):
            response = await self.deliver(event)
            assert response.status_code == httpx.codes.OK, response.text
        return len(events)

    async def fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.database_url)
        try:
            return await connection.fetch(statement, *values)
        finally:
            await connection.close()

    async def waits_for_a_lock(self) -> None:
        """Return once a statement in the service's database waits for a lock."""
        for _ in range(500):
            if await self.fetch(
                "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            ):
                return
            await asyncio.sleep(0.02)
        raise AssertionError("no statement waits")

    async def settled(self, operation_id: str, who: Who, *, tries: int = 300) -> httpx.Response:
        """The answer of an operation once every result is final, asked ten times a second."""
        story = ""
        for _ in range(tries):
            response = await self.get(f"/v1/operations/{operation_id}", who)
            if response.json()["state"] == "settled":
                return response
            story = response.text
            await asyncio.sleep(0.1)
        raise AssertionError(f"not settled after {tries / 10} s: {story}")

    async def row_counts(self) -> dict[str, int]:
        """Rows of every table but those that count requests and workers, refused ones too, and under `stripe` the
        requests that the stand-in has seen of the service.
        """
        tables = await self.fetch(
            """select tablename from pg_tables where schemaname = 'public'
            and tablename not in ('request_rates', 'installation_counts', 'workers') order by 1"""
        )
        counts = " union all ".join(
            f"select '{row['tablename']}' as name, count(*) as number from \"{row['tablename']}\""
            for row in tables
        )
        found = {row["name"]: int(row["number"]) for row in await self.fetch(counts)}
        return {**found, "stripe": len(await self.stripe.requests())}

    async def person(self, label: str, *, linked: bool = True, **metadata: str) -> Person:
        """A new customer in the stand-in and in the cache; `linked`: its metadata names its login's subject."""
        mark = secrets.token_hex(5)
        subject, email, name = f"{label}-{mark}", f"{label}.{mark}@example.com", f"{label.title()} Known"
        marks = {**({"billing_user_id": subject} if linked else {}), **metadata}
        made = await self.stripe.post("/v1/customers", email=email, name=name, metadata=marks)
        await self.refresh("customer", made["id"])
        return Person(made["id"], subject, email, name, as_user(subject))

    async def price(self, product_id: str) -> dict[str, Any]:
        """Make a monthly price of the product, in the stand-in and in the cache."""
        made: dict[str, Any] = await self.stripe.post(
            "/v1/prices",
            product=product_id,
            currency="usd",
            unit_amount=1200,
            recurring={"interval": "month"},
        )
        await self.refresh("price", made["id"])
        return made

    async def company(
        self,
        *,
        seats: int = 5,
        users: int = 1,
        payer_is_owner: bool = True,
        shareable: bool = True,
    ) -> "Company":
        """An owner, a manager, `users` users and a stranger around one paid subscription of `seats` seats."""
        flag = {"billing_supports_shared_subscriptions": "true"} if shareable else {}
        product = await self.stripe.post("/v1/products", name="Team", metadata=flag)
        await self.refresh("product", product["id"])
        price = await self.price(product["id"])
        owner = await self.person("owner")
        payer = owner if payer_is_owner else await self.person("payer")
        method = await self.stripe.post("/v1/payment_methods/pm_card_visa/attach", customer=payer.customer_id)
        await self.stripe.post(
            f"/v1/customers/{payer.customer_id}",
            invoice_settings={"default_payment_method": method["id"]},
        )
        await self.refresh("customer", payer.customer_id)
        subscription = await self.stripe.post(
            "/v1/subscriptions",
            customer=payer.customer_id,
            items=[{"price": price["id"], "quantity": seats}],
            metadata={"billing_shared_subscription_owner": owner.customer_id} if shareable else {},
        )
        await self.refresh("subscription", subscription["id"])
        await self.refresh("invoice", subscription["latest_invoice"])
        company = Company(
            service=self,
            product_id=product["id"],
            price_id=price["id"],
            subscription_id=subscription["id"],
            invoice_id=subscription["latest_invoice"],
            payment_method_id=method["id"],
            owner=owner,
            payer=payer,
            stranger=await self.person("stranger"),
        )
        if shareable:
            company.manager = await company.seated("manager", "manager")
            company.users = [await company.seated("user", "user") for _ in range(users)]
        return company


@dataclass
class Company:
    """One subscription and those around it; `members` and `requests` look into the stand-in, the truth."""

    service: Service
    product_id: str
    price_id: str
    subscription_id: str
    invoice_id: str
    payment_method_id: str
    owner: Person
    payer: Person
    stranger: Person
    manager: Person = field(init=False)
    users: list[Person] = field(default_factory=list)

    @property
    def user(self) -> Person:
        return self.users[0]

    @property
    def path(self) -> str:
        return f"/v1/shared-subscriptions/{self.subscription_id}"

    async def seated(self, label: str, role: str) -> Person:
        """A new customer whose metadata was written in the Dashboard: nobody typed him."""
        return await self.service.person(
            label,
            billing_shared_subscription_id=self.subscription_id,
            billing_shared_subscription_role=role,
        )

    async def change(
        self,
        who: Who,
        *,
        add: Sequence[Any] = (),
        remove: Sequence[str] = (),
        update: Sequence[Any] = (),
        key: str | None = None,
        **more: Any,
    ) -> httpx.Response:
        """updateSharedSubscriptionUsers; a string in `add` is an e-mail or a customer id."""
        body: dict[str, Any] = {"add": [named(entry) for entry in add]} if add else {}
        body |= {"remove": list(remove)} if remove else {}
        body |= {"update": list(update)} if update else {}
        headers = {} if key is None else {"Idempotency_Key": key}
        return await self.service.send("PATCH", f"{self.path}/users", who, {**body, **more}, **headers)

    async def invite(
        self, who: Who, email: str | None = None, role: str = "user", *, key: str | None = None
    ) -> httpx.Response:
        """createInvitation; without `email`, to an address of its own."""
        headers = {} if key is None else {"Idempotency_Key": key}
        body = {"email": email or new_email(), "role": role}
        return await self.service.send("POST", f"{self.path}/invitations", who, body, **headers)

    async def token(
        self, email: str | None = None, role: str = "user", *, inviter: Person | None = None
    ) -> str:
        """The token of a new invitation of the owner's, or of `inviter`'s, as their back end gets it."""
        acting = (inviter or self.owner).customer_id
        made = await self.invite(as_service("write", acting_for=acting), email, role)
        assert made.status_code == httpx.codes.CREATED, made.text
        return str(made.json()["token"])

    async def seats(self) -> dict[str, int]:
        """The seats as the owner sees them."""
        shown = await self.service.get(self.path, self.owner.headers)
        found: dict[str, int] = shown.json()["subscription"]["shared"]["seats"]
        return found

    async def members(self) -> dict[str, str]:
        """Customer id to role, by the metadata in the stand-in."""
        found = {}
        for customer in await self.service.stripe.state("customer"):
            marks = customer.get("metadata") or {}
            if marks.get("billing_shared_subscription_id") == self.subscription_id:
                found[customer["id"]] = marks.get("billing_shared_subscription_role", "")
            elif f"billing_{self.subscription_id}" in marks:
                found[customer["id"]] = marks[f"billing_{self.subscription_id}"]
        return found

    async def member_emails(self) -> set[str]:
        ids = await self.members()
        return {c["email"] for c in await self.service.stripe.state("customer") if c["id"] in ids}

    async def state(self) -> dict[str, Any]:
        return dict(await self.service.stripe.get(f"/v1/subscriptions/{self.subscription_id}"))

    async def set_status(self, status: str) -> None:
        """The cache learns of a status by webhook; the stand-in's own object stays as it is."""
        await self.service.deliver_state("subscription", {**await self.state(), "status": status})


def named(entry: Any) -> Any:
    if not isinstance(entry, str):
        return entry
    return {"email": entry} if "@" in entry else {"customer_id": entry}


def new_email(label: str = "new") -> str:
    return f"{label}.{secrets.token_hex(6)}@example.com"


def event_of(event_type: str, state: Mapping[str, Any], *, created: int | None = None) -> dict[str, Any]:
    return {
        "id": f"evt_{secrets.token_hex(10)}",
        "object": "event",
        "type": event_type,
        "created": int(time.time()) if created is None else created,
        "api_version": API_VERSION,
        "livemode": False,
        "data": {"object": dict(state)},
    }


def signed(body: bytes, *, at: int | None = None, secret: str = WEBHOOK_SECRET) -> dict[str, str]:
    """The headers of a delivery (Stripe's scheme v1); `at` is the signed Unix second."""
    moment = int(time.time()) if at is None else at
    digest = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Stripe-Signature": f"t={moment},v1={digest}", "Content-Type": "application/json"}


@asynccontextmanager
async def breaking_service(stripe: Simulator, database_url: str, **overrides: str) -> AsyncIterator[Service]:
    """`overrides` are variables of the environment, as in docs/reference/settings.md."""
    environment = service_environment(
        database_url=database_url, stripe_base=stripe.base_url, stripe_key=stripe.api_key, **overrides
    )
    app = create_app(load_settings(environment))
    async with in_process(app) as client:
        yield Service(client, app.state.context, stripe, database_url)


@asynccontextmanager
async def running_service(stripe: Simulator, database_url: str, **overrides: str) -> AsyncIterator[Service]:
    """As `breaking_service`, but its breakers stay closed.

    Otherwise a test in which many answers are lost would leave the tests after it without Stripe.
    """
    async with breaking_service(stripe, database_url, **overrides) as running:
        for kind in KINDS:
            # No two failures are ever within one window.
            running.context.breakers[kind].clock = count(0.0, 2 * WINDOW_SECONDS).__next__
        yield running
