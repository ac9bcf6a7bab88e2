"""Admission of a member change: which steps may run, which are refused, and why.

Pure; the caller holds the lock. Permissions are judged for the whole call; membership and capacity are judged per
person. Capacity is judged after the call's own removals. If the additions do not all fit, all that need a seat are
refused; removals, role changes and additions of invited people still run. No member of another live subscription is
moved, and the owner's row is not edited.

Rules: docs/decisions/0023-reserve-a-seat-before-writing-at-stripe.md.
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
    """What a change does to a member."""

    ADD = "add"
    REMOVE = "remove"
    UPDATE = "update"


class Verdict(StrEnum):
    """What the rules say of a change."""

    RUN = "run"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Person:
    """A person that a change names, as found under the lock.

    `customer_id` is None for an e-mail that no customer has yet. `member_role` is the role on this subscription.
    `elsewhere`: on as many other live subscriptions as one person may be, or promised a seat there. `busy`: an
    unsettled step of another operation on this subscription names them. `invitation_id`: the open invitation whose
    seat an addition fills.
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
    invitation_id: str | None = None


@dataclass(frozen=True, slots=True)
class MemberChange:
    """A change of one person. `role`: the role after it, None for a removal."""

    action: Action
    person: Person
    role: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """A change and its verdict. `code` and `details`: why it is refused."""

    change: MemberChange
    verdict: Verdict
    code: str | None = None
    details: dict[str, int] = field(default_factory=dict)


def permissions_needed(changes: Sequence[MemberChange]) -> set[Permission]:
    """Return the permissions that the actor needs.

    A change of a manager, or one that makes a manager, needs more than a change of users.
    """
    needed = {Permission.CHANGE_USERS}
    for change in changes:
        if Role.MANAGER in (change.role, change.person.member_role):
            needed.add(Permission.CHANGE_MANAGERS)
    return needed


def seats_required(decisions: Sequence[Decision], seats: Seats) -> int:
    """Return the seats that are used or promised once everything that may run has run."""
    freed = sum(_runs(decision, Action.REMOVE) for decision in decisions)
    wanted = sum(needs_seat(decision) for decision in decisions)
    return required(seats, freed=freed, added=wanted)


def additions_that_fit(decisions: Sequence[Decision], seats: Seats, capacity: int) -> int:
    """Return how many additions fit into the present seats, after the call's removals."""
    wanted = sum(needs_seat(decision) for decision in decisions)
    return max(0, min(wanted, capacity - seats_required(decisions, seats) + wanted))


def admit(
    changes: Sequence[MemberChange], *, seats: Seats, capacity: int, entitlements: Entitlements
) -> list[Decision]:
    """Judge the changes of one call in their order.

    `capacity`: how many seats may be filled, never above `seats.total`, except in a call that buys the seats it lacks.
    """
    decisions = [judge(change, entitlements) for change in changes]
    freed = sum(_runs(decision, Action.REMOVE) for decision in decisions)
    wanted = sum(needs_seat(decision) for decision in decisions)
    details = lacking(seats, capacity, freed=freed, added=wanted)
    if wanted and details is not None:
        decisions = [
            Decision(d.change, Verdict.REFUSED, "seat_limit_reached", details) if needs_seat(d) else d
            for d in decisions
        ]
    return decisions


def needs_seat(decision: Decision) -> bool:
    """Return True for an addition that runs and fills a seat of its own. An invited person has a reserved seat."""
    return _runs(decision, Action.ADD) and decision.change.person.invitation_id is None


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
        # The person is being added right now, so they are not gone.
        return Verdict.REFUSED, "operation_in_progress"
    if change.person.member_role is None:
        return (Verdict.UNCHANGED, None) if change.person.former_member else (Verdict.REFUSED, "not_found")
    # A removal is never refused because of the status.
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
