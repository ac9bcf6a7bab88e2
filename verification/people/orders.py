"""One order: four people and an impostor on three subscriptions, and what is done to them one after another."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.customers import emptied, erasure
from testkit.company import Company, Service
from testkit.service import as_service, as_user

PEOPLE, SUBSCRIPTIONS, SEATS = 4, 3, 7
_GUIDES = {"billing_shared_subscription_id": "", "billing_shared_subscription_role": ""}


@dataclass
class Person:
    """A person of the application.

    `ids`: every customer that answers named as theirs. `own_id`: that of their login, once a token or a service key has
    verified the address.
    """

    subject: str
    email: str
    is_verified: bool = False
    own_id: str | None = None
    ids: set[str] = field(default_factory=set)

    def token(self, *, verified: bool) -> dict[str, str]:
        return as_user(self.subject, email=self.email, email_verified=verified)


@dataclass
class Order:
    """What happened.

    `given`: the seats that people have by what was answered or typed in the Dashboard. `bad`: answers that must not be,
    each with the letter of its invariant.
    """

    seed: str
    service: Service
    companies: list[Company]
    people: list[Person]
    given: set[tuple[int, int]] = field(default_factory=set)
    invitations: dict[tuple[int, int], str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    def seen(self, name: str, response: httpx.Response) -> Any:
        """Note an answer, and return its document."""
        document = response.json() if response.content else {}
        codes = [one.get("code") for one in document.get("results", [])] or [document.get("code")]
        self.log.append(f"{name}: {response.status_code} {codes}")
        if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR or "ambiguous_email" in codes:
            self.bad.append(f"A {self.log[-1]}")
        return document

    def person_of(self, customer: Mapping[str, Any]) -> int | None:
        """Return the number of the person whose customer this is."""
        named = (customer.get("metadata") or {}).get("billing_user_id")
        for number, person in enumerate(self.people):
            if named is not None and named != person.subject:
                continue
            if named or customer.get("email") == person.email or customer["id"] in person.ids:
                return number
        return None

    async def customers(self) -> list[dict[str, Any]]:
        """Return the customers that exist at Stripe."""
        return [one for one in await self.service.stripe.state("customer") if not one.get("deleted")]

    async def exists(self, customer_id: str | None) -> bool:
        """Return True if the customer exists at Stripe."""
        return any(one["id"] == customer_id for one in await self.customers())

    async def holders(self, number: int, on: int) -> list[str]:
        """Return the customers of a person that are members of a subscription, at Stripe."""
        name = self.companies[on].subscription_id
        return [
            one["id"]
            for one in await self.customers()
            if self.person_of(one) == number and name in memberships(one.get("metadata") or {})
        ]


def memberships(metadata: Mapping[str, str]) -> set[str]:
    """Return the subscriptions that a customer's metadata names."""
    further = {key.removeprefix("billing_") for key in metadata if key.startswith("billing_sub_")}
    return {metadata.get("billing_shared_subscription_id", ""), *further} - {""}


async def add(order: Order, number: int, on: int, choice: random.Random) -> None:
    person, company = order.people[number], order.companies[on]
    role = choice.choice(["user", "user", "manager"])
    entry = {"email": person.email, "role": role}
    document = order.seen("add", await company.change(company.owner.headers, add=[entry]))
    for result in document.get("results", []):
        if result["outcome"] in ("applied", "unchanged"):
            order.given.add((number, on))
            if result["customer_id"] != person.own_id and await order.exists(person.own_id):
                order.bad.append(f"R an addition of person {number} names {result['customer_id']}")
            person.ids.add(result["customer_id"])
            order.invitations.pop((number, on), None)


async def sign_up(order: Order, number: int, who: Mapping[str, str], body: Any, name: str) -> str | None:
    """Send a login to its customer, and return that customer's id."""
    document = order.seen(name, await order.service.send("POST", "/v1/customers", who, body))
    if "customer" not in document:
        return None
    customer_id = str(document["customer"]["id"])
    order.people[number].ids.add(customer_id)
    return customer_id


async def unverified(order: Order, number: int, on: int, choice: random.Random) -> None:
    await sign_up(order, number, order.people[number].token(verified=False), {}, "unverified")


async def verified(order: Order, number: int, on: int, choice: random.Random) -> None:
    who = order.people[number].token(verified=True)
    order.people[number].is_verified = True
    if choice.random() < 0.5:
        order.people[number].own_id = await sign_up(order, number, who, {}, "verified")
    else:
        order.seen("verified read", await order.service.get(order.companies[on].path, who))


async def by_key(order: Order, number: int, on: int, choice: random.Random) -> None:
    person = order.people[number]
    person.is_verified = True
    body = {"user_id": person.subject, "email": person.email}
    person.own_id = await sign_up(order, number, as_service("write"), body, "key")


async def new_address(order: Order, number: int, on: int, choice: random.Random) -> None:
    person = order.people[number]
    person.is_verified = True
    who, body = person.token(verified=True), {"email": person.email}
    order.seen("address", await order.service.send("PATCH", "/v1/customers/me", who, body))


