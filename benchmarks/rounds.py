"""Interleaved rounds: every target once in each round, and ratios taken within a round only."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import orjson

from testkit.load import Measured, Plan
from testkit.servers import CHECKOUT, Server


@dataclass(frozen=True, slots=True)
class Round:
    """One target's turn. `cpu` is the server's own processor time a request in microseconds, None off Linux."""

    measured: Measured
    cpu: float | None


@dataclass(frozen=True, slots=True)
class Target:
    """A server and what is asked of it: (path, bearer token), in rotation."""

    server: Server
    requests: list[tuple[str, str]]

    @property
    def name(self) -> str:
        return self.server.name


Turns = dict[str, list[Round]]
"""Every target's turns, in the order of the rounds."""


Of = TypeVar("Of")


def load(port: int, connections: int, seconds: float, requests: list[tuple[str, str]]) -> Measured:
    """Runs the load generator as a process of its own."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(orjson.dumps(asdict(Plan(port, connections, seconds, requests))))
        file.flush()
        command = [sys.executable, "-m", "testkit.load", file.name]
        ran = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, check=True)
    return Measured(**orjson.loads(ran.stdout))


def turn(target: Target, connections: int, seconds: float) -> Round:
    pid = target.server.pid
    before = processor_seconds(pid)
    measured = load(target.server.port, connections, seconds, target.requests)
    after = processor_seconds(pid)
    if before is None or after is None:
        return Round(measured, None)
    return Round(measured, (after - before) / measured.answered * 1e6)


def interleave(targets: list[Target], *, connections: int, rounds: int, seconds: float) -> Turns:
    """`rounds` rounds of `seconds` a target; each begins with another one."""
    found: Turns = {target.name: [] for target in targets}
    for target in in_turn(targets, rounds):
        found[target.name].append(turn(target, connections, seconds))
    return found


def in_turn(targets: Sequence[Of], rounds: int) -> Iterator[Of]:
    """Every target once in each round; each round begins with the next target."""
    for number in range(rounds):
        first = number % len(targets)
        yield from targets[first:]
        yield from targets[:first]


def ratios(turns: Turns, ours: str, theirs: str) -> list[float]:
    """Within each round: the rate of one target against another's."""
    pairs = zip(turns[ours], turns[theirs], strict=True)
    return [one.measured.rate / other.measured.rate for one, other in pairs]


def processor_seconds(pid: int) -> float | None:
    """User and system time of one process so far."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return None
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
