"""The sync rule broken on purpose."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from app.mirror import webhooks
from app.mirror.store import refreshes
from app.mirror.store.rows import MIRRORS
from verification.planting import Change, edited, in_place


def _strict_created() -> list[Change]:
    """The usual way: the newer `created` wins, what is not newer is dropped."""
    return [
        edited(
            m,
            "apply_events",
            ("+ $7", "+ 0 * $7"),
            (
                "order by 1\n                on conflict (id) do update set\n    notifications",
                "and false order by 1\n                on conflict (id) do update set\n    notifications",
            ),
        )
        for m in MIRRORS.values()
    ]


def _no_margin() -> list[Change]:
    return [edited(m, "apply_events", ("+ $7", "+ 0 * $7")) for m in MIRRORS.values()]


def _no_lease() -> list[Change]:
    """Let a process fetch without the lease, and apply even if another process has taken it."""
    anybody = ("and lease_token = $2", "and ($2::uuid is not null)")
    return [
        edited(
            refreshes,
            "_DUE",
            ("set lease_token", "set not_before = clock_timestamp() + interval '1 second', lease_token"),
            ("and (r.lease_until is null or r.lease_until < clock_timestamp())", ""),
            ("for update of r skip locked", ""),
        ),
        edited(refreshes, "_TAKE", ("where r.lease_until is null or r.lease_until < clock_timestamp()", "")),
        *(edited(refreshes, name, anybody) for name in ("_HELD", "_MARK_APPLIED", "_AGAIN", "_FAILED")),
    ]


def _no_serial() -> list[Change]:
    return [
        edited(m, "apply_fetched", ("t.serial = $2", "(t.serial = $2 or true)")) for m in MIRRORS.values()
    ]


def _deleted_revived() -> list[Change]:
    return [
        edited(m, name, (m.may_follow("excluded", "t"), "true"))
        for m in MIRRORS.values()
        for name in ("apply_events", "apply_fetched")
    ]


def _used_again_refused() -> list[Change]:
    """Keep every deleted row as it is, although its id has a new object."""
    return [
        edited(
            MIRRORS["product"],
            name,
            (MIRRORS["product"].may_follow("excluded", "t"), "(excluded.terminal or not t.terminal)"),
        )
        for name in ("apply_events", "apply_fetched")
    ]


def _any_version_trusted() -> list[Change]:
    return [(webhooks, "_distrust", lambda event: None)]


DEFECTS: dict[str, Callable[[], list[Change]]] = {
    "strict created": _strict_created,
    "no margin": _no_margin,
    "no lease": _no_lease,
    "no serial check": _no_serial,
    "deleted revived": _deleted_revived,
    "used again refused": _used_again_refused,
    "any version trusted": _any_version_trusted,
}


def planted(name: str | None) -> AbstractContextManager[None]:
    """With one of `DEFECTS` in place; None is the rule as it is."""
    return in_place([] if name is None else DEFECTS[name]())
