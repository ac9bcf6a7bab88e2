"""What people do about invitations: invite, accept, decline, revoke, resend, add the invited address, lose the right.

Everything is drawn from a source of its own, so that schedules without invitations stay as they were. A token is made
here as the mail to the invited person would have it: from the invitation's id and generation, as committed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from testkit.service import INVITATION_SECRET, as_service
from verification.simulation.actors import Wish
from verification.simulation.held_database import Change
from verification.simulation.world import SERVICE, Company, Person, World

ACCEPT = "/v1/invitations/accept"
DECLINE = "/v1/invitations/decline"
_GUESTS = 3
_SUPERSEDED_SHARE = 0.3
_FORWARDED_SHARE = 0.2


def token_of(invitation_id: str, generation: int) -> str:
    """The token as the invited person gets it."""
    name = f"{invitation_id}.{generation}"
    digest = hmac.new(INVITATION_SECRET.encode(), name.encode(), hashlib.sha256).digest()
    return f"{name}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


@dataclass(slots=True)
class Invited:
    """An invitation as it was last committed."""

    id: str
    subscription_id: str
    email: str
    generation: int
    is_open: bool
    inviter_id: str | None


@dataclass(slots=True)
class Inviting:
    world: World
    seed: str
    left: int = 0
    """Acts that are still to come."""
    known: dict[str, Invited] = field(default_factory=dict)
    rng: random.Random = field(init=False)
    guests: list[Person] = field(init=False)
    """People without a customer until they accept."""

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{self.seed} invitations")
        self.left = self.rng.randint(8, 14)
        self.guests = [
            Person(label, "", email, self.world.parts.verified_headers_of(label, email))
            for label in (f"guest{number}" for number in range(_GUESTS))
            for email in [f"{label}@example.com"]
        ]

    def take_notice(self, changes: Sequence[Change]) -> None:
        """Of invitations that were committed."""
        for change in changes:
            if change.table == "invitations":
                row = change.row
                email = row["email"] or self.known[row["id"]].email
                is_open = row["state"] == "open"
                self.known[row["id"]] = Invited(
                    row["id"], row["subscription_id"], email, row["generation"], is_open, row["inviter_id"]
                )

    def open_ones(self) -> list[Invited]:
        """The invitations that are open, oldest first."""
        return [one for one in self.known.values() if one.is_open]

    def wish(self) -> Wish:
        """The next request about an invitation."""
        self.left -= 1
        company = self.rng.choices(self.world.companies, (0.6, 0.4))[0]
        found = [one for one in self.known.values() if one.is_open or self.rng.random() < 0.2]
        if not found:
            return self._invite(company)
        invited = self.rng.choice(found)
        kinds: list[tuple[float, Callable[[], Wish]]] = [
            (4.0, lambda: self._invite(company)),
            (6.0, lambda: self.accept(invited)),
            (1.2, lambda: self._end(invited, "DELETE", "")),
            (1.0, lambda: self._end(invited, "POST", "/resend")),
            (0.5, lambda: self._decline(invited)),
            (1.2, lambda: self._add(invited)),
            (1.6, lambda: self._take_the_right(invited)),
            (0.3, lambda: self._list(company)),
        ]
        return self.rng.choices([kind for _, kind in kinds], [weight for weight, _ in kinds])[0]()

    # ---------------------------------------------------------------------------------------------- inviters

    def _company(self, invited: Invited) -> Company:
        return next(one for one in self.world.companies if one.subscription_id == invited.subscription_id)

    def _by(self, who: Person | None, method: str, path: str, body: dict[str, object] | None) -> Wish:
        if who is None:
            return Wish("service", None, SERVICE, method, path, body)
        if self.rng.random() < 0.25:
            clamped = as_service("write", acting_for=who.customer_id)
            return Wish(f"service for {who.label}", who.customer_id, clamped, method, path, body)
        return Wish(who.label, who.customer_id, who.headers, method, path, body)

    def _inviter(self, company: Company) -> Person | None:
        """None: a service key."""
        drawn = self.rng.random()
        if drawn < 0.3:
            return company.owner
        if drawn < 0.7:
            return self.rng.choice(company.managers)
        return self.rng.choice(company.users) if drawn < 0.75 else None

    def _invite(self, company: Company) -> Wish:
        drawn = self.rng.random()
        if drawn < 0.45:
            email = self.rng.choice(self.guests).email
        elif drawn < 0.85:
            email = self.rng.choice(self.world.strangers).email
        else:
            email = self.rng.choice([person for one in self.world.companies for person in one.people]).email
        role = "manager" if self.rng.random() < 0.25 else "user"
        body: dict[str, object] = {"email": email, "role": role}
        return self._by(self._inviter(company), "POST", f"{company.path}/invitations", body)

    def _end(self, invited: Invited, method: str, more: str) -> Wish:
        company = self._company(invited)
        path = f"{company.path}/invitations/{invited.id}{more}"
        return self._by(self._inviter(company), method, path, None)

    def _add(self, invited: Invited) -> Wish:
        """The invited address, as an addition: it fills the seat of the invitation, or another plan's."""
        company = self._company(invited)
        if self.rng.random() < 0.3:
            company = self.rng.choice(self.world.companies)
        body: dict[str, object] = {"add": [{"email": invited.email}]}
        return self._by(self._inviter(company), "PATCH", f"{company.path}/users", body)

    def _take_the_right(self, invited: Invited) -> Wish:
        """The inviter is removed, or is a manager no more."""
        company = self._company(invited)
        body: dict[str, object] = {"remove": [invited.inviter_id]}
        if invited.inviter_id is None:
            return self.accept(invited)
        if self.rng.random() < 0.5:
            body = {"update": [{"customer_id": invited.inviter_id, "role": "user"}]}
        return self._by(company.owner, "PATCH", f"{company.path}/users", body)

    def _list(self, company: Company) -> Wish:
        return self._by(self._inviter(company), "GET", f"{company.path}/invitations", None)

    # ---------------------------------------------------------------------------------------- invited people

    def accept(self, invited: Invited) -> Wish:
        """By the invited person's verified token; now and then by somebody who got the mail, or with an old token."""
        person = self._person(invited.email)
        if self.rng.random() < _FORWARDED_SHARE:
            # A member's role is raised, or they have the seat already.
            members = [person for company in self.world.companies for person in company.people]
            person = self.rng.choice([*self.guests, *self.world.strangers, *members])
        generation = invited.generation
        if generation > 1 and self.rng.random() < _SUPERSEDED_SHARE:
            generation -= 1
        body: dict[str, object] = {"token": token_of(invited.id, generation)}
        if person.customer_id and self.rng.random() < 0.15:
            clamped = as_service("write", acting_for=person.customer_id)
            return Wish(f"service for {person.label}", person.customer_id, clamped, "POST", ACCEPT, body)
        headers = self.world.parts.verified_headers_of(person.label, person.email)
        return Wish(person.label, person.customer_id or None, headers, "POST", ACCEPT, body)

    def _person(self, email: str) -> Person:
        people = [*self.guests, *self.world.strangers]
        people += [person for company in self.world.companies for person in company.people]
        return next(person for person in people if person.email == email)

    def _decline(self, invited: Invited) -> Wish:
        body: dict[str, object] = {"token": token_of(invited.id, invited.generation)}
        person = self._person(invited.email)
        return Wish(person.label, person.customer_id or None, person.headers, "POST", DECLINE, body)
