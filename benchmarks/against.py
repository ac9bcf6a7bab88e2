"""`python -m benchmarks.against DIRECTORY`: this checkout against another one of the same project.

Both run at the same time, each with its own interpreter (DIRECTORY/.venv) and its own code, over a database of its own
on the same PostgreSQL. Reads, and the ingest of events about subscriptions and about customers, compare rates; a
hundred additions in one call, while each answer of Stripe takes 300 ms, compare times. What counts is the median of the
ratios within the rounds, and its interval is printed beside it. The exit code is 1 when this checkout is more than 5 %
worse, or when a request failed.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from app.commands.local_postgres import state_directory
from app.settings import inherited_environment
from benchmarks import hundred, ingest, reads
from benchmarks.rounds import Target, in_turn, interleave, load, ratios
from benchmarks.verdicts import Bar, Part, print_verdicts
from testkit.seat_world import load_average
from testkit.servers import CHECKOUT, Server

RATE_BAR = 0.95
"""The least share of the other checkout's rate."""
TIME_BAR = 1.05
"""The longest time, as a share of the other checkout's."""
ROUNDS = 9
"""The fewest that give an interval of 95 % without the two outermost values."""
END_SECONDS = 60.0
Json = dict[str, Any]


class SideEnded(Exception):
    """One side ended before it answered; its standard error says why."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """A folder with the project's code, and the interpreter that has its dependencies."""

    name: str
    directory: Path
    python: Path

    @property
    def commit(self) -> str | None:
        """Return the checked-out commit, with `-dirty` for edited files; None outside a git repository."""
        command = ["git", "-C", str(self.directory), "describe", "--always", "--dirty", "--exclude=*"]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        return ran.stdout.strip() if ran.returncode == 0 else None


class Side:
    """`benchmarks/checkout.py` as a process of one checkout."""

    def __init__(self, checkout: Checkout, process: subprocess.Popen[str]) -> None:
        self.name = checkout.name
        self._process = process

    def ask(self, request: Json) -> Json:
        """Return the side's answer. Raises SideEnded."""
        if self._process.stdin is not None:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        return self.answer()

    def answer(self) -> Json:
        """Return the next line that the side writes. Raises SideEnded."""
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            code = self._process.wait(END_SECONDS)
            raise SideEnded(f"{self.name}: its process ended with exit code {code}; see its standard error.")
        found: Json = json.loads(line)
        return found


