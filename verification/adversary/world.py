"""The account that hostile callers meet: plans of every state with their people, and everybody's credentials."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.sharing.invitation_tokens import InvitationTokens, TokenName
from testkit.company import Person, Service, event_of
from testkit.plans import MONTHLY
from testkit.service import INVITATION_SECRET, as_service, as_user, service_environment
from testkit.simulator import Simulator
from verification.adversary.running import tell

DAY = 86_400
SEATS = 9
VISA, FAILING = "pm_card_visa", "pm_card_chargeCustomerFail"
DUNNING = {"retry_days": [3, 7], "final": "unpaid"}
_AT_ONCE = 8


@dataclass(frozen=True)
class Invited:
    """An open invitation to a plan."""

    id: str
    email: str
    token: str


def invited_as(role: str, tail: str) -> Invited:
    invitation_id = f"inv_{tail}"
    token = InvitationTokens([INVITATION_SECRET]).make(TokenName(invitation_id, 1))
    return Invited(invitation_id, f"invited.{role}.{tail}@example.com", token)


ABSENT_INVITATION = invited_as("nobody", "0" * 24)


@dataclass
class Plan:
    """One subscription and its people; `payment_method_id` is its payer's card."""

    kind: str
    seats: int
    owner: Person
    payer: Person
    outsider: Person
    payment_method_id: str = ""
    subscription_id: str = ""
    item_id: str = ""
    invoice_id: str = ""
    operation_id: str = ""
    invited: Sequence[Invited] = (ABSENT_INVITATION, ABSENT_INVITATION)
    manager: Person = field(init=False)
    peer: Person = field(init=False)
    user: Person = field(init=False)
    second: Person = field(init=False)
    elsewhere: Person = field(init=False)

    def people(self) -> dict[str, Person]:
        return {name: getattr(self, name) for name in ("owner", "manager", "user", "payer")}


@dataclass
class World:
    """`foreign` is the plan of strangers; `shared` has one plan of each kind, `fresh` those for writes that succeed."""

    stripe: Simulator
    service: Service
    environment: Mapping[str, str]
    prices: dict[str, str] = field(default_factory=dict)
    product_id: str = ""
    unlisted_product_id: str = ""
    shared: dict[str, Plan] = field(default_factory=dict)
    fresh: dict[str, list[Plan]] = field(default_factory=dict)
    absent_customer: str = ""
    foreign_quote: str = ""
    foreign_cursor: str = ""
    foreign_etag: str = ""

    @property
    def foreign(self) -> Plan:
        return self.shared["foreign"]

    def apart(self, plan: Plan) -> Plan:
        """A plan that the people of `plan` have nothing to do with."""
        return self.shared["active"] if plan is self.foreign else self.foreign

    def headers(self, principal: str, plan: Plan) -> dict[str, str]:
        """The credentials of one of the table's principals, who stands so to `plan`."""
        people = self.people_of(plan)
        match principal.split(" key", 1):
            case [("read" | "write" | "admin") as scope, ""]:
                return as_service(scope)
            case [("read" | "write") as scope, " for an absent customer"]:
                return as_service(scope, acting_for=self.absent_customer)
            case [("read" | "write") as scope, whom]:
                return as_service(scope, acting_for=people[whom.removeprefix(" for the ")].customer_id)
        owner, now = people["owner"], int(time.time())
        match principal:
            case "nobody":
                return {}
            case "expired":
                return as_user(owner.subject, exp=now - 3600, iat=now - 7200)
            case "foreign audience":
                return as_user(owner.subject, aud="another-service")
            case "foreign issuer":
                return as_user(owner.subject, iss="https://issuer.example.evil")
            case "unknown key":
                return {"Authorization": f"Bearer csk_{'a' * 43}"}
            case "login of another customer":
                return as_user(people["stranger"].subject, stripe_customer_id=owner.customer_id)
            case "login that names for whom it acts":
                return {
                    **as_user(people["stranger"].subject),
                    "X-Acting-Customer": owner.customer_id,
                }
        return dict(people[principal].headers)

    def people_of(self, plan: Plan) -> dict[str, Person]:
        """Everybody by the table's names; the newcomer's login has no customer, so his id is an absent one."""
        newcomer = Person(self.absent_customer, "newcomer", "new.comer@example.com", "", as_user("newcomer"))
        return {**plan.people(), "stranger": self.foreign.owner, "newcomer": newcomer}


