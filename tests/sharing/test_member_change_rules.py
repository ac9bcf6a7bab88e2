"""Admission of member changes: every verdict, and the property that capacity is never passed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.ids import CustomerId
from app.domain.roles import Permission
from app.domain.seats import Seats
from app.domain.statuses import Entitlements
from app.sharing.member_changes import (
    Action,
    Decision,
    MemberChange,
    Person,
    Verdict,
    admit,
    permissions_needed,
)

OPEN = Entitlements(access=True, edits=True, new_seats=True)
NO_NEW_SEATS = Entitlements(access=True, edits=True, new_seats=False)
CLOSED = Entitlements(access=False, edits=False, new_seats=False)
ROOM = Seats(total=10, used=3, reserved=0)


def person(name: str = "cus_p", **facts: object) -> Person:
    return Person(CustomerId(name), **facts)  # type: ignore[arg-type]


def add(who: Person, role: str = "user") -> MemberChange:
    return MemberChange(Action.ADD, who, role)


def remove(who: Person) -> MemberChange:
    return MemberChange(Action.REMOVE, who)


def update(who: Person, role: str) -> MemberChange:
    return MemberChange(Action.UPDATE, who, role)


def newcomers(count: int) -> list[MemberChange]:
    return [add(Person(None, f"p{n}@example.com")) for n in range(count)]


def leavers(count: int) -> list[MemberChange]:
    return [remove(person(f"cus_{n}", member_role="user")) for n in range(count)]


def judge(*changes: MemberChange, seats: Seats = ROOM, entitlements: Entitlements = OPEN) -> list[Decision]:
    return admit(changes, seats=seats, capacity=seats.total, entitlements=entitlements)


def verdicts(decisions: list[Decision]) -> list[tuple[str, str | None]]:
    return [(d.verdict.value, d.code) for d in decisions]


CASES = [
    (add(person()), "run", None),
    (add(Person(None, "new@example.com")), "run", None),
    (add(person(former_member=True)), "run", None),
    (add(person(known=False)), "refused", "not_found"),
    (add(Person(None, "two@example.com", ambiguous=True)), "refused", "ambiguous_email"),
    (add(person(is_owner=True)), "refused", "already_member"),
    (add(person(is_owner=True, member_role="user")), "refused", "already_member"),
    (add(person(member_role="user")), "unchanged", None),
    (add(person(member_role="user", busy=True)), "unchanged", None),
    (add(person(member_role="user"), "manager"), "refused", "already_member"),
    (add(person(member_role="manager")), "refused", "already_member"),
    (add(person(elsewhere=True)), "refused", "member_elsewhere"),
    (add(person(elsewhere=True, former_member=True)), "refused", "member_elsewhere"),
    (add(person(busy=True)), "refused", "operation_in_progress"),
    (remove(person(member_role="user")), "run", None),
    (remove(person(member_role="manager")), "run", None),
    (remove(person(former_member=True)), "unchanged", None),
    (remove(person()), "refused", "not_found"),
    (remove(person(known=False)), "refused", "not_found"),
    (remove(person(elsewhere=True)), "refused", "not_found"),
    (remove(person(is_owner=True)), "refused", "owner_cannot_leave"),
    (remove(person(is_owner=True, member_role="manager")), "refused", "owner_cannot_leave"),
    (remove(person(member_role="user", busy=True)), "refused", "operation_in_progress"),
    (remove(person(former_member=True, busy=True)), "refused", "operation_in_progress"),
    (remove(person(busy=True)), "refused", "operation_in_progress"),
    (update(person(member_role="user"), "manager"), "run", None),
    (update(person(member_role="manager"), "user"), "run", None),
    (update(person(member_role="manager"), "manager"), "unchanged", None),
    (update(person(), "manager"), "refused", "not_found"),
    (update(person(former_member=True), "manager"), "refused", "not_found"),
    (update(person(is_owner=True), "user"), "refused", "owner_cannot_leave"),
    (update(person(member_role="user", busy=True), "manager"), "refused", "operation_in_progress"),
]


@pytest.mark.parametrize(("change", "verdict", "code"), CASES)
def test_one_change(change: MemberChange, verdict: str, code: str | None) -> None:
    assert verdicts(judge(change)) == [(verdict, code)]


@pytest.mark.parametrize(("change", "verdict", "code"), CASES)
def test_a_closed_status_runs_only_what_reduces(change: MemberChange, verdict: str, code: str | None) -> None:
    """M16: removing a member and lowering a role were refused for unpaid and paused subscriptions."""
    reduces = change.action is Action.REMOVE or (change.action is Action.UPDATE and change.role == "user")
    expected = (verdict, code)
    if verdict == "run" and not reduces:
        expected = ("refused", "subscription_not_active")
    assert verdicts(judge(change, entitlements=CLOSED)) == [expected]


def test_a_plan_past_due_takes_nobody_new_but_lets_people_go() -> None:
    decisions = judge(
        add(person()),
        remove(person("cus_2", member_role="user")),
        update(person("cus_3", member_role="user"), "manager"),
        entitlements=NO_NEW_SEATS,
    )
    assert verdicts(decisions) == [("refused", "subscription_not_active"), ("run", None), ("run", None)]


def test_the_last_seat_is_given_once() -> None:
    full_but_one = Seats(total=4, used=2, reserved=1)
    assert verdicts(judge(*newcomers(1), seats=full_but_one)) == [("run", None)]
    decisions = judge(*newcomers(2), seats=full_but_one)
    assert verdicts(decisions) == [("refused", "seat_limit_reached")] * 2
    assert decisions[0].details == {"total": 4, "used": 3, "required": 5}


def test_additions_are_all_or_none_and_the_rest_still_runs() -> None:
    decisions = judge(
        *newcomers(3),
        *leavers(1),
        update(person("cus_u", member_role="user"), "manager"),
        seats=Seats(total=4, used=4, reserved=0),
    )
    assert verdicts(decisions) == [("refused", "seat_limit_reached")] * 3 + [("run", None)] * 2


def test_what_the_same_call_frees_can_be_taken() -> None:
    full = Seats(total=4, used=4, reserved=0)
    assert verdicts(judge(*newcomers(2), *leavers(2), seats=full)) == [("run", None)] * 4


def test_a_removal_that_does_not_run_frees_nothing() -> None:
    full = Seats(total=4, used=4, reserved=0)
    for idle in (
        remove(person("cus_b", member_role="user", busy=True)),
        remove(person("cus_f", former_member=True)),
        remove(person("cus_o", is_owner=True)),
        remove(person("cus_n")),
    ):
        assert verdicts(judge(*newcomers(1), idle, seats=full))[0] == ("refused", "seat_limit_reached")


def test_additions_that_need_no_seat_take_no_room_from_the_others() -> None:
    decisions = judge(
        add(person("cus_m", member_role="user")),
        add(person("cus_e", elsewhere=True)),
        *newcomers(1),
        seats=Seats(total=4, used=3, reserved=0),
    )
    assert verdicts(decisions) == [("unchanged", None), ("refused", "member_elsewhere"), ("run", None)]


def test_an_over_allocated_plan_refuses_additions_until_it_fits() -> None:
    over = Seats(total=3, used=6, reserved=0)
    assert verdicts(judge(*newcomers(1), *leavers(3), seats=over)) == [
        ("refused", "seat_limit_reached"),
        *[("run", None)] * 3,
    ]
    assert verdicts(judge(*newcomers(1), *leavers(4), seats=over)) == [("run", None)] * 5
    assert verdicts(judge(update(person(member_role="user"), "manager"), seats=over)) == [("run", None)]


def test_a_lower_target_that_is_unsettled_binds_already() -> None:
    seats = Seats(total=10, used=4, reserved=0)
    decisions = admit(newcomers(2), seats=seats, capacity=5, entitlements=OPEN)
    assert verdicts(decisions) == [("refused", "seat_limit_reached")] * 2


PEOPLE = st.builds(
    Person,
    customer_id=st.integers(0, 10**9).map(lambda n: CustomerId(f"cus_{n}")),
    known=st.booleans(),
    ambiguous=st.booleans(),
    member_role=st.none() | st.sampled_from(["user", "manager"]),
    former_member=st.booleans(),
    elsewhere=st.booleans(),
    busy=st.booleans(),
    is_owner=st.booleans(),
)
CHANGES = st.lists(
    st.builds(
        MemberChange,
        st.sampled_from([Action.ADD, Action.REMOVE, Action.UPDATE]),
        PEOPLE,
        st.sampled_from(["user", "manager"]),
    ),
    max_size=30,
)
SEATS = st.builds(Seats, total=st.integers(0, 20), used=st.integers(0, 20), reserved=st.integers(0, 5))


@given(CHANGES, SEATS, st.sampled_from([OPEN, NO_NEW_SEATS, CLOSED]), st.integers(0, 5))
def test_no_call_fills_more_than_the_capacity(
    changes: list[MemberChange], seats: Seats, entitlements: Entitlements, lowered: int
) -> None:
    capacity = max(0, seats.total - lowered)
    decisions = admit(changes, seats=seats, capacity=capacity, entitlements=entitlements)
    assert [d.change for d in decisions] == changes
    running = [d.change for d in decisions if d.verdict is Verdict.RUN]
    added = [change for change in running if change.action is Action.ADD]
    removed = [change for change in running if change.action is Action.REMOVE]
    if added:
        assert entitlements.new_seats
        assert seats.used + seats.reserved - len(removed) + len(added) <= capacity
    assert all(not (c.person.busy or c.person.is_owner) for c in running)
    assert all(c.person.member_role is None and not c.person.elsewhere for c in added)
    assert all(c.person.member_role is not None for c in running if c.action is not Action.ADD)
    assert all(entitlements.edits for c in running if c.action is Action.UPDATE and c.role == "manager")
    assert all((d.code is None) == (d.verdict is not Verdict.REFUSED) for d in decisions)
    codes = {d.code for d in decisions if d.change.action is Action.ADD}
    assert not (added and "seat_limit_reached" in codes), "additions run all or none"


@given(CHANGES, SEATS)
def test_removals_and_role_changes_never_depend_on_the_seats(
    changes: list[MemberChange], seats: Seats
) -> None:
    rest = [change for change in changes if change.action is not Action.ADD]
    alone = admit(rest, seats=ROOM, capacity=ROOM.total, entitlements=OPEN)
    together = admit(changes, seats=seats, capacity=seats.total, entitlements=OPEN)
    assert [d for d in together if d.change.action is not Action.ADD] == alone


def test_touching_a_manager_needs_more_than_touching_users() -> None:
    users = {Permission.CHANGE_USERS}
    managers = {Permission.CHANGE_USERS, Permission.CHANGE_MANAGERS}
    user, manager = person(member_role="user"), person("cus_m", member_role="manager")
    assert permissions_needed([add(person()), remove(user)]) == users
    assert permissions_needed([add(person(), "manager")]) == managers
    assert permissions_needed([remove(user), remove(manager)]) == managers
    assert permissions_needed([update(user, "manager")]) == managers
    assert permissions_needed([update(manager, "user")]) == managers
