"""`python -m verification.simulation`: seeded schedules of seat operations through the service's own code.

Real: the API's routes, services and worker, PostgreSQL with its locks, the official SDK, the stand-in's effects.
Held: every statement, every request and answer of Stripe, every webhook, and the clock; a seed says which one thing
goes on next, and what goes wrong. `schedule_invariants` then judges what happened by the stand-in's log. A seed gives
the same decisions and the same log each time, which `--replay` checks; `--defects` breaks the code on purpose, in
one place at a time, and wants every break noticed. The long run is `--schedules 10000 --processes 2`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from stripe import _api_requestor

from app.stripe import client as stripe_client
from testkit import servers
from testkit.logs import quiet_logs
from verification.simulation import held_database
from verification.simulation.defects import DEFECTS, planted, tried_first
from verification.simulation.driver import RATES, Record, Schedule
from verification.simulation.held_loop import HeldLoop, held_loop
from verification.simulation.invariants import verdicts
from verification.simulation.world import INVITATIONS, Parts

FEWEST_STEPS, FEWEST_ACTORS, FAULTY_SHARE = 30, 4, 0.8
FEWEST_DEFECTS = 20
RATES_EVERY = 20
INVITATIONS_EVERY = 5
_SHOWN = 20
_PROGRESS_EVERY = 50

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is kept of one schedule; `settled_after`: seconds from the end of the faults to the last operation's."""

    seed: str
    digest: str
    steps: int
    actors: int
    faults: int
    requests: int
    calls: int
    settled_after: float
    verdicts: list[str]


@contextmanager
def known_randomness(seed: str) -> Iterator[None]:
    """Ids and pauses that the service and the SDK draw are the seed's."""
    rng, original = random.Random(f"{seed} ids"), secrets.token_hex
    pauses: Any = stripe_client
    # The SDK gives a key of its own to a POST that has none, such as a preview.
    requestor: Any = _api_requestor
    keys, drawn = random.Random(f"{seed} keys"), requestor._generate_idempotency_key

    def token_hex(nbytes: int | None = None) -> str:
        return rng.randbytes(nbytes or 16).hex()

    secrets.token_hex = token_hex
    requestor._generate_idempotency_key = lambda: keys.randbytes(16).hex()
    pauses.random = random.Random(f"{seed} pauses")
    try:
        yield
    finally:
        pauses.random = random
        secrets.token_hex = original
        requestor._generate_idempotency_key = drawn


class Bench:
    """One database and the applications over it; schedules are played one after another."""

    def __init__(self, url: str, names: list[str], gate: held_database.Gate, order: Iterator[int]) -> None:
        self._parts = Parts(url)
        self._names = names
        self._gate = gate
        self._order = order
        self._number = 0

    async def play(self, seed: str) -> Record:
        record = await self._play_once(seed)
        if self._gate.has_lost_a_connection:
            progress(f"{seed}: a connection to PostgreSQL was lost, so it is played again")
            record = await self._play_once(seed)
        return record

    async def _play_once(self, seed: str) -> Record:
        await held_database.empty(self._gate, self._names, self._number)
        self._number += 1
        self._gate.forget()
        held_loop().restart_clock()
        with known_randomness(seed):
            return await Schedule(self._parts, self._gate, seed, self._order).run()


async def play_all(url: str, seeds: Sequence[str], told: Callable[[Record, Outcome], bool]) -> list[Outcome]:
    """Until `told` answers False. `url` has been prepared by `held_database.install`."""
    order = count(1)
    gate = await held_database.open_gate(url, order)
    try:
        bench = Bench(url, await held_database.tables(url), gate, order)
        found = []
        for seed in seeds:
            record = await bench.play(seed)
            found.append(outcome_of(record))
            if not told(record, found[-1]):
                break
        return found
    finally:
        await gate.close()


def outcome_of(record: Record) -> Outcome:
    return Outcome(
        seed=record.seed,
        digest=record.digest(),
        steps=record.steps,
        actors=record.actors,
        faults=record.faults,
        requests=len(record.asked),
        calls=len(record.world.stripe.calls),
        settled_after=record.settled_after,
        verdicts=verdicts(record),
    )


def seeds_of(first: str, number: int) -> list[str]:
    """Return the seeds of so many schedules; in every twentieth Stripe often answers 429."""
    return [
        f"{first}{RATES if of_rates else '/'}{each}"
        for each in range(number)
        for of_rates in [each % RATES_EVERY == RATES_EVERY - 1]
    ]


