"""What was so at Stripe, by the stand-in's log alone, and what of it the service was bound to know at a moment.

An edit from outside binds the service from the moment that its event was committed, or that the service's last read
of that object began, whichever is earlier; its own writes count at once for seats, and for roles from the moment that
their answer, their event or a read of theirs arrived. An event that came so
soon after other news of the object that it could not be ordered only asks for a read: then the read binds. Within
`GRACE_SECONDS` of either moment the service may act by the older state or by the newer one. An answer whose process was
killed within that time binds nobody, because the process may not have committed what it read.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property

from verification.simulation.driver import Record
from verification.simulation.held_database import Change
from verification.simulation.held_stripe import Call, HeldStripe, Json

ID_KEY, ROLE_KEY = "billing_shared_subscription_id", "billing_shared_subscription_role"
OWNER_KEY, OPERATION_KEY = "billing_shared_subscription_owner", "billing_operation_id"
ENDED = ("canceled", "incomplete_expired")
GRACE_SECONDS = 2.0
_WHITE = " \t\n\r\f\v"
_SUBSCRIPTION, _CUSTOMER = re.compile(r"sub_[A-Za-z0-9]+\Z"), re.compile(r"cus_[A-Za-z0-9]+\Z")
_FURTHER = re.compile(r"billing_sub_[A-Za-z0-9]{1,28}\Z")
_OBJECT = re.compile(r"/v1/(?:customers|subscriptions)/((?:cus|sub)_[A-Za-z0-9]+)")


def member_of(state: Json | None) -> str | None:
    value = str(((state or {}).get("metadata") or {}).get(ID_KEY, "")).strip(_WHITE)
    return value if _SUBSCRIPTION.match(value) else None


def role_of(state: Json | None) -> str | None:
    """`manager` or `user` where there is a seat."""
    if member_of(state) is None:
        return None
    value = str((state or {})["metadata"].get(ROLE_KEY, "")).strip(_WHITE).lower()
    return "manager" if value == "manager" else "user"


def roles_of(state: Json | None) -> dict[str, str]:
    """The role on each plan; the guide's keys count before a further one of the same plan."""
    found = {}
    for key, value in ((state or {}).get("metadata") or {}).items():
        role = str(value).strip(_WHITE).lower()
        if _FURTHER.match(key) and role in ("user", "manager"):
            found[key.removeprefix("billing_")] = role
    plan, role_of_guide = member_of(state), role_of(state)
    if plan is not None and role_of_guide is not None:
        found[plan] = role_of_guide
    return found


def role_on(state: Json | None, plan: str) -> str | None:
    return roles_of(state).get(plan)


def owner_of(state: Json | None) -> str | None:
    value = str(((state or {}).get("metadata") or {}).get(OWNER_KEY, "")).strip(_WHITE)
    return value if _CUSTOMER.match(value) else None


def holder_of(state: Json | None) -> str | None:
    """The customer who controls a plan: the one who pays, while metadata names no owner."""
    if OWNER_KEY in ((state or {}).get("metadata") or {}):
        return owner_of(state)
    return (state or {}).get("customer")


def quantity_of(state: Json | None) -> int:
    """Every product of these accounts carries the flag, and none is metered."""
    return sum(item["quantity"] or 0 for item in (state or {}).get("_items", ()))


def is_live(state: Json | None) -> bool:
    return state is not None and not state.get("deleted") and state.get("status") not in ENDED


@dataclass(frozen=True, slots=True)
class Made:
    """One version: who made it, from what. `operation`, `position`: of the key under which the service wrote it."""

    number: int
    tick: int
    kind: str
    id: str
    key: str | None
    before: Json | None
    after: Json | None
    at: float
    by: str = ""
    """`browser`: by the payer's payment."""

    @property
    def operation(self) -> str | None:
        return None if self.key is None else self.key.split("/")[0]

    @property
    def position(self) -> int:
        parts = (self.key or "").split("/")
        return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0

    @property
    def changes_seats(self) -> bool:
        """Of a person his seat or role; of a plan its quantity, owner or end."""
        if self.kind == "customer":
            return roles_of(self.before) != roles_of(self.after)
        if self.kind == "subscription":
            return self.before is None or any(
                of(self.before) != of(self.after)
                for of in (quantity_of, owner_of, lambda state: (state["status"], state["cancel_at"]))
            )
        return False


@dataclass(frozen=True, slots=True)
class Sent:
    """The first sending of a step: its place in the order, and the second of the loop's clock."""

    key: str
    tick: int
    at: float