@contextmanager
def _side(what: str, checkout: Checkout, state: Path) -> Iterator[Side]:
    """It ends when its standard input is closed, even if this process is killed."""
    script = str(Path(__file__).with_name("checkout.py"))
    process = subprocess.Popen(
        [str(checkout.python), "-P", script, what, checkout.name, str(state)],
        cwd=checkout.directory,
        env={**inherited_environment(), "PYTHONPATH": str(checkout.directory)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        yield Side(checkout, process)
    except BaseException:
        # It may still be seeding, and looks at its input only afterwards.
        process.terminate()
        raise
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _both(what: str, checkouts: list[Checkout], state: Path) -> Iterator[list[tuple[Side, Json]]]:
    """Both checkouts' sides, and what each said when it was ready; the second starts when the first is ready."""
    with ExitStack() as stack:
        found = []
        for checkout in checkouts:
            side = stack.enter_context(_side(what, checkout, state))
            found.append((side, side.answer()))
        yield found


@dataclass(frozen=True, slots=True)
class Measurement:
    """This checkout comes first in `checkouts`; `seconds` are of one turn of reads or ingest."""

    checkouts: list[Checkout]
    state: Path
    rounds: int
    seconds: float

    def reads(self) -> Part:
        part = Part("reads")
        with _both("serve", self.checkouts, self.state) as both:
            targets = [Target(_server(side, ready), ready["requests"]) for side, ready in both]
            for target in targets:
                load(target.server.port, 4, self.seconds, target.requests)
            for connections in reads.CONNECTIONS:
                turns = interleave(targets, connections=connections, rounds=self.rounds, seconds=self.seconds)
                for name, own in turns.items():
                    part.failed += sum(one.measured.failed for one in own)
                    part.figures.append(reads.figures(name, connections, own))
                of_rate = ratios(turns, *(checkout.name for checkout in self.checkouts))
                part.bars.append(Bar(f"reads c={connections}: of the other's rate", of_rate, RATE_BAR))
        return part

    def ingest(self) -> Part:
        return self._ingest("ingest", "subscription", ingest.NEWEST)

    def customers(self) -> Part:
        return self._ingest("customers", "customer", ingest.NEWEST_NAME)

    def _ingest(self, what: str, kind: str, newest: str) -> Part:
        part = Part(what)
        with _both("serve", self.checkouts, self.state) as both:
            targets = [
                ingest.Target(side.name, _server(side, ready), ready["database_url"], newest, kind=kind)
                for side, ready in both
            ]
            for target in targets:
                ingest.turn(target, 8, min(2.0, self.seconds))
            for connections in ingest.CONNECTIONS:
                ingest.interleave(targets, connections=connections, rounds=self.rounds, seconds=self.seconds)
                for target in targets:
                    part.failed += sum(one.failed for one in target.turns[connections])
                    part.figures.append(ingest.figures(target, connections))
                of_rate = ingest.ratios(targets[0], targets[1], connections)
                part.bars.append(Bar(f"{what} c={connections}: of the other's rate", of_rate, RATE_BAR))
        return part

    def hundred(self) -> Part:
        part = Part("hundred")
        with _both("add", self.checkouts, self.state) as both:
            sides = [side for side, _ in both]
            for side in sides:
                side.ask({"known": False})
            for kind in ("created", "known"):
                seconds: dict[str, list[float]] = {side.name: [] for side in sides}
                for side in in_turn(sides, self.rounds):
                    answer = side.ask({"known": kind == "known"})
                    part.failed += hundred.PEOPLE - min(answer["applied"], answer["seated"])
                    seconds[side.name].append(answer["seconds"])
                for name, own in seconds.items():
                    print(f"{name:<8} {kind:<8} {median(own):>6.2f} s", flush=True)
                    part.figures.append({"target": name, "customers": kind, "seconds": own})
                pairs = zip(*seconds.values(), strict=True)
                of_time = [ours / theirs for ours, theirs in pairs]
                what = f"hundred additions, {kind} customers: of the other's time"
                part.bars.append(Bar(what, of_time, TIME_BAR, at_most=True))
        return part


def _server(side: Side, ready: Json) -> Server:
    return Server(side.name, ready["port"], ready["pid"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.against", description=__doc__)
    parser.add_argument("directory", type=Path, help="the other checkout")
    parser.add_argument("--python", type=Path, help="its interpreter (default DIRECTORY/.venv/bin/python)")
    parts = ("reads", "ingest", "customers", "hundred")
    parser.add_argument("--only", nargs="+", choices=parts, default=[*parts], help="these parts alone")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds of each ratio (default {ROUNDS})")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a turn of reads or ingest (default 3)")
    parser.add_argument("--state", type=Path, help="keep the benchmarks' PostgreSQL in this directory")
    given = parser.parse_args()
    if given.rounds < 1 or given.seconds <= 0:
        parser.error("--rounds and --seconds must be positive")
    directory = given.directory.resolve()
    python = (given.python or directory / ".venv" / "bin" / "python").absolute()
    if not python.exists():
        parser.error(f"there is no {python}: run `make .venv/.ready` in the other checkout, or name --python")
    # Ended from outside, too, the servers stop and the databases are dropped.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    checkouts = [Checkout("this", CHECKOUT, Path(sys.executable)), Checkout("other", directory, python)]
    measurement = Measurement(
        checkouts, state_directory(CHECKOUT, given.state), rounds=given.rounds, seconds=given.seconds
    )
    runs: dict[str, Callable[[], Part]] = {name: getattr(measurement, name) for name in parts}
    found = []
    for name in parts:
        if name in given.only:
            print(f"\n{name}", flush=True)
            found.append(runs[name]())
    print_verdicts(found)
    covered = found[0].bars[0].interval.coverage
    print(f"interval: order statistics of {given.rounds} rounds, which cover the median with {covered:.1%}")
    figures = {
        "benchmark": "against",
        "met": all(part.met for part in found),
        "commits": {checkout.name: checkout.commit for checkout in checkouts},
        "rounds": given.rounds,
        "load_average": load_average(),
        **{part.name: part.dumped() for part in found},
    }
    print(json.dumps(figures))
    return 0 if figures["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