def absent_like(known: str) -> str:
    """An id of the same shape that was never given out."""
    prefix, _, tail = known.partition("_")
    return f"{prefix}_{'0' * (len(tail) - 4)}none"


async def in_batches(work: Iterable[Awaitable[Any]], at_once: int = _AT_ONCE) -> list[Any]:
    limit = asyncio.Semaphore(at_once)

    async def one(each: Awaitable[Any]) -> Any:
        async with limit:
            return await each

    return await asyncio.gather(*(one(each) for each in work))


class Builder:
    """Makes the account through the stand-in's API, as in the Dashboard, and the cache by a first fill."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.stripe = world.stripe
        self.crowd: dict[str, str] = {}
        """The membership of the people who are on another subscription, all on one."""

    async def stock(self) -> None:
        """The catalogue: what is on offer, and every way in which something is not."""
        world, flag = self.world, {"billing_supports_shared_subscriptions": "true"}
        seats = {"billing_sellable": "true", **flag}

        async def product(metadata: Mapping[str, str]) -> str:
            return str((await self.stripe.post("/v1/products", name="Plan", metadata=metadata))["id"])

        async def price(of: str, amount: int, **fields: Any) -> str:
            given = {"currency": "usd", "unit_amount": amount, "recurring": MONTHLY, **fields}
            if of not in (hidden, plain):
                given["metadata"] = {"billing_sellable": "true"}
            return str((await self.stripe.post("/v1/prices", product=of, **given))["id"])

        team, other = await product(seats), await product(seats)
        archived, hidden, plain = await product(seats), await product(flag), await product({})
        world.product_id, world.unlisted_product_id = team, hidden
        world.prices = {
            "seats": await price(team, 1000),
            "dearer": await price(team, 1500),
            "plain": await price(plain, 700),
            "on offer": await price(other, 500),
            "not listed": await price(hidden, 500),
            "inactive": await price(other, 501),
            "of an archived product": await price(archived, 500),
            "for one payment": await price(other, 502, recurring=None),
        }
        await self.stripe.post(f"/v1/prices/{world.prices['inactive']}", active=False)
        await self.stripe.post(f"/v1/products/{archived}", active=False)
        coupon = await self.stripe.post("/v1/coupons", percent_off=10, duration="once")
        await self.stripe.post(
            "/v1/promotion_codes", code="WELCOME10", promotion={"type": "coupon", "coupon": coupon["id"]}
        )

    async def hear_of_other_modes(self) -> None:
        """Signed events about prices that are not this account's; they must not become prices that can be bought."""
        world = self.world
        known = await self.stripe.get(f"/v1/prices/{world.prices['on offer']}")
        for name, members in (
            ("of the other mode", {"livemode": True}),
            ("of another account", {"account": "acct_1OtherOtherOther"}),
        ):
            state = {**known, "id": f"price_{secrets.token_hex(12)}", "livemode": name == "of the other mode"}
            event = {**event_of("price.created", state), **members}
            assert (await world.service.deliver(event)).status_code == httpx.codes.OK
            world.prices[name] = state["id"]
        world.prices["absent"] = absent_like(world.prices["on offer"])

    async def person(self, label: str, **metadata: str) -> Person:
        subject = f"{label}-{secrets.token_hex(6)}"
        email, name = f"{subject}@example.com", label.title()
        made = await self.stripe.post(
            "/v1/customers", email=email, name=name, metadata={"billing_user_id": subject, **metadata}
        )
        return Person(made["id"], subject, email, name, as_user(subject))

    async def plan(self, kind: str) -> Plan:
        owner = await self.person("owner")
        one_person = kind in ("owner pays", "plain", "foreign")
        payer = owner if one_person else await self.person("payer")
        plan = Plan(kind, SEATS, owner, payer, await self.person("outsider"))
        plan.payment_method_id = await self.card(payer)
        await self._subscribe(plan)
        on_it = {} if kind == "plain" else {"billing_shared_subscription_id": plan.subscription_id}
        for name, role in (("manager", "manager"), ("peer", "manager"), ("user", "user"), ("second", "user")):
            marks = {**on_it, "billing_shared_subscription_role": role} if on_it else {}
            setattr(plan, name, await self.person(name, **marks))
        plan.elsewhere = await self.person("elsewhere", **self.crowd)
        if kind.startswith("seated"):
            role = {"seated payer": "user", "seated ownerless": "manager"}[kind]
            marks = {**on_it, "billing_shared_subscription_role": role}
            await self.stripe.post(f"/v1/customers/{payer.customer_id}", metadata=marks)
        if kind.endswith("ownerless"):
            await self.stripe.delete(f"/v1/customers/{owner.customer_id}")
        if kind == "canceled":
            await self.stripe.delete(f"/v1/subscriptions/{plan.subscription_id}")
        return plan

    async def _subscribe(self, plan: Plan) -> None:
        more: dict[str, Any] = {"trial_period_days": 20} if plan.kind == "trialing" else {}
        if plan.kind == "incomplete":
            more = {"payment_behavior": "default_incomplete"}
        if plan.kind != "plain":
            more["metadata"] = {"billing_shared_subscription_owner": plan.owner.customer_id}
        made = await self.stripe.post(
            "/v1/subscriptions",
            customer=plan.payer.customer_id,
            items=[
                {
                    "price": self.world.prices["plain" if plan.kind == "plain" else "seats"],
                    "quantity": plan.seats,
                }
            ],
            **more,
        )
        plan.subscription_id, plan.item_id = made["id"], made["items"]["data"][0]["id"]
        plan.invoice_id = made["latest_invoice"]

    async def card(self, person: Person, card: str = VISA) -> str:
        made = await self.stripe.post(f"/v1/payment_methods/{card}/attach", customer=person.customer_id)
        await self.stripe.post(
            f"/v1/customers/{person.customer_id}", invoice_settings={"default_payment_method": made["id"]}
        )
        return str(made["id"])

    async def plans(self, kinds: Sequence[str]) -> list[Plan]:
        return await in_batches(self.plan(kind) for kind in kinds)

    async def in_arrears(self, kind: str, count: int, *, days: float) -> list[Plan]:
        """Plans whose renewal fails, `days` after they began."""
        made = await self.plans([kind] * count)
        for plan in made:
            plan.payment_method_id = await self.card(plan.payer, FAILING)
        await self.stripe.advance(days * DAY)
        return made

    async def invite(self, plan: Plan) -> None:
        """A user and a manager are invited by a key: the rows, since a subscription of any status has them here."""
        plan.invited = [invited_as(role, secrets.token_hex(12)) for role in ("user", "manager")]
        is_over = plan.kind == "canceled"
        for role, one in zip(("user", "manager"), plan.invited, strict=True):
            await self.world.service.fetch(
                """insert into invitations (id, subscription_id, email, role, state, reason, expires_at, ended_at)
                values ($1, $2, $3, $4, case when $5 then 'revoked' else 'open' end,
                    case when $5 then 'subscription_ended' end, now() + interval '1 day',
                    case when $5 then now() end)""",
                one.id,
                plan.subscription_id,
                one.email,
                role,
                is_over,
            )
            if not is_over:
                await self.world.service.fetch(
                    "insert into reservations (subscription_id, invitation_id) values ($1, $2)",
                    plan.subscription_id,
                    one.id,
                )

    async def offer(self, plan: Plan, api: httpx.AsyncClient) -> None:
        """The owner has added somebody, which is an operation of his, and offers the plan to the user."""
        path = f"/v1/shared-subscriptions/{plan.subscription_id}"
        removed = await api.patch(
            f"{path}/users", headers=dict(plan.owner.headers), json={"remove": [plan.peer.customer_id]}
        )
        assert removed.status_code == httpx.codes.OK, removed.text
        plan.operation_id = removed.json()["operation_id"]
        offered = await api.post(
            f"{path}/transfer",
            headers=dict(plan.owner.headers),
            json={"to_customer_id": plan.user.customer_id},
        )
        assert offered.status_code == httpx.codes.OK, offered.text


