"""What the service committed in a schedule, row by row and in the order of everything: operations, steps, seats."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from verification.simulation.driver import Record
from verification.simulation.held_database import Change
from verification.simulation.held_stripe import Json
from verification.simulation.truth import Truth, member_of

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
    """A seat that is promised; `ended`: the place in the order at which it no longer was."""

    operation: str
    position: int
    subscription_id: str
    customer_id: str | None
    email: str | None
    begun: int
    ended: float = float("inf")


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
        found: dict[int, Reservation] = {}
        for change in self.record.changes:
            if change.table != "reservations":
                continue
            row = change.row
            if row["customer_id"] is None and row["email"] is None:
                # A seat that waits for its purchase: nobody is named by it, and it counts once the seats are there.
                continue
            if row["id"] not in found:
                found[row["id"]] = Reservation(
                    row["operation_id"],
                    row["position"],
                    row["subscription_id"],
                    row["customer_id"],
                    row["email"],
                    change.tick,
                )
            if row["released_at"] is not None:
                found[row["id"]].ended = min(found[row["id"]].ended, change.tick)
        return list(found.values())

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
        whose call has still to remove somebody waits for that seat.
        """
        truth, members = self.truth, self.truth.sure_members(plan, tick)
        perhaps = [
            state
            for person in truth.people
            for state in truth.possible(person, tick)
            if member_of(state) == plan
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
        return len(members - freed) + len(more)
