"""The table of subscription statuses, written out a second time."""

import pytest

from app.domain.statuses import ENDED, Entitlements, entitlements, is_live

# status: access, edits (prices, items, higher roles), new seats by default,
# new seats where the setting allows them to a past_due one, live
TABLE = {
    "active": (True, True, True, True, True),
    "trialing": (True, True, True, True, True),
    "past_due": (True, True, False, True, True),
    "incomplete": (False, False, False, False, True),
    "unpaid": (False, False, False, False, True),
    "paused": (False, False, False, False, True),
    "canceled": (False, False, False, False, False),
    "incomplete_expired": (False, False, False, False, False),
}


@pytest.mark.parametrize("status", TABLE)
def test_each_status_allows_what_the_table_says(status: str) -> None:
    access, edits, new_seats, with_setting, live = TABLE[status]
    assert entitlements(status) == Entitlements(access=access, edits=edits, new_seats=new_seats)
    assert entitlements(status, past_due_allows_new_seats=True) == Entitlements(access, edits, with_setting)
    assert is_live(status) is live
    assert (status in ENDED) is not live


@pytest.mark.parametrize("status", ["", "Active", " active", "suspended", "ended", "past-due"])
def test_a_status_that_nobody_wrote_down_gives_nothing(status: str) -> None:
    for setting in (False, True):
        assert entitlements(status, past_due_allows_new_seats=setting) == Entitlements(False, False, False)
