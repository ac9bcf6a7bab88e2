"""Breadth-first exploration of a case: every reachable state, every move, and the shortest way to each violation."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from app.operations.lifecycle import IllegalTransition
from verification.model.service import Case, World, broken, moves, progress

NEVER_ENDS = "every operation ends"
ILLEGAL = "every transition is in the table"


@dataclass(slots=True)
class Explored:
    """`violations`: for each broken invariant, the shortest sequence of moves that breaks it."""

    states: int = 0
    transitions: int = 0
    violations: dict[str, list[str]] = field(default_factory=dict)


def explore(case: Case) -> Explored:
    """Visit every world that can be reached in the case, and judge each move.

    Worlds behind a violation are explored too, so that all violations of a rule are found at once.
    """
    start = case.start()
    came_from: dict[World, tuple[World, str] | None] = {start: None}
    queue, found = deque([start]), Explored()

    def way(world: World) -> list[str]:
        told: list[str] = []
        while (step := came_from[world]) is not None:
            world = step[0]
            told.append(step[1])
        return told[::-1]

    while queue:
        world = queue.popleft()
        try:
            following = list(moves(world, case))
        except IllegalTransition as error:
            found.violations.setdefault(ILLEGAL, [*way(world), str(error)])
            continue
        for told, after in following:
            found.transitions += 1
            if after not in came_from:
                came_from[after] = (world, told)
                queue.append(after)
            for invariant in broken(world, after, case):
                found.violations.setdefault(invariant, [*way(world), told])
    found.states = len(came_from)
    if ILLEGAL not in found.violations:
        stuck = _those_that_never_end(set(came_from), case)
        if stuck is not None:
            found.violations[NEVER_ENDS] = way(stuck)
    return found


def _those_that_never_end(reached: set[World], case: Case) -> World | None:
    """Return a world from which no sequence of moves without faults, edits and crashes settles the step."""
    calm = {world: _calmed(world) for world in reached}
    ahead: dict[World, list[World]] = {}
    queue = deque(set(calm.values()))
    while queue:
        world = queue.popleft()
        if world in ahead:
            continue
        ahead[world] = [after for _, after in progress(world, case)]
        queue.extend(after for after in ahead[world] if after not in ahead)
    behind: dict[World, list[World]] = {}
    for world, following in ahead.items():
        for after in following:
            behind.setdefault(after, []).append(world)
    ends = {world for world in ahead if world.row.has_ended}
    queue = deque(ends)
    while queue:
        for world in behind.get(queue.popleft(), ()):
            if world not in ends:
                ends.add(world)
                queue.append(world)
    return next((world for world, still in calm.items() if still not in ends), None)


def _calmed(world: World) -> World:
    return replace(world, crashes=0, stripe=replace(world.stripe, faults=0, edits=0))
