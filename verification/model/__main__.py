"""`python -m verification.model`: explore every case, print the counts, and the shortest way to each violation.

`--write-docs` writes the diagram and the tables of docs/explanation/write-protocol.md again instead.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from typing import Any

from verification.model.diagram import write_page
from verification.model.explore import Explored, explore
from verification.model.service import CASES, FOUND_WRONG


def _result(name: str, explored: Explored) -> dict[str, Any]:
    for invariant, way in explored.violations.items():
        print(f"{name}: {invariant}\n  " + "\n  ".join(way), file=sys.stderr)
    return {
        "states": explored.states,
        "transitions": explored.transitions,
        "violations": sorted(explored.violations),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="verification.model")
    parser.add_argument(
        "--write-docs", action="store_true", help="write the generated part of the page again"
    )
    if parser.parse_args().write_docs:
        write_page()
        return 0
    started = time.monotonic()
    results = {
        name: [
            _result(name, explore(replace(case, by_payment=by_payment)))
            for by_payment in ((False, True) if case.keeps_answers else (False,))
        ]
        for name, case in CASES.items()
    }
    is_met = all(
        bool(one["violations"]) is (name in FOUND_WRONG) for name in results for one in results[name]
    )
    seconds = round(time.monotonic() - started, 1)
    print(json.dumps({"check": "model", "met": is_met, "cases": results, "seconds": seconds}))
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
