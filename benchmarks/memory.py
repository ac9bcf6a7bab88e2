"""What a process holds in memory, by the kernel's own account (Linux)."""

from __future__ import annotations

from testkit.memory import Memory, memory_of

GROWTH = 0.1
"""A process that is this much larger after the last load than after the first is remarked upon."""


class Watched:
    """The memory of one process at several moments of a benchmark."""

    def __init__(self, name: str, pid: int) -> None:
        self.name = name
        self._pid = pid
        self._moments: list[tuple[str, Memory]] = []

    def note(self, moment: str) -> None:
        found = memory_of(self._pid)
        if found is not None:
            self._moments.append((moment, found))

    def line(self) -> str:
        if not self._moments:
            return f"memory of {self.name}: not known on this system"
        told = ", ".join(f"{found.resident:.0f} MB {moment}" for moment, found in self._moments)
        return f"memory of {self.name}: {told}; peak {self._moments[-1][1].peak:.0f} MB{self._growth()}"

    def _growth(self) -> str:
        """The first moment is before any load, so what is warm by then is no growth."""
        loaded = [found.resident for _, found in self._moments[1:]]
        if len(loaded) < 2 or loaded[-1] <= loaded[0] * (1 + GROWTH):
            return ""
        return f". IT GREW by {loaded[-1] - loaded[0]:.0f} MB from the first load to the last"

    def figures(self) -> dict[str, float]:
        return {moment: round(found.resident, 1) for moment, found in self._moments}