class Truth:
    def __init__(self, record: Record) -> None:
        self.record = record
        self.stripe: HeldStripe = record.world.stripe
        self.made: list[Made] = []
        self.of: dict[str, list[Made]] = {}
        latest: dict[str, Json | None] = {}
        for version, tick in zip(self.stripe.versions, self.stripe.ticks, strict=True):
            state = version.state
            key = version.actor.get("idempotency_key")
            one = Made(
                version.number,
                tick,
                version.kind,
                version.id,
                key,
                latest.get(version.id),
                state,
                version.at,
                version.actor["type"],
            )
            latest[version.id] = state
            self.made.append(one)
            self.of.setdefault(version.id, []).append(one)
        self.first = record.world.first_version
        self._known: dict[int, float] = {}
        self._possible: dict[tuple[str, int], list[Json | None]] = {}

    @property
    def people(self) -> list[str]:
        return [key for key, versions in self.of.items() if versions[0].kind == "customer"]

    @property
    def plans(self) -> list[str]:
        return [company.subscription_id for company in self.record.world.companies]

    @cached_property
    def written(self) -> list[Made]:
        """By the service, in order."""
        return [one for one in self.made if one.key is not None]

    @cached_property
    def edited(self) -> bool:
        """Did anybody but the service change a seat, a role, a quantity or an owner?"""
        return any(one.key is None and one.changes_seats for one in self.made[self.first :])

    def at(self, object_id: str, tick: float) -> Json | None:
        """As it was at a moment."""
        found = None
        for one in self.of.get(object_id, ()):
            if one.tick > tick:
                break
            found = one
        return None if found is None else found.after

    # ------------------------------------------------------------------------------------- what we had to know

    @cached_property
    def _committed(self) -> dict[str, int]:
        """Event id to the moment at which it was in the inbox and in its row."""
        came: dict[str, int] = {}
        outcomes: dict[str, str] = {}
        for change in self.record.changes:
            if change.table == "webhook_events":
                came.setdefault(change.row["id"], change.tick)
                outcomes[change.row["id"]] = change.row["outcome"]
        return {event: tick for event, tick in came.items() if outcomes[event] == "applied"}

    @cached_property
    def _news(self) -> dict[str, list[tuple[int, int]]]:
        """For each object: up to which version somebody told us of it, and when we had it."""
        found: dict[str, list[tuple[int, int]]] = {}
        for record in self.stripe.world.events:
            tick = self._committed.get(record.id)
            if tick is not None:
                event = record.event
                object_id = event["data"]["object"].get("id")
                found.setdefault(object_id, []).append((self.stripe.versions_at_event[record.id], tick))
        for call in self.stripe.calls:
            if call.answered_tick is None or call.executed is None or call.answer is None or call.torn:
                continue
            named = _OBJECT.match(call.path)
            if named is not None and call.answer.status == 200 and not self._died_with(call):
                upto = call.executed if call.is_write else call.seen
                found.setdefault(named[1], []).append((upto, call.answered_tick))
        return found

    def _died_with(self, call: Call) -> bool:
        """Return True if the process that received the answer was killed before it had to have committed it."""
        killed_at = call.process.killed_at
        if killed_at is None or call.answered_tick is None:
            return False
        return killed_at - self.moment_of(call.answered_tick) < GRACE_SECONDS

    def known_from(self, one: Made) -> float:
        """The moment from which a version binds us."""
        if one.key is not None:
            return one.tick
        if one.number not in self._known:
            ticks = [tick for upto, tick in self._news.get(one.id, ()) if upto >= one.number]
            self._known[one.number] = min(ticks, default=float("inf")) if one.number > self.first else 0
        return self._known[one.number]

    @cached_property
    def _answers(self) -> dict[str, int]:
        """Key to the moment at which its first answer arrived."""
        found: dict[str, int] = {}
        for call in self.stripe.calls:
            if call.key is not None and call.answered_tick is not None:
                found[call.key] = min(call.answered_tick, found.get(call.key, call.answered_tick))
        return found

    def told_from(self, one: Made) -> float:
        """As `known_from`, and of our own write, too, no sooner than somebody has told us that it took effect."""
        if one.key is None:
            return self.known_from(one)
        told = [tick for upto, tick in self._news.get(one.id, ()) if upto >= one.number]
        return min([*told, self._answers.get(one.key, float("inf"))], default=float("inf"))

    def view(self, object_id: str, tick: float) -> Json | None:
        """The object as we had to know it at a moment: its newest version that bound us by then."""
        found = None
        for one in self.of.get(object_id, ()):
            if one.tick <= tick and self.told_from(one) <= tick:
                found = one
        return None if found is None else found.after

    def possible(self, object_id: str, tick: int) -> list[Json | None]:
        """Every state by which the service may act at a moment: what bound it a while ago, and all since."""
        key = (object_id, tick)
        if key not in self._possible:
            old = self.tick_at(self.moment_of(tick) - GRACE_SECONDS)
            found: list[Json | None] = []
            for one in self.of.get(object_id, ()):
                if one.tick > tick:
                    break
                if self.known_from(one) <= old:
                    found.clear()
                found.append(one.after)
            self._possible[key] = found
        return self._possible[key]

    # ------------------------------------------------------------------------------------------------ seats

    def owner(self, plan: str, tick: float, *, known: bool = False) -> str | None:
        look = self.view if known else self.at
        named = holder_of(look(plan, tick))
        if named is None:
            return None
        state = look(named, tick)
        return None if state is None or state.get("deleted") else named

    def members(self, plan: str, tick: float) -> set[str]:
        """Those who take a seat: the owner too, where the rules say so."""
        found = {person for person in self.people if role_on(self.at(person, tick), plan)}
        owner = self.owner(plan, tick)
        found.discard(owner or "")
        if owner is not None and self.record.world.rules.owner_uses_seat:
            found.add(owner)
        return found

    def quantity(self, plan: str, tick: float) -> int:
        return quantity_of(self.at(plan, tick))

    def sure_members(self, plan: str, tick: int) -> set[str]:
        """Those who take a seat whichever of the possible states the service goes by."""
        owners = {holder_of(state) for state in self.possible(plan, tick)}
        found = {
            person
            for person in self.people
            if person not in owners
            and (states := self.possible(person, tick))
            and all(role_on(state, plan) for state in states)
        }
        if self.record.world.rules.owner_uses_seat and len(owners) == 1 and None not in owners:
            [owner] = owners
            if all(state and not state.get("deleted") for state in self.possible(str(owner), tick)):
                found.add(str(owner))
        return found

    def most_seats(self, plan: str, tick: int) -> int:
        return max((quantity_of(state) for state in self.possible(plan, tick)), default=0)

    def least_seats(self, plan: str, tick: int) -> int:
        return min((quantity_of(state) for state in self.possible(plan, tick)), default=0)

    def role(self, person: str, plan: str, tick: float, *, known: bool = True) -> str | None:
        """owner, manager, user, or nobody."""
        if self.owner(plan, tick, known=known) == person:
            return "owner"
        state = (self.view if known else self.at)(person, tick)
        return role_on(state, plan)

    # ------------------------------------------------------------------------------------------------- calls

    @cached_property
    def first_sent(self) -> dict[tuple[str, int], Sent]:
        """Of every step that reached Stripe's door its first sending.

        That is when the service recorded it: between the record and the request stands only the wait for the rate
        budget, of a few seconds at most, and from the record on nobody may take the step for unsent.
        """
        recorded: dict[tuple[str, int], Change] = {}
        for change in self.record.changes:
            if change.table == "operation_steps" and change.row["state"] == "in_flight":
                recorded.setdefault((change.row["operation_id"], change.row["position"]), change)
        found: dict[tuple[str, int], Sent] = {}
        for call in self.stripe.calls:
            if call.is_write and call.key is not None and call.key.startswith("op_"):
                operation, position = call.key.split("/")[:2]
                if not position.isdigit():
                    continue  # The end of a purchase that waits: no step is sent by it.
                step = (operation, int(position))
                record = recorded.get(step)
                if record is not None and record.tick < call.tick:
                    found.setdefault(step, Sent(call.key, record.tick, record.at))
                else:
                    found.setdefault(step, Sent(call.key, call.tick, call.at))
        return found

    def tick_at(self, moment: float) -> int:
        """The last place in the order at or before a second of the clock."""
        ticks, ats = self._clock
        index = bisect_left(ats, moment)
        return ticks[index - 1] if index else 0

    def moment_of(self, tick: int) -> float:
        """The second of the loop's clock at a place in the order."""
        ticks, ats = self._clock
        index = bisect_right(ticks, tick)
        return ats[index - 1] if index else 0.0

    @cached_property
    def _clock(self) -> tuple[list[int], list[float]]:
        points = [(call.tick, call.at) for call in self.stripe.calls]
        points += [(change.tick, change.at) for change in self.record.changes]
        points += [(asked.tick, asked.at) for asked in self.record.asked]
        points.sort()
        return [tick for tick, _ in points], [at for _, at in points]
