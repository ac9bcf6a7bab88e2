"""The long proofs of races and kills in small, as the commands that they are; in full: see `verification/README.md`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# `races.last_seat` is not among them: it has a bar in seconds, and test_last_seat.py has its rule.
PROOFS = {
    "races.bulk": ["--runs", "2"],
    "races.repeats": ["--rounds", "2"],
    "races.by_email": ["--rounds", "1"],
    "kills.crash_points": ["--times", "1", "--only", "quantity write"],
}
SECONDS = 240


@pytest.mark.parametrize("proof", PROOFS)
def test_proof_is_met_when_it_is_run_in_small(proof: str) -> None:
    command = [sys.executable, "-m", f"verification.{proof}", *PROOFS[proof]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.stdout, done.stderr[-2_000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.get("misses", []) == []
    assert found["met"] is True
    assert done.returncode == 0
