"""Which metadata keys an addition, a role change and a removal write."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import metadata as keys
from app.domain.ids import SubscriptionId
from app.sharing import membership_keys
from testkit.snapshots import CUSTOMER

HERE, OTHER, ENDED = (SubscriptionId(f"sub_{name}") for name in ("here", "other", "ended"))
GUIDE = keys.membership_values(HERE, "user")
LONG = SubscriptionId("sub_" + "x" * 29)


def customer(guides: str | None = None, **further: str) -> Any:
    return dataclasses.replace(
        CUSTOMER,
        member_of=None if guides is None else SubscriptionId(guides),
        member_role=None if guides is None else "user",
        further_memberships={f"sub_{name}": role for name, role in further.items()},
    )


@pytest.mark.parametrize(
    ("before", "held", "written"),
    [
        (customer(), (), GUIDE),
        (customer(ENDED), (), GUIDE),
        (customer(OTHER), (), {"billing_sub_here": "user"}),
        (customer(), (keys.MEMBER_OF,), {"billing_sub_here": "user"}),
        (customer(), ("billing_sub_other",), GUIDE),
        (customer(OTHER, ended="user"), (), {"billing_sub_here": "user", "billing_sub_ended": ""}),
        (customer(ended="user"), ("billing_sub_ended",), GUIDE),
        (customer(other="manager"), (), GUIDE),
        (customer(HERE), (), GUIDE),
        (customer(HERE, here="manager"), (), {**GUIDE, "billing_sub_here": "user"}),
        (customer(OTHER, here="manager"), (), {"billing_sub_here": "user"}),
    ],
)
def test_addition_writes_the_first_free_key(
    before: Any, held: tuple[str, ...], written: dict[str, str]
) -> None:
    assert membership_keys.added(before, HERE, "user", live={OTHER}, held=held) == written


def test_addition_has_no_key_when_the_id_is_too_long_and_the_guides_keys_are_taken() -> None:
    assert membership_keys.added(customer(OTHER), LONG, "user", live={OTHER}, held=()) is None
    assert membership_keys.added(customer(), LONG, "user", live=set(), held=()) == keys.membership_values(
        LONG, "user"
    )


@pytest.mark.parametrize(
    ("before", "role", "written"),
    [
        (customer(HERE), "manager", keys.membership_values(HERE, "manager")),
        (customer(HERE), None, keys.no_membership_values()),
        (customer(OTHER, here="user"), "manager", {"billing_sub_here": "manager"}),
        (customer(OTHER, here="user"), None, {"billing_sub_here": ""}),
        (customer(HERE, here="user"), None, {**keys.no_membership_values(), "billing_sub_here": ""}),
        (customer(OTHER, other="user"), None, {}),
    ],
)
def test_change_writes_each_form_that_names_the_subscription(
    before: Any, role: str | None, written: dict[str, str]
) -> None:
    assert membership_keys.changed(before, HERE, role) == written


_NAMES = st.sampled_from(["here", "other", "ended", "more"])
_ROLES = st.sampled_from(["user", "manager"])


@given(
    st.none() | _NAMES,
    st.dictionaries(_NAMES, _ROLES),
    _ROLES,
    st.sets(_NAMES),
    st.sets(st.sampled_from([keys.MEMBER_OF, "billing_sub_here", "billing_sub_ended"])),
)
def test_no_write_touches_the_membership_of_another_live_subscription(
    guides: str | None, further: dict[str, str], role: str, live: set[str], held: set[str]
) -> None:
    """Design rule 7. What is written also has the effect that was asked for."""
    before = customer(None if guides is None else f"sub_{guides}", **further)
    of_live = {SubscriptionId(f"sub_{name}") for name in live - {"here"}}
    written = membership_keys.added(before, HERE, role, live=of_live, held=held)
    assert written is not None
    after = _written(before, written)
    kept = {name: was for name, was in before.memberships.items() if name in of_live}
    assert after.memberships[HERE] == role
    assert {name: after.memberships.get(name) for name in kept} == kept
    gone = _written(after, membership_keys.changed(after, HERE, None))
    assert HERE not in gone.memberships and set(kept) <= set(gone.memberships)


def _written(before: Any, written: dict[str, str]) -> Any:
    """The customer as the parser reads them after the write."""
    metadata = {f"billing_{name}": role for name, role in before.further_memberships.items()}
    if before.member_of is not None:
        metadata |= keys.membership_values(before.member_of, before.member_role)
    merged = {key: value for key, value in {**metadata, **written}.items() if value}
    membership = keys.membership_of(merged)
    return dataclasses.replace(
        before,
        member_of=None if membership is None else membership.subscription_id,
        member_role=None if membership is None else membership.role,
        further_memberships=keys.further_memberships_of(merged),
    )
