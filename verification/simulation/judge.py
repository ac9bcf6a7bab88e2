"""What the service committed in a schedule, row by row and in the order of everything: operations, steps, seats."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from verification.simulation.driver import Record
from verification.simulation.held_database import Change
from verification.simulation.held_stripe import Json
from verification.simulation.truth import Truth, role_on

ACCEPTING, MOVING = "accept_invitation", "move"
"""Kinds of operations: somebody accepts an invitation; a seat moves to the login that has verified its address."""
_ENDS = ("applied", "unchanged", "refused", "failed")


@dataclass(slots=True)
class Step:
    operation: str
    position: int
    action: str
    subscription_id: str
    customer_id: str | None
    email: str | None
    role: str | None
    state: str
    code: str | None
    details: Json
    invoice_id: str | None = None
    """The one that a purchase waits for, or has waited for."""
    was_a_number: bool = False
    """An addition whose seat was bought by the same call: it named nobody when it was admitted."""
    settled_tick: int | None = None


@dataclass(slots=True)
class Operation:
    id: str
    kind: str
    subscription_id: str
    actor_id: str | None
    principal: str
    request: Json
    tick: int
    at: float
    seat_total: int | None = None
    """The seats that are left after it, if it changes their number."""
    settled_tick: int | None = None
    settled_at: float | None = None
    discarded: bool = False
    """Withdrawn as if it had never been asked: allowed where nothing of it was ever sent."""
    steps: dict[int, Step] = field(default_factory=dict)


@dataclass(slots=True)
class Reservation:
    """A seat that is promised to somebody; `ended`: the place in the order at which it no longer was.

    `invitation`: the one whose seat it was before.
    """

    operation: str
    position: int
    subscription_id: str
    customer_id: str | None
    email: str | None
    begun: int
    ended: float = float("inf")
    invitation: str | None = None


@dataclass(slots=True)
class Number:
    """A seat that an open invitation reserves while nobody takes it: it names nobody.

    `is_new`: it was reserved by the invitation's creation, and not given back by an operation.
    """

    invitation: str
    subscription_id: str
    begun: int
    is_new: bool
    ended: float = float("inf")


@dataclass(frozen=True, slots=True)
class InvitationRow:
    """An invitation as a transaction left it."""

    tick: int
    at: float
    row: Json

    @property
    def expires_at(self) -> float:
        """In seconds of the clock."""
        return datetime.fromisoformat(self.row["expires_at"]).timestamp()


@dataclass(slots=True)
class Invitation:
    id: str
    rows: list[InvitationRow] = field(default_factory=list)

    @property
    def first(self) -> InvitationRow:
        return self.rows[0]

    @property
    def last(self) -> InvitationRow:
        return self.rows[-1]

    @property
    def subscription_id(self) -> str:
        return str(self.first.row["subscription_id"])

    @property
    def ended_tick(self) -> float:
        """When it was no longer open; infinite if it is."""
        return next((one.tick for one in self.rows if one.row["state"] != "open"), float("inf"))

    def before(self, tick: float) -> InvitationRow | None:
        """As it was before a moment; None if it was not there."""
        return next((one for one in reversed(self.rows) if one.tick < tick), None)


class Judge:
    def __init__(self, record: Record) -> None:
        self.record = record
        self.truth = Truth(record)

    # ------------------------------------------------------------------------------ what the service committed

    @cached_property
    def operations(self) -> dict[str, Operation]:
        found: dict[str, Operation] = {}
        for change in self.record.changes:
            row = change.row
            if change.table == "operations":
                one = found.get(row["id"])
                if one is None or (one.discarded and not change.gone):
                    # What was withdrawn may be asked again, under the same key of its client's.
                    one = found[row["id"]] = Operation(
                        row["id"],
                        row["kind"],
                        row["subscription_id"],
                        row["actor_id"],
                        row["principal"],
                        row["request"],
                        change.tick,
                        change.at,
                        row["seat_total"],
                    )
                one.subscription_id = row["subscription_id"]
                one.discarded = one.discarded or change.gone
                if (row["settled_at"] is not None or change.gone) and one.settled_tick is None:
                    one.settled_tick, one.settled_at = change.tick, change.at
            elif change.table == "operation_steps" and not change.gone:
                self._step(found, change)
        return found

    @staticmethod
    def _step(found: dict[str, Operation], change: Change) -> None:
        row = change.row
        steps = found[row["operation_id"]].steps
        earlier = steps.get(row["position"])
        settled = change.tick if row["state"] in _ENDS else None
        if earlier is not None and earlier.settled_tick is not None:
            settled = earlier.settled_tick
        steps[row["position"]] = Step(
            row["operation_id"],
            row["position"],
            row["action"],
            row["subscription_id"],
            row["customer_id"],
            row["email"],
            row["role"],
            row["state"],
            row["code"],
            row["details"],
            row["invoice_id"],
            row["awaits_seats"] if earlier is None else earlier.was_a_number,
            settled,
        )

    @cached_property
    def steps(self) -> list[Step]:
        return [step for one in self.operations.values() for step in one.steps.values()]

    @cached_property
    def reservations(self) -> list[Reservation]:
        return self._promises[0]

    @cached_property
    def numbers(self) -> list[Number]:
        return self._promises[1]

    @cached_property
    def _promises(self) -> tuple[list[Reservation], list[Number]]:
        """A row is one promise after another: an operation takes the seat of an invitation, and may give it back."""
        named: list[Reservation] = []
        numbers: list[Number] = []
        now: dict[int, Reservation | Number] = {}
        for change in self.record.changes:
            if change.table != "reservations":
                continue
            row, held = change.row, now.get(change.row["id"])
            holder = held.operation if isinstance(held, Reservation) else None
            is_over = change.gone or row["released_at"] is not None
            if held is not None and (is_over or holder != row["operation_id"]):
                held.ended = min(held.ended, change.tick)
            if is_over or (held is not None and holder == row["operation_id"]):
                continue
            if row["operation_id"] is None:
                number = Number(row["invitation_id"], row["subscription_id"], change.tick, held is None)
                numbers.append(number)
                now[row["id"]] = number
            elif row["customer_id"] is not None or row["email"] is not None:
                # Otherwise it waits for its purchase: nobody is named by it, and it counts once the seats are there.
                taken_from = held.invitation if isinstance(held, Number) else None
                reserved = Reservation(
                    row["operation_id"],
                    row["position"],
                    row["subscription_id"],
                    row["customer_id"],
                    row["email"],
                    change.tick,
                    invitation=taken_from,
                )
                named.append(reserved)
                now[row["id"]] = reserved
        return named, numbers

    @cached_property
    def commit_ticks(self) -> frozenset[int]:
        """The places at which rows were committed, one for each row."""
        return frozenset(change.tick for change in self.record.changes)

    @cached_property
    def invitations(self) -> dict[str, Invitation]:
        found: dict[str, Invitation] = {}
        for change in self.record.changes:
            if change.table == "invitations":
                one = found.setdefault(change.row["id"], Invitation(change.row["id"]))
                one.rows.append(InvitationRow(change.tick, change.at, change.row))
        return found

    @cached_property
    def linked(self) -> dict[str, set[str]]:
        """The logins that were linked to each customer."""
        found: dict[str, set[str]] = {}
        for change in self.record.changes:
            if change.table == "identities" and change.row["customer_id"] is not None:
                found.setdefault(change.row["customer_id"], set()).add(change.row["subject"])
        return found

    @cached_property
    def acceptances(self) -> list[Operation]:
        """The operations that accept an invitation."""
        return [one for one in self.operations.values() if one.kind == ACCEPTING]

    def moves_from(self, operation_id: str) -> set[str]:
        """Whose seat an operation moves to another customer of the same person."""
        operation = self.operations[operation_id]
        is_move = operation.kind == MOVING
        return {str(s.customer_id) for s in operation.steps.values() if is_move and s.action == "remove"}

    def moving(self, plan: str, tick: int, members: set[str]) -> set[str]:
        """Whose seat is moving at a moment to another one of `members`: the two have one seat."""
        return {
            person
            for one in self.operations.values()
            if one.kind == MOVING
            and one.subscription_id == plan
            and one.actor_id in members
            and one.tick < tick
            and (one.settled_tick is None or tick < one.settled_tick)
            for person in members & self.moves_from(one.id)
        }

    def promised(self, plan: str, tick: float) -> list[Reservation]:
        """The reservations that lived at a moment."""
        return [
            one for one in self.reservations if one.subscription_id == plan and one.begun <= tick < one.ended
        ]

    def lowest_target(self, plan: str, tick: int) -> float:
        """The fewest seats that an operation may leave which was unsettled at a moment; infinite if none was."""
        return min(
            (
                one.seat_total
                for one in self.operations.values()
                if one.subscription_id == plan
                and one.seat_total is not None
                and one.tick < tick
                and (one.settled_tick is None or tick < one.settled_tick)
            ),
            default=float("inf"),
        )

    def taken(self, plan: str, tick: int) -> int:
        """|M ∪ R|, at the least: a reservation for somebody who may be a member by now is no second seat, and one
        whose call has still to remove somebody waits for that seat. An open invitation has one seat by number,
        also if its person is known.
        """
        truth, members = self.truth, self.truth.sure_members(plan, tick)
        perhaps = [
            state for person in truth.people for state in truth.possible(person, tick) if role_on(state, plan)
        ]
        ids, emails = (
            {state["id"] for state in perhaps if state},
            {state["email"] for state in perhaps if state},
        )
        more = [
            one
            for one in self.promised(plan, tick)
            if one.customer_id not in ids and not (one.customer_id is None and one.email in emails)
        ]
        freed = {
            step.customer_id
            for operation in {one.operation for one in self.promised(plan, tick)}
            for step in self.operations[operation].steps.values()
            if step.action == "remove" and (step.settled_tick is None or step.settled_tick > tick)
        }
        numbers = [
            one for one in self.numbers if one.subscription_id == plan and one.begun <= tick < one.ended
        ]
        return len(members - freed) + len(more) + len(numbers)
