"""Hold the committed OpenAPI document to the rules of Redocly and Spectral: `make lint-api`.

No rule is off, and a warning fails as an error does. Redocly has no option for that, so its report is read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
DOCUMENT = "openapi/openapi.json"
PROGRAMS = CHECKOUT / "node_modules" / ".bin"
# Neither may talk to another host.
QUIET = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}


def _run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROGRAMS / name), *arguments],
        cwd=CHECKOUT,
        env={**os.environ, **QUIET},
        capture_output=True,
        text=True,
        check=False,
    )


def redocly(document: str = DOCUMENT) -> list[str]:
    """Return what Redocly's rule set `recommended` finds."""
    run = _run("redocly", "lint", "--extends=recommended", "--max-problems=1000", "--format=json", document)
    report: dict[str, Any] = json.loads(run.stdout)
    found = [
        f"{problem['severity']} {problem['ruleId']}: {problem['message']} {_place(problem)}"
        for problem in report["problems"]
    ]
    assert bool(found) or run.returncode == 0, run.stderr
    return found


def _place(problem: dict[str, Any]) -> str:
    return " ".join(str(place.get("pointer", "")) for place in problem["location"])


def spectral(document: str = DOCUMENT) -> list[str]:
    """Return what Spectral's rule set `spectral:oas` finds."""
    arguments = ("lint", "--fail-severity=hint", "--ruleset=.spectral.json", "--format=json", "--quiet")
    run = _run("spectral", *arguments, document)
    assert run.stdout, run.stderr
    return [
        f"{one['code']}: {one['message']} {'/'.join(map(str, one['path']))}" for one in json.loads(run.stdout)
    ]


def main() -> int:
    """Print what both find, and return 1 if they find anything."""
    total = 0
    for name, check in (("Redocly recommended", redocly), ("Spectral spectral:oas", spectral)):
        found = check()
        total += len(found)
        print("\n".join([*found, f"{name}: {len(found)} errors and warnings."]))
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
