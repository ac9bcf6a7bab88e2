"""Read a page of a list: one object that cannot be read never stops the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.domain.snapshots import Snapshot, Subscription
from app.stripe import parsing
from app.stripe.parsing import MalformedObject

_LONGEST_NAME = 255


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list, newest object first; `at` is the Unix second of the answer.

    `cut_short` are the ids of objects that were incomplete, which have to be fetched one by one. `unreadable` are the
    reasons why objects cannot be read, by id; an object without an id has a name that says so. `ids` are the objects
    with a readable creation time, with its Unix second, in the order of the page. `last_id` is the id after which the
    next page begins, None if no object of this page has one.
    """

    snapshots: list[Snapshot] = field(default_factory=list)
    cut_short: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    last_id: str | None = None
    has_more: bool = False
    at: int = 0


def read_page(kind: str, answer: Mapping[str, Any], at: int) -> Page:
    """Return a page of objects of one kind. `at` is the Unix second of the answer.

    Raises:
        MalformedObject: the answer is no list, or another page follows and no object has an id to begin it after.
    """
    sources = answer.get("data")
    if not isinstance(sources, list):
        raise MalformedObject("data is not a list")
    page = Page(last_id=_last_id(sources), has_more=answer.get("has_more") is True, at=at)
    if page.has_more and page.last_id is None:
        raise MalformedObject("no object of the page has an id, and another page follows")
    for source in sources:
        try:
            _read(kind, source, page)
        except MalformedObject as error:
            page.unreadable[_name(source)] = str(error)
    return page


def _read(kind: str, source: Any, page: Page) -> None:
    parsing.check_kind(kind, source)
    object_id = str(source["id"])
    page.ids[object_id] = parsing.created(source)
    is_whole = kind == "price" or parsing.is_complete(source)
    if not is_whole or tiers_not_shown(source):
        page.cut_short.append(object_id)
        return
    snapshot = parsing.snapshot(kind, source)
    if isinstance(snapshot, Subscription) and not snapshot.discounts_complete:
        page.cut_short.append(object_id)
    else:
        page.snapshots.append(snapshot)


def tiers_not_shown(source: Mapping[str, Any]) -> list[str]:
    """Return the currencies of a tiered price whose tiers are missing. Stripe returns each only if it is expanded.

    The tiers of the price's own currency are in the price's `tiers`.
    """
    if source.get("object") != "price" or source.get("billing_scheme") != "tiered":
        return []
    options = source.get("currency_options")
    if not isinstance(options, Mapping):
        return []
    others = [name for name in options if name != source.get("currency")]
    return [name for name in others if isinstance(options[name], Mapping) and "tiers" not in options[name]]


def _last_id(sources: Sequence[Any]) -> str | None:
    ids = (source.get("id") for source in reversed(sources) if isinstance(source, Mapping))
    return next((value for value in ids if parsing.is_id(value)), None)


def _name(source: Any) -> str:
    """Return an object's id, or what a person may recognise in its place."""
    value = source.get("id") if isinstance(source, Mapping) else None
    if isinstance(value, str) and value:
        return parsing.storable(value)[:_LONGEST_NAME]
    created = source.get("created") if isinstance(source, Mapping) else None
    return f"without an id, created {created}" if type(created) is int else "without an id"
