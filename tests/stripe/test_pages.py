"""A page of a list: what cannot be read is named, and the rest is read."""

from typing import Any

import pytest

from app.stripe.pages import Page, read_page
from app.stripe.parsing import MalformedObject


def customer(object_id: Any, created: Any = 1_700_000_000, **fields: Any) -> dict[str, Any]:
    return {"id": object_id, "object": "customer", "created": created, **fields}


def page_of(*sources: Any, has_more: bool = False) -> Page:
    return read_page("customer", {"data": list(sources), "has_more": has_more}, 1_700_000_100)


ODD: list[tuple[Any, str]] = [
    (None, "without an id"),
    ("cus_odd", "without an id"),
    ([], "without an id"),
    ({}, "without an id"),
    (customer(None), "without an id, created 1700000000"),
    (customer(5), "without an id, created 1700000000"),
    (customer(""), "without an id, created 1700000000"),
    (customer("a\x00b"), "a\ufffdb"),
    (customer("a\nb"), "a\nb"),
    (customer("x" * 300), "x" * 255),
    (customer("sub_1"), "sub_1"),
    (customer("cus_odd", object="subscription"), "cus_odd"),
    (customer("cus_odd", None), "cus_odd"),
    (customer("cus_odd", "yesterday"), "cus_odd"),
    (customer("cus_odd", 1_700_000_000_000), "cus_odd"),
    (customer("cus_odd", email=["a"]), "cus_odd"),
    (customer("cus_odd", balance=2**80), "cus_odd"),
    (customer("cus_odd", metadata="x"), "cus_odd"),
]


@pytest.mark.parametrize(("odd", "name"), ODD, ids=range(len(ODD)))
def test_page_is_read_when_one_object_cannot_be_read(odd: Any, name: str) -> None:
    """C1, C6: it is named with its reason, at every place of the page, and the others are read."""
    good = [customer(f"cus_{number}") for number in range(3)]
    for place in range(4):
        page = page_of(*good[:place], odd, *good[place:], has_more=True)
        assert [one.id for one in page.snapshots] == ["cus_0", "cus_1", "cus_2"]
        assert list(page.unreadable) == [name]
        assert all(page.unreadable.values())
        assert page.last_id in ("cus_2", name)


def test_next_page_begins_after_an_unreadable_object_when_it_has_an_id() -> None:
    """C1: the cursor passes it, so no page is asked for twice."""
    page = page_of(customer("cus_1"), customer("cus_odd", email=5), customer("\x07"), has_more=True)
    assert page.last_id == "cus_odd"
    assert (list(page.ids), set(page.unreadable)) == (["cus_1", "cus_odd"], {"cus_odd", "\x07"})


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"data": None},
        {"data": {"id": "cus_1"}},
        {"data": [], "has_more": True},
        {"data": [5], "has_more": True},
    ],
    ids=str,
)
def test_page_is_refused_when_no_next_one_could_follow(answer: dict[str, Any]) -> None:
    """C1: without an id to go on after, the same page would be read for ever."""
    with pytest.raises(MalformedObject):
        read_page("customer", answer, 1_700_000_100)


def test_incomplete_objects_are_left_to_a_fetch() -> None:
    source = {
        "id": "sub_1",
        "object": "subscription",
        "created": 5,
        "status": "active",
        "items": {"data": [], "has_more": True},
    }
    page = read_page("subscription", {"data": [source]}, 9)
    assert (page.cut_short, page.snapshots, page.unreadable, page.ids) == (["sub_1"], [], {}, {"sub_1": 5})
