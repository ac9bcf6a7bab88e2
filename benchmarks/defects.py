"""The sync rule broken on purpose, in this process alone: a check that never fails proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from app.cache import refreshes
from app.cache.mirror import MIRRORS
from app.services import webhooks

Change = tuple[Any, str, object]


def _edited(owner: Any, name: str, *edits: tuple[str, str]) -> Change:
    text = getattr(owner, name)
    for old, new in edits:
        if old not in text:
            raise LookupError(f"{name} does not contain {old!r}")
        text = text.replace(old, new)
    return owner, name, text


def _strict_created() -> list[Change]:
    """The usual way: the newer `created` wins, what is not newer is dropped."""
    return [
        _edited(
            m,
            "apply_events",
            ("+ $7", "+ 0 * $7"),
            (
                "order by i.id\n                on conflict (id) do update set\n    hints",
                "and false order by i.id\n                on conflict (id) do update set\n    hints",
            ),
        )
        for m in MIRRORS.values()
    ]


def _no_margin() -> list[Change]:
    return [_edited(m, "apply_events", ("+ $7", "+ 0 * $7")) for m in MIRRORS.values()]


def _no_lease() -> list[Change]:
    """Whoever comes may fetch, and lands whoever else came meanwhile."""
    anybody = ("and lease_token = $2", "and ($2::uuid is not null)")
    return [
        _edited(
            refreshes,
            "_DUE",
            ("set lease_token", "set not_before = clock_timestamp() + interval '1 second', lease_token"),
            ("and (lease_until is null or lease_until < clock_timestamp())", ""),
            ("for update skip locked", ""),
        ),
        _edited(refreshes, "_TAKE", ("where r.lease_until is null or r.lease_until < clock_timestamp()", "")),
        *(_edited(refreshes, name, anybody) for name in ("_HELD", "_LANDED", "_AGAIN", "_FAILED")),
    ]


def _no_serial() -> list[Change]:
    return [
        _edited(m, "apply_fetched", ("t.serial = $2", "(t.serial = $2 or true)")) for m in MIRRORS.values()
    ]


def _deleted_revived() -> list[Change]:
    final = ("(excluded.final or not t.final)", "(excluded.final or not t.final or true)")
    return [_edited(m, name, final) for m in MIRRORS.values() for name in ("apply_events", "apply_fetched")]


def _any_version_trusted() -> list[Change]:
    return [(webhooks, "_distrust", lambda event: None)]


DEFECTS: dict[str, Callable[[], list[Change]]] = {
    "strict created": _strict_created,
    "no margin": _no_margin,
    "no lease": _no_lease,
    "no serial check": _no_serial,
    "deleted revived": _deleted_revived,
    "any version trusted": _any_version_trusted,
}


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """With one of `DEFECTS` in place; None is the rule as it is."""
    kept: list[Change] = []
    try:
        for owner, attribute, broken in [] if name is None else DEFECTS[name]():
            kept.append((owner, attribute, getattr(owner, attribute)))
            setattr(owner, attribute, broken)
        yield
    finally:
        for owner, attribute, original in reversed(kept):
            setattr(owner, attribute, original)
