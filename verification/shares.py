"""Deal out what a program has to do among processes, each with a database of its own."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def each(
    urls: Sequence[str], work: Callable[[str, Sequence[str]], list[Result]], what: Sequence[str]
) -> list[Result]:
    """Return the results of all parts of `what`. With one database, the work is done in this process."""
    if len(urls) == 1:
        return work(urls[0], what)
    shares = [what[number :: len(urls)] for number in range(len(urls))]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(urls), mp_context=context) as pool:
        return [one for part in pool.map(work, urls, shares) for one in part]


def end(number: int, _: object) -> None:
    """End the processes of `each` with this one, as a signal's handler, so that their databases are dropped."""
    for process in multiprocessing.active_children():
        process.terminate()
    sys.exit(128 + number)
