"""A test that hangs fails the run, and the run ends."""

import os
import subprocess
import sys
from pathlib import Path

from testkit.databases import CHECKOUT

HANGS = """
import asyncio
import pytest

@pytest.fixture(scope="module")
async def something():
    yield

async def test_that_takes_no_notice(something):
    while True:
        try:
            await asyncio.sleep(1000)
        except BaseException:
            pass

async def test_after_it(something):
    pass
"""


def test_run_ends_when_a_test_takes_no_notice_of_its_timeout(tmp_path: Path) -> None:
    """With a timeout that raises an exception, such a test held up the whole run without end."""
    (tmp_path / "test_hangs.py").write_text(HANGS)
    options = ["-n", "1", "--dist=loadfile", "--timeout", "1", "-p", "no:cacheprovider"]
    configuration = ["-c", str(CHECKOUT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *configuration, *options, str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0, done.stdout
    assert "test_that_takes_no_notice" in done.stdout + done.stderr
