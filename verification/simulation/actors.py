"""What people do in a schedule: requests of owners, managers, users and services, and edits in the Dashboard."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from testkit.service import as_service
from verification.simulation.world import SERVICE, Company, Person, World

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wish:
    """A request before it is sent. `actor_id` None: a service key that acts for nobody."""

    who: str
    actor_id: str | None
    headers: Mapping[str, str]
    method: str
    path: str
    body: Json | None


class Actors:
    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self._new = 0
        one, other = self.rng.sample(world.companies, 2)
        self._first: list[tuple[Company, Person | None]] = [
            (one, one.owner),
            (one, one.managers[0]),
            (other, other.owner),
            (self.rng.choice((one, other)), None),
        ]
        self.rng.shuffle(self._first)
        self._offered: dict[str, Person] = {}

    # --------------------------------------------------------------------------------------------- requests

    def wish(self) -> Wish:
        """The first four come from four different callers."""
        company = self.rng.choices(self.world.companies, (0.7, 0.3))[0]
        if self._first:
            company, who = self._first.pop()
            kind = self.rng.choice(
                (self._add, self._add, self._remove, self._mixed, self._buying, self._seats)
            )
            return kind(company, who)
        who = self._who(company)
        kinds: list[tuple[float, Any]] = [
            (5, self._add),
            (3, self._remove),
            (2, self._update),
            (2, self._mixed),
            (2, self._buying),
            (3, self._seats),
            (1, self._leave),
            (1.6, self._transfer),
            (0.25, self._cancel),
            (0.5, self._people),
        ]
        if self.world.is_paying:
            kinds += [(5, self._buying), (3, self._seats)]
        kind = self.rng.choices([found for _, found in kinds], [weight for weight, _ in kinds])[0]
        wish: Wish = kind(company, who)
        return wish

    def _who(self, company: Company) -> Person | None:
        """None: a service key."""
        drawn = self.rng.random()
        if drawn < 0.45:
            return company.owner
        if drawn < 0.72:
            return self.rng.choice(company.managers)
        if drawn < 0.78:
            return self.rng.choice(company.users)
        if drawn < 0.82:
            return self.rng.choice(self.world.strangers)
        return None

    def _made(self, who: Person | None, method: str, path: str, body: Json | None) -> Wish:
        if who is None:
            return Wish("service", None, SERVICE, method, path, body)
        if self.rng.random() < 0.15:
            clamped = as_service("write", acting_for=who.customer_id)
            return Wish(f"service for {who.label}", who.customer_id, clamped, method, path, body)
        return Wish(who.label, who.customer_id, who.headers, method, path, body)

    def _addition(self, company: Company, who: Person | None) -> Json:
        by_owner = who is None or who is company.owner
        role = "manager" if self.rng.random() < (0.3 if by_owner else 0.05) else "user"
        drawn = self.rng.random()
        if drawn < 0.45:
            return {"email": self.rng.choice(self.world.strangers).email, "role": role}
        if drawn < 0.75:
            self._new += self.rng.random() < 0.8
            return {"email": f"new{self._new}@example.com", "role": role}
        person = self.rng.choice([*self.world.strangers, *self._members(), *company.users])
        return {"customer_id": person.customer_id, "role": role} if drawn < 0.9 else {"email": person.email}

    def _additions(self, company: Company, who: Person | None, number: int) -> list[Json]:
        found: dict[str, Json] = {}
        for _ in range(number):
            addition = self._addition(company, who)
            found.setdefault(str(addition.get("email") or addition.get("customer_id")), addition)
        return list(found.values())

    def _members(self) -> list[Person]:
        return [person for company in self.world.companies for person in (*company.managers, *company.users)]

    def _changes(self, company: Company, who: Person | None, body: Json) -> Wish:
        return self._made(who, "PATCH", f"{company.path}/users", body)

    def _add(self, company: Company, who: Person | None) -> Wish:
        number = self.rng.choice((1, 1, 1, 2, 3))
        return self._changes(company, who, {"add": self._additions(company, who, number)})

    def _someone(self, company: Company) -> Person:
        people = [*company.users * 3, *company.managers * 2, *self.world.strangers]
        return self.rng.choice(people)

    def _remove(self, company: Company, who: Person | None) -> Wish:
        return self._changes(company, who, {"remove": [self._someone(company).customer_id]})

    def _update(self, company: Company, who: Person | None) -> Wish:
        who = company.owner if self.rng.random() < 0.5 else who
        change = {
            "customer_id": self._someone(company).customer_id,
            "role": self.rng.choice(("user", "manager")),
        }
        return self._changes(company, who, {"update": [change]})

    def _mixed(self, company: Company, who: Person | None) -> Wish:
        gone = self._someone(company)
        return self._changes(
            company, who, {"remove": [gone.customer_id], "add": self._additions(company, who, 2)}
        )

    def _buying(self, company: Company, who: Person | None) -> Wish:
        adds = self._additions(company, who, self.rng.choice((1, 2, 3)))
        return self._changes(company, who, {"add": adds, "over_capacity": "add_seats"})

    def _seats(self, company: Company, who: Person | None) -> Wish:
        total = max(1, company.seats + self.rng.choice((-2, -1, -1, 0, 1, 2)))
        return self._made(who, "PUT", f"{company.path}/seats", {"total": total})

    def _leave(self, company: Company, who: Person | None) -> Wish:
        leaver = self.rng.choice([*company.users, *company.managers])
        return self._made(leaver, "DELETE", f"{company.path}/users/me", None)

    def _transfer(self, company: Company, who: Person | None) -> Wish:
        path = f"{company.path}/transfer"
        taker = self._offered.pop(company.subscription_id, None)
        if taker is None:
            to = self.rng.choice([*company.managers, *company.users])
            self._offered[company.subscription_id] = to
            keep = self.rng.choice((None, "user", "manager"))
            body = {"to_customer_id": to.customer_id, "allow_purchases": self.rng.random() < 0.5}
            return self._made(
                company.owner, "POST", path, body if keep is None else {**body, "keep_me_as": keep}
            )
        return self._made(taker if self.rng.random() < 0.9 else None, "POST", f"{path}/accept", None)

    def _cancel(self, company: Company, who: Person | None) -> Wish:
        path = f"/v1/subscriptions/{company.subscription_id}/cancel"
        return self._made(company.owner, "POST", path, {"when": self.rng.choice(("now", "period_end"))})

    def _people(self, company: Company, who: Person | None) -> Wish:
        return self._made(who, "GET", f"{company.path}/users", None)

    def abandon(self, operation_id: str) -> Wish:
        """Somebody ends a purchase that waits for its payment."""
        drawn = self.rng.random()
        who = None if drawn < 0.5 else self.world.companies[0].owner
        return self._made(who, "POST", f"/v1/operations/{operation_id}/cancel", None)

    # ---------------------------------------------------------------------------------------------- by hand

    def edit(self) -> str:
        """Somebody changes an object in the Dashboard; what he did."""
        rng, world = self.rng, self.world
        company = rng.choice(world.companies)
        person = rng.choice([*self._members(), *world.strangers])
        kinds = (
            "seat",
            "seat",
            "unseat",
            "role",
            "quantity",
            "quantity",
            "owner",
            "rename",
            "delete",
            "odd role",
        )
        kind = rng.choices(kinds, (3, 1, 3, 2, 2, 2, 1, 2, 0.5, 1))[0]
        id_key, role_key = "billing_shared_subscription_id", "billing_shared_subscription_role"
        target, method = f"/v1/customers/{person.customer_id}", "POST"
        fields: dict[str, Any] = {}
        match kind:
            case "seat":
                typed = f"  {company.subscription_id} " if rng.random() < 0.3 else company.subscription_id
                fields = {"metadata": {id_key: typed, role_key: rng.choice(("user", " Manager", "user"))}}
            case "unseat":
                fields = {"metadata": {id_key: "", role_key: ""}}
            case "role":
                fields = {"metadata": {role_key: rng.choice(("user", "manager"))}}
            case "odd role":
                fields = {"metadata": {role_key: rng.choice(("owner", "admin", "Manager "))}}
            case "quantity":
                target = f"/v1/subscriptions/{company.subscription_id}"
                quantity = max(1, company.seats + rng.choice((-3, -2, -1, 1, 2)))
                fields = {
                    "items": [{"id": company.item_id, "quantity": quantity}],
                    "proration_behavior": "none",
                }
            case "owner":
                target = f"/v1/subscriptions/{company.subscription_id}"
                new = rng.choice([company.owner.customer_id, person.customer_id, ""])
                fields = {"metadata": {"billing_shared_subscription_owner": new}}
            case "rename":
                fields = {"name": f"{person.label} {rng.randint(1, 99)}"}
            case "delete":
                method = "DELETE"
        if kind in ("seat", "unseat", "role") and world.has_several and world.own_keys.random() < 0.6:
            # In the key of the plan itself, beside whatever the guide's keys say.
            role = "" if kind == "unseat" else world.own_keys.choice(("user", " Manager", "manager"))
            fields = {"metadata": {f"billing_{company.subscription_id}": role}}
        try:
            world.stripe.dashboard(method, target, fields)
        except LookupError:
            return f"{kind} {target}: refused"
        return f"{kind} {target}"
