"""Interleaved rounds: every target once in each round, and ratios taken within a round only."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import orjson

from benchmarks.load import Measured, Plan
from benchmarks.servers import CHECKOUT, Server


@dataclass(frozen=True, slots=True)
class Round:
    """One target's turn. `cpu` is the server's own processor time a request in microseconds, None off Linux."""

    measured: Measured
    cpu: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two targets at one concurrency, round by round: `subject` against `reference`."""

    connections: int
    subject: list[Round]
    reference: list[Round]

    @property
    def ratios(self) -> list[float]:
        return [
            ours.measured.rate / theirs.measured.rate
            for ours, theirs in zip(self.subject, self.reference, strict=True)
        ]

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    @property
    def failed(self) -> int:
        return sum(turn.measured.failed for turn in (*self.subject, *self.reference))


def load(port: int, connections: int, seconds: float, requests: list[tuple[str, str]]) -> Measured:
    """Runs the load generator as a process of its own."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(orjson.dumps(asdict(Plan(port, connections, seconds, requests))))
        file.flush()
        command = [sys.executable, "-m", "benchmarks.load", file.name]
        ran = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, check=True)
    return Measured(**orjson.loads(ran.stdout))


def turn(server: Server, connections: int, seconds: float, requests: list[tuple[str, str]]) -> Round:
    before = processor_seconds(server.pid)
    measured = load(server.port, connections, seconds, requests)
    after = processor_seconds(server.pid)
    if before is None or after is None:
        return Round(measured, None)
    return Round(measured, (after - before) / measured.answered * 1e6)


def compare(
    subject: Server,
    reference: Server,
    requests: list[tuple[str, str]],
    *,
    connections: int,
    rounds: int,
    seconds: float,
) -> Comparison:
    """`rounds` rounds of `seconds` a target; the target that goes first alternates."""
    found: dict[str, list[Round]] = {subject.name: [], reference.name: []}
    for number in range(rounds):
        order = (subject, reference) if number % 2 == 0 else (reference, subject)
        for server in order:
            found[server.name].append(turn(server, connections, seconds, requests))
    return Comparison(connections, found[subject.name], found[reference.name])


def processor_seconds(pid: int) -> float | None:
    """User and system time of one process so far."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return None
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
