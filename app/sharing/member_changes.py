"""Admission of a member change: which steps may run, which are refused and why. Pure; the caller holds the lock.

Rules (decisions on seats, homes and admission): rights are judged for the whole call, homes and capacity per person;
capacity is judged after the call's own removals; adds that do not all fit are all refused while removals and role
changes still run; nobody is moved from another live subscription; nobody edits the owner's row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from app.domain.ids import CustomerId
from app.domain.roles import Permission, Role
from app.domain.seats import Seats, lacking, required
from app.domain.statuses import Entitlements


class Action(StrEnum):
    ADD = "add"
    REMOVE = "remove"
    UPDATE = "update"


class Verdict(StrEnum):
    RUN = "run"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Person:
    """Whom a change is about, as found under the lock.

    `customer_id` is None for an e-mail that no customer has yet. `member_role` is the role on this subscription.
    `elsewhere`: on, or promised to, another live subscription. `busy`: an unsettled step of another operation here
    is about him.
    """

    customer_id: CustomerId | None
    email: str | None = None
    known: bool = True
    ambiguous: bool = False
    member_role: str | None = None
    former_member: bool = False
    elsewhere: bool = False
    busy: bool = False
    is_owner: bool = False


@dataclass(frozen=True, slots=True)
class MemberChange:
    action: Action
    person: Person
    role: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    change: MemberChange
    verdict: Verdict
    code: str | None = None
    details: dict[str, int] = field(default_factory=dict)


def permissions_needed(changes: Sequence[MemberChange]) -> set[Permission]:
    """What the actor must be allowed: touching a manager, or making one, needs more than touching users."""
    needed = {Permission.CHANGE_USERS}
    for change in changes:
        if Role.MANAGER in (change.role, change.person.member_role):
            needed.add(Permission.CHANGE_MANAGERS)
    return needed


def seats_required(decisions: Sequence[Decision], seats: Seats) -> int:
    """The seats that are taken or promised once everything that may run has run."""
    freed = sum(_runs(decision, Action.REMOVE) for decision in decisions)
    wanted = sum(_runs(decision, Action.ADD) for decision in decisions)
    return required(seats, freed=freed, added=wanted)


def additions_that_fit(decisions: Sequence[Decision], seats: Seats, capacity: int) -> int:
    """Return how many additions of the call fit into the seats that were bought already, after its own removals."""
    wanted = sum(_runs(decision, Action.ADD) for decision in decisions)
    return max(0, min(wanted, capacity - seats_required(decisions, seats) + wanted))


def admit(
    changes: Sequence[MemberChange], *, seats: Seats, capacity: int, entitlements: Entitlements
) -> list[Decision]:
    """Judges the changes of one call in their order; `capacity` is what may be filled.

    That is never above `seats.total`, but for a call that buys the seats that it lacks.
    """
    decisions = [judge(change, entitlements) for change in changes]
    freed = sum(_runs(decision, Action.REMOVE) for decision in decisions)
    wanted = sum(_runs(decision, Action.ADD) for decision in decisions)
    details = lacking(seats, capacity, freed=freed, added=wanted)
    if wanted and details is not None:
        decisions = [
            Decision(d.change, Verdict.REFUSED, "seat_limit_reached", details) if _runs(d, Action.ADD) else d
            for d in decisions
        ]
    return decisions


def _runs(decision: Decision, action: Action) -> bool:
    return decision.verdict is Verdict.RUN and decision.change.action is action


def judge(change: MemberChange, entitlements: Entitlements) -> Decision:
    """Judge one change by itself, whatever seats there are."""
    rule = {Action.ADD: _judge_add, Action.REMOVE: _judge_remove, Action.UPDATE: _judge_update}[change.action]
    verdict, code = rule(change, entitlements)
    return Decision(change, verdict, code)


def _judge_add(change: MemberChange, entitlements: Entitlements) -> tuple[Verdict, str | None]:
    person = change.person
    if not person.known:
        return Verdict.REFUSED, "not_found"
    if person.ambiguous:
        return Verdict.REFUSED, "ambiguous_email"
    if person.is_owner:
        return Verdict.REFUSED, "already_member"
    if person.member_role is not None:
        same = person.member_role == change.role
        return (Verdict.UNCHANGED, None) if same else (Verdict.REFUSED, "already_member")
    if person.elsewhere:
        return Verdict.REFUSED, "member_elsewhere"
    return _run_unless(busy=person.busy, allowed=entitlements.new_seats)


def _judge_remove(change: MemberChange, _: Entitlements) -> tuple[Verdict, str | None]:
    if change.person.is_owner:
        return Verdict.REFUSED, "owner_cannot_leave"
    if change.person.member_role is None and change.person.busy:
        # Whoever is being added is not gone for good yet.
        return Verdict.REFUSED, "operation_in_progress"
    if change.person.member_role is None:
        return (Verdict.UNCHANGED, None) if change.person.former_member else (Verdict.REFUSED, "not_found")
    # What reduces is never refused for a status.
    return _run_unless(busy=change.person.busy, allowed=True)


def _judge_update(change: MemberChange, entitlements: Entitlements) -> tuple[Verdict, str | None]:
    if change.person.is_owner:
        return Verdict.REFUSED, "owner_cannot_leave"
    if change.person.member_role is None:
        return Verdict.REFUSED, "not_found"
    if change.person.member_role == change.role:
        return Verdict.UNCHANGED, None
    is_lower = change.role == Role.USER
    return _run_unless(busy=change.person.busy, allowed=is_lower or entitlements.edits)


def _run_unless(*, busy: bool, allowed: bool) -> tuple[Verdict, str | None]:
    if busy:
        return Verdict.REFUSED, "operation_in_progress"
    return (Verdict.RUN, None) if allowed else (Verdict.REFUSED, "subscription_not_active")
