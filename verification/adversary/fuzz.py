"""`python -m verification.adversary.fuzz`: schemathesis over the OpenAPI document, against real processes.

An owner, a user and a service key with the scope admin each get an account of their own. Phases: the document's
examples, boundary values of every field, generated cases, and chains along the document's links. One JSON line;
exit code 1 where an answer is a server error or is not as declared.
"""

import argparse
import asyncio
import json
import logging
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from testkit.simulator import Simulator, new_account_key, running_simulator
from verification.adversary.fuzz_world import fuzz_world
from verification.adversary.fuzzing import Principal, Tally, declared_links, linking, run_phase
from verification.adversary.grounds import databases_at_hand

PRINCIPALS = ("owner", "user", "admin")
CASES = 15_000
ENOUGH_LINKS = 15
# The fullest round asks for so many generated cases of an operation; more come from further rounds.
ROUND = 40


@dataclass(frozen=True, slots=True)
class Shares:
    """Of a principal's cases; what is left over is generated."""

    coverage: float = 0.4
    stateful: float = 0.25


def fuzz(principal: Principal, cases: int, seed: int, *, coverage: bool = True) -> Tally:
    """Every phase, until `cases` requests are answered. `coverage`: with the boundary values of every field."""
    total = Tally()
    shares = Shares()
    total.add(run_phase(principal, "examples", seed=seed, most=cases))
    if coverage:
        total.add(run_phase(principal, "coverage", seed=seed, most=int(cases * shares.coverage)))
    chains = int(cases * shares.stateful)
    # A few cases reach a few sources; which ones is another matter for each principal.
    sources = random.Random(f"{seed}{principal.name}").sample(linking(), min(len(linking()), chains // 8))
    for source in [None, *sources]:
        most = max(4, chains // (len(sources) + 1))
        done = run_phase(
            principal, "stateful", seed=seed, most=most, examples=max(2, most // 3), source=source
        )
        total.add(done)
    for number in range(seed, seed + 1000):
        left = cases - total.cases
        if left <= 0:
            break
        examples = max(1, min(ROUND, left // 20))
        total.add(run_phase(principal, "fuzzing", seed=number, most=left, examples=examples))
        _say(f"{principal.name}: {total.cases} cases, findings: {sorted(total.broken)}")
    return total


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def report(tally: Tally, *, seed: int, seconds: float, asked: int) -> dict[str, object]:
    passed = (
        tally.cases >= asked
        and tally.server_errors == 0
        and not tally.broken
        and not tally.errors
        and len(tally.links) >= ENOUGH_LINKS
    )
    return {
        "benchmark": "schemathesis",
        "passed": passed,
        "cases": tally.cases,
        "principals": len(PRINCIPALS),
        "phases": dict(tally.phases),
        "operations": len(tally.operations),
        "operations_that_succeeded": sum(min(found) < 300 for found in tally.operations.values()),
        "statuses": {str(status): number for status, number in sorted(tally.statuses.items())},
        "links_declared": declared_links(),
        "links_exercised": len(tally.links),
        "link_cases": sum(tally.links.values()),
        "server_errors": tally.server_errors,
        "breaks": tally.broken,
        "errors": tally.errors,
        "seed": seed,
        "seconds": round(seconds, 1),
    }


def fuzz_all(simulator: str, new_database: Callable[[], str], cases: int, seed: int) -> Tally:
    """`cases` over all principals, one after another; each has an account of his own at `simulator`."""
    total = Tally()
    for name in PRINCIPALS:
        total.add(fuzz_some(simulator, new_database(), [name], -(-cases // len(PRINCIPALS)), seed))
    return total


def fuzz_some(
    simulator: str, database_url: str, names: Sequence[str], cases: int, seed: int, *, coverage: bool = True
) -> Tally:
    """`cases` for each of the named principals, in one account."""

    async def fuzzed() -> Tally:
        total = Tally()
        async with (
            Simulator(simulator, new_account_key()) as stripe,
            fuzz_world(stripe, database_url) as (base_url, known),
        ):
            for name in names:
                principal = Principal(name, base_url, known.headers[name], known.ids[name])
                total.add(await asyncio.to_thread(fuzz, principal, cases, seed, coverage=coverage))
        return total

    return asyncio.run(fuzzed())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=CASES, help="requests in all (15000)")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    started = time.monotonic()
    with running_simulator() as simulator, databases_at_hand() as new_database:
        tally = fuzz_all(simulator, new_database, chosen.cases, chosen.seed)
    found = report(tally, seed=chosen.seed, seconds=time.monotonic() - started, asked=chosen.cases)
    print(json.dumps(found))
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
