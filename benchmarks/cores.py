"""Keep processes to one half of the machine's cores, so that they do not take processor time from the other half."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Halves:
    """The cores of each half. Both are all cores where there is only one, or where a process cannot be kept (macOS)."""

    first: frozenset[int]
    second: frozenset[int]

    @classmethod
    def of_machine(cls) -> Halves:
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        if len(cores) < 2:
            return cls(frozenset(cores), frozenset(cores))
        middle = len(cores) // 2
        return cls(frozenset(cores[:middle]), frozenset(cores[middle:]))

    @property
    def are_apart(self) -> bool:
        return self.first != self.second


def keep(pids: Iterable[int], cores: frozenset[int]) -> None:
    """Keep processes with all their threads to these cores; one that has ended is left out."""
    if not cores:
        return
    for pid in pids:
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), cores)
        except (FileNotFoundError, ProcessLookupError):
            continue


@contextmanager
def kept(cores: frozenset[int]) -> Iterator[None]:
    """Keep this thread, and the processes that it starts, to these cores."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def run(cores: frozenset[int], what: Callable[[], Result]) -> Result:
    """Call `what` while this thread is kept to these cores."""
    with kept(cores):
        return what()
