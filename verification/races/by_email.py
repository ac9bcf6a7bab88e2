"""`python -m verification.races.by_email`: the three cases of sharing by e-mail, over HTTP.

Who first logs in with the verified e-mail of an added seat reaches it, once, and nobody else does. Who edits his own
e-mail gets nobody's seat. Who adds a customer that is a stranger to him learns nothing of him. What the answers say
is compared with the stand-in. One JSON line; the exit code is 1 on a miss.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from testkit import seat_world
from testkit.company import Company
from testkit.seat_world import Json, World, role_on
from testkit.service import as_user


@dataclass
class Case:
    """One case's checks; `misses` tell what was found instead."""

    world: World
    company: Company
    checks: int = 0
    misses: list[str] = field(default_factory=list)

    def expect(self, what: str, found: object, expected: object) -> None:
        self.checks += 1
        if found != expected:
            self.misses.append(f"{what}: {found!r}, not {expected!r}")

    async def ask(self, method: str, path: str, who: Mapping[str, str], body: Any = None) -> httpx.Response:
        return await self.world.call(self.checks, method, path, who, body)

    async def told(self, what: str, answer: httpx.Response, status: int, code: str | None = None) -> Json:
        found: Json = answer.json()
        self.expect(what, (answer.status_code, found.get("code")), (status, code))
        return found

    async def hidden(self, what: str, path: str, who: Mapping[str, str]) -> None:
        await self.told(what, await self.ask("GET", path, who), 404, "not_found")

    async def added(self, *entries: Json) -> Json:
        """The one result of an addition by the owner."""
        who = self.company.owner.headers
        answer = await self.ask("PATCH", f"{self.company.path}/users", who, {"add": list(entries)})
        results: list[Json] = answer.json()["results"]
        return results[0]

    async def holders(self, email: str) -> list[str]:
        """Customers who hold a seat at the stand-in, by e-mail."""
        people = (await self.world.customers()).values()
        seated = [one for one in people if role_on(one, self.company.subscription_id) is not None]
        return [one["id"] for one in seated if one["email"] == email]


def login(email: str, *, verified: bool) -> dict[str, str]:
    return as_user(f"login-{secrets.token_hex(6)}", email=email, email_verified=verified)


async def first_login(case: Case) -> None:
    email, path = f"{secrets.token_hex(8)}@example.com", case.company.path
    seat = (await case.added({"email": email}))["customer_id"]
    early = login(email, verified=False)
    other = await case.told("unverified login", await case.ask("POST", "/v1/customers", early, {}), 201)
    case.expect("the unverified login has the seat", other["customer"]["id"] == seat, False)
    await case.hidden("the plan to the unverified login", path, early)
    person = login(email.upper(), verified=True)
    reached = await case.told("verified login", await case.ask("POST", "/v1/customers", person, {}), 200)
    case.expect("the verified login's customer", reached["customer"]["id"], seat)
    plan = await case.told("the plan to its user", await case.ask("GET", path, person), 200)
    case.expect("role", plan["subscription"]["role"], "user")
    late = login(email, verified=True)
    second = await case.told("second login", await case.ask("POST", "/v1/customers", late, {}), 201)
    case.expect("the second login has the seat", second["customer"]["id"] == seat, False)
    await case.hidden("the plan to the second login", path, late)
    case.expect("seats held", await case.holders(email), [seat])


async def own_email_edited(case: Case) -> None:
    email, path = f"{secrets.token_hex(8)}@example.com", case.company.path
    thief = await case.world.service.person("thief")
    before = await case.ask("PATCH", "/v1/customers/me", thief.headers, {"email": email})
    await case.told("edit before the addition", before, 403, "field_not_allowed")
    seat = (await case.added({"email": email}))["customer_id"]
    after = await case.ask("PATCH", "/v1/customers/me", thief.headers, {"email": email})
    await case.told("edit after the addition", after, 403, "field_not_allowed")
    await case.told("trigger", await case.ask("POST", "/v1/customers", thief.headers, {}), 200)
    # Even where the e-mail was edited past us.
    await case.world.stripe.post(f"/v1/customers/{thief.customer_id}", email=email)
    await case.world.service.refresh("customer", thief.customer_id)
    again = await case.told("trigger again", await case.ask("POST", "/v1/customers", thief.headers, {}), 200)
    case.expect("the thief's customer", again["customer"]["id"], thief.customer_id)
    await case.hidden("the plan to the thief", path, thief.headers)
    case.expect("seats held", await case.holders(email), [seat])


async def foreign_customer(case: Case) -> None:
    owner, path = case.company.owner.headers, case.company.path
    foreign, stranger = await case.world.service.person("foreign"), await case.world.service.person("other")
    by_id = await case.added({"customer_id": stranger.customer_id})
    nobody = await case.added({"customer_id": "cus_nobodyatall"})
    for result in (by_id, nobody):
        case.expect("by id", (result["outcome"], result["code"]), ("refused", "not_found"))
    result = await case.added({"email": foreign.email.upper()})
    case.expect("outcome", (result["outcome"], result["customer_id"]), ("applied", foreign.customer_id))
    listed = await case.told("list", await case.ask("GET", f"{path}/users?limit=100", owner), 200)
    rows = [row for row in listed["data"] if row["customer_id"] == foreign.customer_id]
    shown = [(row["email"], row["name"]) for row in rows]
    # The address as the owner typed it, and no name: both of the person are theirs to show.
    case.expect("name and e-mail", shown, [(foreign.email.upper(), None)])
    for tail in ("", "/subscriptions", "/invoices", "/payment-methods", "/upcoming-invoice"):
        for one in (foreign, stranger):
            await case.hidden(f"customer{tail}", f"/v1/customers/{one.customer_id}{tail}", owner)
    # One who has a seat elsewhere: neither that nor his id is told.
    elsewhere = await case.world.service.company(users=1)
    refused = await case.added({"email": elsewhere.user.email})
    told = (refused["outcome"], refused["code"], refused["customer_id"])
    case.expect("on another plan", told, ("refused", "cannot_be_added", None))
    case.expect("seats held", await case.holders(foreign.email), [foreign.customer_id])


CASES = {
    "first_login_reaches_the_seat": first_login,
    "own_email_edited_gives_no_seat": own_email_edited,
    "foreign_customer_added_gives_no_data": foreign_customer,
}


async def play(world: World, given: argparse.Namespace) -> Json:
    checks: Counter[str] = Counter()
    misses: list[str] = []
    for _ in range(given.rounds):
        company = await world.service.company(users=0)
        for name, play_case in CASES.items():
            case = Case(world, company)
            await play_case(case)
            checks[name] += case.checks
            misses += [f"{name}: {miss}" for miss in case.misses]
    return {"met": not misses, "rounds": given.rounds, "checks": dict(checks), "misses": misses[:10]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="verification.races.by_email", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of the three cases (default 3)")
    seat_world.state_option(parser)
    given = parser.parse_args()
    found = seat_world.run(
        "by_email", given.state, lambda world: play(world, given), apis=2, MEMBERSHIPS_PER_CUSTOMER="1"
    )
    print(json.dumps({"benchmark": "by_email", **found}))
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
