"""The stand-in's own log of one account: every state that every object has had, and who wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Version:
    """One state of one object; `state` is None after a removal.

    `number` counts all changes of the account from 1. `at` is the account's time in Unix seconds. `actor` is `api` for
    the service, else `dashboard`, `browser`, `clock` or `control`; `request` names the request that wrote it.
    """

    number: int
    kind: str
    id: str
    at: float
    actor: str
    request: str | None
    state: Json | None


@dataclass(frozen=True, slots=True)
class Group:
    """The versions that one request, or one moment of the clock, has written."""

    actor: str
    at: float
    versions: tuple[Version, ...]

    @property
    def first(self) -> int:
        return self.versions[0].number

    @property
    def last(self) -> int:
        return self.versions[-1].number

    def of(self, kind: str) -> Iterator[Version]:
        return (version for version in self.versions if version.kind == kind)


class Journal:
    """Grows with the account: `extend` takes what the stand-in's `versions` control gives."""

    def __init__(self) -> None:
        self.versions: list[Version] = []
        self._of: dict[tuple[str, str], list[Version]] = {}

    @property
    def last(self) -> int:
        return len(self.versions)

    def extend(self, rows: Sequence[Json]) -> list[Version]:
        """Raises ValueError if a version is missing."""
        found = []
        for row in rows:
            actor = row["actor"]
            version = Version(
                number=row["number"],
                kind=row["type"],
                id=row["id"],
                at=row["at"],
                actor=actor["type"],
                request=actor.get("request"),
                state=row["state"],
            )
            if version.number != self.last + 1:
                raise ValueError(f"version {version.number} came after {self.last}")
            self.versions.append(version)
            self._of.setdefault((version.kind, version.id), []).append(version)
            found.append(version)
        return found

    def state(self, kind: str, object_id: str, until: int | None = None) -> Json | None:
        """The object as it was once version `until` was written (default: now). None if it was not there."""
        for version in reversed(self._of.get((kind, object_id), [])):
            if until is None or version.number <= until:
                return version.state
        return None

    def all(self, kind: str, until: int | None = None) -> list[Json]:
        """The present objects of a kind in order of creation."""
        names = [name for of, name in self._of if of == kind]
        found = (self.state(kind, name, until) for name in names)
        return [state for state in found if state is not None and not state.get("deleted")]

    def groups(self) -> Iterator[Group]:
        """In order of writing; neighbours of one request, or of one moment, belong together."""
        part: list[Version] = []
        for version in self.versions:
            key = (version.actor, version.request, version.at)
            if part and key != (part[0].actor, part[0].request, part[0].at):
                yield Group(part[0].actor, part[0].at, tuple(part))
                part = []
            part.append(version)
        if part:
            yield Group(part[0].actor, part[0].at, tuple(part))
