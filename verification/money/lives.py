"""Plays lives one after another in this process, and keeps of each what its judgement needs."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count

from testkit.logs import quiet_logs
from testkit.simulator import running_simulator
from verification.money.bench import Bench
from verification.money.defects import DEFECTS
from verification.money.invariants import verdicts
from verification.money.life import Record, play
from verification.planting import in_place

_PROGRESS_EVERY = 50


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is kept of one life; `answers` counts its calls by status and code."""

    seed: str
    digest: str
    calls: int
    succeeded: int
    answers: dict[str, int]
    verdicts: list[str]


Told = Callable[[Record, Outcome], bool]


def outcome_of(record: Record) -> Outcome:
    answers = Counter(f"{call.reply.status} {call.reply.code}".strip() for call in record.calls)
    return Outcome(
        seed=record.seed,
        digest=record.digest(),
        calls=len(record.calls),
        succeeded=sum(call.ok for call in record.calls),
        answers=dict(answers),
        verdicts=verdicts(record),
    )


async def play_all(url: str, stripe_base: str, seeds: Sequence[str], told: Told) -> list[Outcome]:
    """Plays until `told` returns False. `url`: a migrated database that nobody else uses."""
    found = []
    async with Bench.open(url, stripe_base) as bench:
        for seed in seeds:
            record = await play(bench, seed)
            found.append(outcome_of(record))
            if not told(record, found[-1]):
                break
    return found


def run(url: str, seeds: Sequence[str]) -> list[Outcome]:
    """Plays all seeds with a stand-in of their own, and reports progress and violations on standard error."""
    number = count(1)

    def told(record: Record, outcome: Outcome) -> bool:
        for verdict in outcome.verdicts:
            progress(f"{record.seed}: {verdict}")
        done = next(number)
        if done % _PROGRESS_EVERY == 0:
            progress(f"{done} of {len(seeds)} lives")
        return True

    with quiet_logs(), running_simulator() as stripe_base:
        return asyncio.run(play_all(url, stripe_base, seeds, told))


def catch(url: str, names: Sequence[str], *, seeds: Sequence[str]) -> list[tuple[str, str | None]]:
    """Plants one defect after another; the first violation that each led to, None if `seeds` did not show it."""
    found: list[tuple[str, str | None]] = []
    with quiet_logs(), running_simulator() as stripe_base:
        for name in names:
            with in_place(DEFECTS[name].changes()):
                outcomes = asyncio.run(play_all(url, stripe_base, seeds, partial(_unnoticed, name)))
            first = next((verdict for outcome in outcomes for verdict in _caught(name, outcome)), None)
            told = None if first is None else f"{first} (life {len(outcomes)})"
            progress(f"{name}: {told or 'NOT CAUGHT'}")
            found.append((name, told))
    return found


def _unnoticed(name: str, _: Record, outcome: Outcome) -> bool:
    return not _caught(name, outcome)


def _caught(name: str, outcome: Outcome) -> list[str]:
    """The violations that the defect was planted to lead to."""
    letters = DEFECTS[name].breaks
    return [verdict for verdict in outcome.verdicts if verdict[0] in letters]


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
