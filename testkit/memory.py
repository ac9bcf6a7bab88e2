"""What a process holds, by the kernel's own account (Linux)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Memory:
    """Megabytes that are resident now, and the most that ever were."""

    resident: float
    peak: float


def memory_of(pid: int) -> Memory | None:
    """None where there is no such process, or no /proc."""
    status = Path(f"/proc/{pid}/status")
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return None
    found = {
        name: value.split()[0] for name, _, value in (line.partition(":") for line in lines) if value.strip()
    }
    if "VmRSS" not in found:
        return None
    return Memory(int(found["VmRSS"]) / 1024, int(found["VmHWM"]) / 1024)


def descriptors_of(pid: int) -> int:
    """Return the number of open descriptors. Raises OSError if there is no such process, or no /proc."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