def seeds_of_run(first: str, number: int) -> list[str]:
    """Return so many seeds, as `seeds_of` has them and, after every fourth, one of a schedule with invitations."""
    others = seeds_of(first, number)
    return [
        f"{first}{INVITATIONS}{each // INVITATIONS_EVERY}"
        if each % INVITATIONS_EVERY == INVITATIONS_EVERY - 1
        else others[each - each // INVITATIONS_EVERY]
        for each in range(number)
    ]


def in_held_time(work: Any) -> Any:
    with asyncio.Runner(loop_factory=HeldLoop) as runner:
        return runner.run(work)


def play(url: str, seeds: Sequence[str], defect: str | None = None) -> list[Outcome]:
    """In this process; with a defect, until it is caught."""
    number = count(1)

    def told(record: Record, outcome: Outcome) -> bool:
        for verdict in outcome.verdicts if defect is None else ():
            progress(f"{record.seed}: {verdict}")
        done = next(number)
        if defect is None and done % _PROGRESS_EVERY == 0:
            progress(f"{done} of {len(seeds)} schedules")
        return defect is None or not outcome.verdicts

    with quiet_logs(), planted(defect):
        found: list[Outcome] = in_held_time(play_all(url, seeds, told))
        return found


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Crew:
    """Processes, each with a database of its own; what there is to do is dealt out among them."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls

    def play(self, seeds: Sequence[str]) -> list[Outcome]:
        found = [one for part in self._each(play, seeds) for one in part]
        return sorted(found, key=lambda one: seeds.index(one.seed))

    def catch(self, seeds: Sequence[str]) -> dict[str, str | None]:
        """For each planted defect the first violation that it led to, None where `seeds` did not show it."""
        found = self._each(partial(catch, seeds=seeds), list(DEFECTS))
        return {name: verdict for part in found for name, verdict in part.items()}

    def _each(self, work: Callable[[str, Sequence[str]], Result], what: Sequence[str]) -> list[Result]:
        if len(self._urls) == 1:
            return [work(self._urls[0], what)]
        shares = [what[number :: len(self._urls)] for number in range(len(self._urls))]
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(len(self._urls), mp_context=context) as pool:
            return list(pool.map(work, self._urls, shares))


def catch(url: str, names: Sequence[str], *, seeds: Sequence[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in names:
        outcomes = play(url, [*tried_first(name), *seeds], name)
        last = outcomes[-1]
        found[name] = f"{last.verdicts[0]} (schedule {len(outcomes)})" if last.verdicts else None
        progress(f"{name}: {found[name] or 'NOT CAUGHT'}")
    return found


def show(url: str, seed: str) -> int:
    """Plays one seed and prints what was decided, then what was wrong with it."""

    def told(record: Record, outcome: Outcome) -> bool:
        print("\n".join(record.decisions))
        print("\n".join(outcome.verdicts) or "nothing is wrong")
        return True

    with quiet_logs():
        [outcome] = in_held_time(play_all(url, [seed], told))
    return 1 if outcome.verdicts else 0


def summary(
    found: Sequence[Outcome], replayed: Sequence[Outcome], caught: dict[str, str | None], seconds: float
) -> dict[str, Any]:
    digests = {one.seed: one.digest for one in found}
    differing = [one.seed for one in replayed if one.digest != digests[one.seed]]
    by_invariant = Counter(verdict.partition(":")[0] for one in found for verdict in one.verdicts)
    faulty = sum(one.faults > 0 for one in found) / max(1, len(found))
    steps, actors = (
        min((one.steps for one in found), default=0),
        min((one.actors for one in found), default=0),
    )
    is_met = not by_invariant and not differing and all(caught.values())
    if found:
        is_met = is_met and faulty >= FAULTY_SHARE and steps >= FEWEST_STEPS and actors >= FEWEST_ACTORS
    if caught:
        is_met = is_met and len(caught) >= FEWEST_DEFECTS
    return {
        "benchmark": "schedules",
        "met": is_met,
        "schedules": len(found),
        "violations": dict(by_invariant),
        "shown": [f"{one.seed} {verdict}" for one in found for verdict in one.verdicts][:_SHOWN],
        "replayed": len(replayed),
        "replayed_otherwise": differing,
        "faulty_share": round(faulty, 3),
        "fewest_steps": steps,
        "fewest_actors": actors,
        "requests": sum(one.requests for one in found),
        "stripe_calls": sum(one.calls for one in found),
        "faults": sum(one.faults for one in found),
        "longest_unsettled_seconds": round(max((one.settled_after for one in found), default=0.0), 1),
        "defects": len(caught),
        "defects_not_caught": [name for name, verdict in caught.items() if verdict is None],
        "seconds": round(seconds, 1),
    }


def end(number: int, _: object) -> None:
    """Ended from outside, the processes that play end too, and the databases are dropped."""
    for process in multiprocessing.active_children():
        process.terminate()
    sys.exit(128 + number)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="verification.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--schedules", type=int, default=2_000)
    parser.add_argument("--seed", default="20261122", help="the first part of every schedule's own seed")
    parser.add_argument(
        "--replay", type=int, default=200, help="schedules that are played twice (default 200)"
    )
    parser.add_argument("--processes", type=int, default=1, help="schedules played at the same time")
    parser.add_argument(
        "--defects", action="store_true", help="plant the defects as well; each must be caught"
    )
    parser.add_argument("--defect-schedules", type=int, default=400, help="schedules a defect, at most")
    parser.add_argument(
        "--show", metavar="SEED", help="play one schedule alone (as 20261122/17) and print it"
    )
    parser.add_argument("--state", type=Path, help="keep the benchmarks' PostgreSQL in this directory")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, end)
    started = time.monotonic()
    with ExitStack() as stack:
        urls = [
            stack.enter_context(servers.database(f"schedules{number}", given.state, fast=True))
            for number in range(1 if given.show else given.processes)
        ]
        for url in urls:
            asyncio.run(held_database.install(url))
        if given.show:
            return show(urls[0], given.show)
        crew = Crew(urls)
        seeds = seeds_of_run(given.seed, given.schedules)
        found = crew.play(seeds)
        replayed = crew.play(seeds[: given.replay][::-1]) if given.replay else []
        tried = seeds_of_run(given.seed, given.defect_schedules)
        caught = crew.catch(tried) if given.defects else {}
    result = summary(found, replayed, caught, time.monotonic() - started)
    print(json.dumps(result))
    return 0 if result["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
