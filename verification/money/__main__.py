"""`python -m verification.money`: random lives of customers, judged by a second model of money.

A seed gives the same life and the same log each time. verification/README.md explains what is real and what each
invariant means.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from app.commands.logs import configure_logs
from testkit import servers
from testkit.simulator import running_simulator
from verification.money.defects import DEFECTS
from verification.money.life import Record
from verification.money.lives import Outcome, catch, play_all, run
from verification.shares import each, end

FEWEST_DEFECTS = 10
_SHOWN = 40


def show(url: str, seed: str) -> int:
    """Plays one life twice, prints it, and says what is wrong with it."""
    configure_logs("critical")
    played: list[tuple[Record, Outcome]] = []

    def told(record: Record, outcome: Outcome) -> bool:
        played.append((record, outcome))
        return True

    for _ in range(2):
        with running_simulator() as stripe_base:
            asyncio.run(play_all(url, stripe_base, [seed], told))
    (record, outcome), (_, again) = played
    print("\n".join(record.log))
    print("\n".join(outcome.verdicts) or "nothing is wrong")
    if outcome.digest != again.digest:
        print("the second time it went otherwise")
    return 1 if outcome.verdicts or outcome.digest != again.digest else 0


def summary(
    found: Sequence[Outcome],
    replayed: Sequence[Outcome],
    caught: Sequence[tuple[str, str | None]],
    seconds: float,
) -> dict[str, Any]:
    digests = {one.seed: one.digest for one in found}
    otherwise = [one.seed for one in replayed if one.digest != digests[one.seed]]
    by_invariant = Counter(verdict[0] for one in found for verdict in one.verdicts)
    answers: Counter[str] = Counter()
    for one in found:
        answers.update(one.answers)
    is_met = not by_invariant and not otherwise and all(verdict for _, verdict in caught)
    if caught:
        is_met = is_met and len(caught) >= FEWEST_DEFECTS
    return {
        "verification": "money",
        "met": is_met,
        "lives": len(found),
        "violations": dict(sorted(by_invariant.items())),
        "shown": [f"{one.seed} {verdict}" for one in found for verdict in one.verdicts][:_SHOWN],
        "calls": sum(one.calls for one in found),
        "succeeded": sum(one.succeeded for one in found),
        "answers": dict(answers.most_common()),
        "replayed": len(replayed),
        "replayed_otherwise": otherwise,
        "defects": len(caught),
        "caught_by": {name: verdict[0] for name, verdict in caught if verdict},
        "defects_not_caught": [name for name, verdict in caught if verdict is None],
        "seconds": round(seconds, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="verification.money", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lives", type=int, default=2_000)
    parser.add_argument("--seed", default="20261127", help="the first part of every life's own seed")
    parser.add_argument("--replay", metavar="SEED", help="play one life (as 20261127/17) and print it")
    parser.add_argument("--again", type=int, default=20, help="lives that are played twice (default 20)")
    parser.add_argument("--processes", type=int, default=1, help="lives played at the same time")
    parser.add_argument(
        "--defects", action="store_true", help="plant the defects as well; each must be caught"
    )
    parser.add_argument("--defect-lives", type=int, default=300, help="lives a defect, at most")
    parser.add_argument("--state", type=Path, help="keep PostgreSQL in this directory")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, end)
    started = time.monotonic()
    with ExitStack() as stack:
        urls = [
            stack.enter_context(servers.database(f"lives{number}", given.state, fast=True))
            for number in range(1 if given.replay else given.processes)
        ]
        if given.replay:
            return show(urls[0], given.replay)
        seeds = [f"{given.seed}/{number}" for number in range(given.lives)]
        found = each(urls, run, seeds)
        replayed = each(urls, run, seeds[: given.again][::-1]) if given.again else []
        tried = [f"{given.seed}/{number}" for number in range(given.defect_lives)]
        caught = each(urls, partial(catch, seeds=tried), list(DEFECTS)) if given.defects else []
    result = summary(found, replayed, caught, time.monotonic() - started)
    print(json.dumps(result))
    return 0 if result["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
