"""`python -m verification.races.repeats`: what is asked again within a day, over HTTP and two API processes.

Adding, removing and adding again are three effects, each with a key of its own. One Idempotency-Key sent twice, or
twenty times at once, is one effect and one answer; with another body it is refused. Judged by the stand-in's log of
versions, with an answer lost now and then: at most three in the time in which five would open a breaker. One JSON
line; the exit code is 1 on a miss.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.stripe.breaker import WINDOW_SECONDS
from testkit import seat_world
from testkit.company import Company, Person
from testkit.seat_world import Json, World

AT_ONCE = 20
LOST: Json = {"method": "POST", "timeout": 0.05}
"""An answer that is lost once, before or after the effect."""


@dataclass
class Tally:
    effects: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    misses: list[str] = field(default_factory=list)

    def expect(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            self.misses.append(f"{what}: {found!r}, not {expected!r}")


async def writes(world: World, object_id: str) -> list[Json]:
    """The versions of an object that the service made."""
    versions = await world.stripe.versions(object=object_id)
    return [version for version in versions if version["actor"]["idempotency_key"]]


async def add_remove_add(
    world: World, company: Company, person: Person, lost: str | None, tally: Tally
) -> None:
    before = len(await writes(world, person.customer_id))
    path, who = f"{company.path}/users", company.owner.headers
    bodies = [
        {"add": [{"email": person.email}]},
        {"remove": [person.customer_id]},
        {"add": [{"customer_id": person.customer_id}]},
    ]
    for number, body in enumerate(bodies):
        if lost is not None:
            where = {"path": "/v1/customers/{id}", "object": person.customer_id}
            await world.stripe.add_fault(**LOST, **where, effect=lost)
        answer = await world.call(number, "PATCH", path, who, body)
        tally.expect("outcome", answer.json()["results"][0]["outcome"], "applied")
    made = (await writes(world, person.customer_id))[before:]
    homes = [one["state"]["metadata"].get("billing_shared_subscription_id") for one in made]
    tally.expect("add, remove, add", homes, [company.subscription_id, None, company.subscription_id])
    tally.expect("keys", len({one["actor"]["idempotency_key"] for one in made}), 3)
    tally.effects["add, remove, add"] += len(made)


SETTLE_TRIES, SETTLE_PAUSE = 80, 0.5


async def one_key(
    world: World,
    company: Company,
    method: str,
    path: str,
    bodies: tuple[Any, Any],
    lost: str | None,
    tally: Tally,
) -> None:
    """The first body often with one key, one after another and at once; then the second body with it."""
    key, who, name = secrets.token_hex(8), company.owner.headers, f"{method} {path.rpartition('/')[2]}"
    if lost is not None:
        target = {"PATCH": "/v1/customers", "PUT": "/v1/subscriptions/{id}", "POST": "/v1/subscriptions"}
        await world.stripe.add_fault(**LOST, path=target[method], effect=lost)
    answers = await asyncio.gather(
        *(world.call(n, method, path, who, bodies[0], Idempotency_Key=key) for n in range(AT_ONCE))
    )
    answers += [await world.call(n, method, path, who, bodies[0], Idempotency_Key=key) for n in range(2)]
    settled = [one for one in answers if one.status_code < httpx.codes.BAD_REQUEST]
    tally.answers.update(f"{name} {one.status_code} {one.json().get('code') or 'ok'}" for one in answers)
    tally.expect(f"{name}: different answers", len({one.content for one in settled}), 1)
    others = {one.json()["code"] for one in answers if one not in settled}
    tally.expect(f"{name}: other answers", others - {"request_in_progress"}, set())
    first = [one for one in settled if "Idempotency-Replayed" not in one.headers]
    tally.expect(f"{name}: not replayed", len(first), 1)
    other = await world.call(0, method, path, who, bodies[1], Idempotency_Key=key)
    told = (other.status_code, other.json().get("code"))
    tally.expect(f"{name}: another body", told, (422, "idempotency_key_reused"))


async def keys(world: World, company: Company, lost: str | None, tally: Tally) -> None:
    emails = [f"{secrets.token_hex(8)}@example.com" for _ in range(2)]
    changes = tuple({"add": [{"email": email}]} for email in emails)
    await one_key(world, company, "PATCH", f"{company.path}/users", (changes[0], changes[1]), lost, tally)
    created = Counter(one.get("email") for one in await world.stripe.state("customer"))
    tally.expect("customers created", [created[email] for email in emails], [1, 0])
    tally.effects["members added"] += created[emails[0]]

    quantity = await world.quantity(company)
    before = len(await writes(world, company.subscription_id))
    totals = ({"total": quantity + 1}, {"total": quantity + 2})
    await one_key(world, company, "PUT", f"{company.path}/seats", totals, lost, tally)
    tally.expect("seats", await world.quantity(company), quantity + 1)
    made = len(await writes(world, company.subscription_id)) - before
    tally.expect("quantity writes", made, 1)
    tally.effects["quantity writes"] += made

    held = await subscriptions_of(world, company)
    # A price of its own: a customer cannot buy a price twice.
    price = await world.service.price(company.product_id)
    items = {"items": [{"price_id": price["id"], "quantity": 1}]}
    bought = {**items, "payment_method_id": company.payment_method_id}
    path = f"/v1/customers/{company.payer.customer_id}/subscriptions"
    await one_key(world, company, "POST", path, (bought, items), lost, tally)
    made = await bought_since(world, company, held)
    tally.expect("purchases", made, 1)
    tally.effects["purchases"] += made


async def bought_since(world: World, company: Company, held: int) -> int:
    """Return how many subscriptions were added. A purchase whose answers were lost is left to the worker."""
    for _ in range(SETTLE_TRIES):
        if made := await subscriptions_of(world, company) - held:
            return made
        await asyncio.sleep(SETTLE_PAUSE)
    return 0


async def subscriptions_of(world: World, company: Company) -> int:
    found = await world.stripe.get("/v1/subscriptions", customer=company.payer.customer_id, limit=100)
    return len(found["data"])


async def play(world: World, given: argparse.Namespace) -> Json:
    tally = Tally()
    company = await world.service.company(seats=given.rounds + 10, users=0)
    for number in range(given.rounds):
        lost = (None, "before", "after")[number % 3]
        person = await world.service.person("again")
        await add_remove_add(world, company, person, lost, tally)
        await asyncio.sleep(WINDOW_SECONDS)
        await keys(world, company, lost, tally)
        await world.stripe.clear_faults()
        await asyncio.sleep(WINDOW_SECONDS)
    left = await world.live_reservations()
    tally.expect("reservations left", left, 0)
    return {
        "met": not tally.misses,
        "rounds": given.rounds,
        "effects": dict(tally.effects),
        "answers": dict(tally.answers),
        "load_average": seat_world.load_average(),
        "misses": tally.misses[:10],
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="verification.races.repeats", description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="every third without a lost answer (default 6)")
    seat_world.state_option(parser)
    given = parser.parse_args()
    # What is on sale is not the question here.
    found = seat_world.run("repeats", given.state, lambda world: play(world, given), apis=2, CATALOGUE="open")
    print(json.dumps({"benchmark": "repeats", **found}))
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