async def impostor(order: Order, number: int, on: int, choice: random.Random) -> None:
    """Somebody else signs up with an address that their token does not verify."""
    who = as_user(f"impostor-{choice.random()}", email=order.people[number].email, email_verified=False)
    order.seen("impostor", await order.service.send("POST", "/v1/customers", who, {}))


async def remove(order: Order, number: int, on: int, choice: random.Random) -> None:
    company = order.companies[on]
    found = await order.holders(number, on)
    if not found:
        return
    order.seen("remove", await company.change(company.owner.headers, remove=found))
    if not await order.holders(number, on):
        order.given.discard((number, on))


async def edit(order: Order, number: int, on: int, choice: random.Random) -> None:
    """Somebody takes the seat away in the Dashboard."""
    for customer_id in await order.holders(number, on):
        key = f"billing_{order.companies[on].subscription_id}"
        found = await order.service.stripe.get(f"/v1/customers/{customer_id}")
        is_guides = (
            found["metadata"].get("billing_shared_subscription_id") == order.companies[on].subscription_id
        )
        await order.service.stripe.post(
            f"/v1/customers/{customer_id}", metadata={key: "", **(_GUIDES if is_guides else {})}
        )
        await order.service.refresh("customer", customer_id)
    order.log.append("edit")
    order.given.discard((number, on))


async def delete(order: Order, number: int, on: int, choice: random.Random) -> None:
    """Somebody deletes one of the person's customers in the Dashboard."""
    mine = [one for one in await order.customers() if order.person_of(one) == number]
    if not mine:
        return
    gone = choice.choice(mine)
    lost = memberships(gone.get("metadata") or {})
    await order.service.stripe.delete(f"/v1/customers/{gone['id']}")
    await order.service.refresh("customer", gone["id"])
    order.log.append("delete")
    for place, company in enumerate(order.companies):
        if company.subscription_id in lost and not await order.holders(number, place):
            order.given.discard((number, place))
    order.invitations = {key: token for key, token in order.invitations.items() if key[0] != number}


async def create(order: Order, number: int, on: int, choice: random.Random) -> None:
    """Somebody creates a customer with the person's address in the Dashboard."""
    created = await order.service.stripe.post("/v1/customers", email=order.people[number].email)
    await order.service.refresh("customer", created["id"])
    order.log.append("create")
    if choice.random() < 0.5:
        # Of the customers that have the address by now, an addition must find that of the person's login.
        await add(order, number, on, choice)


async def invite(order: Order, number: int, on: int, choice: random.Random) -> None:
    path, body = (
        f"{order.companies[on].path}/invitations",
        {"email": order.people[number].email, "role": "user"},
    )
    document = order.seen("invite", await order.service.send("POST", path, as_service("write"), body))
    if "token" in document:
        order.invitations[number, on] = document["token"]


async def accept(order: Order, number: int, on: int, choice: random.Random) -> None:
    token = order.invitations.pop((number, on), None)
    if token is None:
        return
    person = order.people[number]
    person.is_verified = True
    who, body = person.token(verified=True), {"token": token}
    response = await order.service.send("POST", "/v1/invitations/accept", who, body)
    document = order.seen("accept", response)
    if response.status_code == httpx.codes.OK:
        order.given.add((number, on))
        [result] = document["results"]
        person.own_id = result["customer_id"]
        person.ids.add(result["customer_id"])


async def upkeep(order: Order, number: int, on: int, choice: random.Random) -> None:
    """Run the worker's jobs once."""
    await order.service.move_seats()
    await order.service.work_off()
    await emptied.delete_emptied(order.service.context)
    await erasure.erase_deleted(order.service.context)


Step = Callable[[Order, int, int, random.Random], Awaitable[None]]
STEPS: Mapping[Step, int] = {
    add: 6,
    unverified: 3,
    verified: 3,
    by_key: 1,
    new_address: 1,
    impostor: 1,
    remove: 2,
    edit: 1,
    delete: 1,
    create: 1,
    invite: 2,
    accept: 2,
    upkeep: 2,
}


async def play(service: Service, seed: str) -> Order:
    """Do 10 to 20 things in the order that the seed gives, and then let everything come to rest."""
    choice = random.Random(seed)
    mark = seed.replace("/", "-")
    people = [
        Person(f"person-{mark}-{number}", f"person.{mark}.{number}@example.com") for number in range(PEOPLE)
    ]
    companies = [await service.company(seats=SEATS, users=0) for _ in range(SUBSCRIPTIONS)]
    order = Order(seed, service, companies, people)
    for step in choice.choices(list(STEPS), list(STEPS.values()), k=choice.randint(10, 20)):
        await step(order, choice.randrange(PEOPLE), choice.randrange(SUBSCRIPTIONS), choice)
    for number, person in enumerate(people):
        if person.is_verified:
            await sign_up(order, number, person.token(verified=True), {}, "at last")
    for _ in range(3):
        await upkeep(order, 0, 0, choice)
    return order