async def see_as_the_foreign(world: World, api: httpx.AsyncClient) -> None:
    """What the strangers are told of their own plan: a quote, a cursor and an ETag."""
    plan, who = world.foreign, dict(world.foreign.owner.headers)
    path = f"/v1/shared-subscriptions/{plan.subscription_id}"
    quoted = await api.post(f"{path}/quote", headers=who, json={"total": plan.seats + 2})
    assert quoted.status_code == httpx.codes.OK, quoted.text
    world.foreign_quote = quoted.json()["quote_id"]
    page = await api.get(f"{path}/users", headers=who, params={"limit": 2})
    world.foreign_cursor, world.foreign_etag = page.json()["next_cursor"], page.headers["etag"]


async def build(
    world: World, kinds: Sequence[str], needed: Mapping[str, int], api: httpx.AsyncClient
) -> None:
    """One plan of each kind, `needed` fresh ones besides, and the cache filled; the account's clock moves first."""
    builder = Builder(world)
    await builder.stripe.control("POST", "clock", freeze=True)
    await builder.stripe.settings(dunning=DUNNING)
    await builder.stock()
    crowd = await builder.plan("foreign")
    builder.crowd = {
        "billing_shared_subscription_id": crowd.subscription_id,
        "billing_shared_subscription_role": "user",
    }
    made: dict[str, list[Plan]] = {}
    for kind, days in (("unpaid", 44.0), ("past due", 31.2)):
        if kind in kinds:
            made[kind] = await builder.in_arrears(kind, 1 + needed.get(kind, 0), days=days)
    others = ["foreign", *(kind for kind in kinds if kind not in ("unpaid", "past due", "absent"))]
    wanted = [kind for kind in others for _ in range(1 + needed.get(kind, 0))]
    tell(f"making {len(wanted)} plans with their people")
    for plan in await builder.plans(wanted):
        made.setdefault(plan.kind, []).append(plan)
    world.shared = {kind: plans[0] for kind, plans in made.items()}
    world.fresh = {kind: plans[1:] for kind, plans in made.items()}
    world.absent_customer = absent_like(world.foreign.owner.customer_id)
    await world.service.fill()
    await builder.hear_of_other_modes()
    await in_batches(
        builder.invite(plan) for plans in made.values() for plan in plans if plan.kind != "plain"
    )
    seen = await api.get("/v1/customers/me", headers=dict(world.foreign.owner.headers))
    assert seen.status_code == httpx.codes.OK, seen.text
    if "absent" in kinds:
        world.shared["absent"] = absent_plan(world.shared["active"])
    await in_batches(builder.offer(plan, api) for plan in made.get("offered", []))
    await see_as_the_foreign(world, api)
    tell(f"{sum(map(len, made.values()))} plans are cached")


def absent_plan(like: Plan) -> Plan:
    """The people of a plan, and ids that name nothing."""
    made = Plan(
        "absent", like.seats, like.owner, like.payer, like.outsider, payment_method_id=like.payment_method_id
    )
    made.manager, made.peer, made.user, made.second = like.manager, like.peer, like.user, like.second
    made.elsewhere = like.elsewhere
    made.subscription_id, made.item_id = absent_like(like.subscription_id), absent_like(like.item_id)
    made.invoice_id, made.operation_id = absent_like(like.invoice_id), f"op_{'0' * 24}"
    return made


def environment_of(stripe: Simulator, database_url: str, **overrides: str) -> dict[str, str]:
    return service_environment(
        database_url=database_url, stripe_base=stripe.base_url, stripe_key=stripe.api_key, **overrides
    )
