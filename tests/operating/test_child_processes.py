"""Children end with their parent, however the parent ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.commands.child_processes import PARENT_PIPE_VARIABLE, ChildProcesses, watch_parent
from testkit.waiting import wait_until

CHILD = f"""
import os, time
from app.commands.child_processes import watch_parent
watch_parent(int(os.environ["{PARENT_PIPE_VARIABLE}"]), grace=0.2)
print("ready", os.getpid(), flush=True)
time.sleep(600)
"""
STUBBORN_CHILD = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + CHILD
PARENT = """
import os, sys, time
from app.commands.child_processes import ChildProcesses
children = ChildProcesses()
children.spawn("child", [sys.executable, "-c", sys.argv[1]], environment=dict(os.environ))
time.sleep(600)
"""


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("child", [CHILD, STUBBORN_CHILD], ids=["obedient", "deaf to SIGTERM"])
def test_children_end_with_a_killed_parent(child: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, child], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        word, _, pid = parent.stdout.readline().partition(" ")
        assert word == "ready"
        os.kill(parent.pid, signal.SIGKILL)
    wait_until(lambda: is_gone(int(pid)))


def test_stop_is_graceful_first_and_hands_over_every_line() -> None:
    lines: list[str] = []
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('stopping'), sys.exit(3)))\n"
        "print('ready', flush=True)\ntime.sleep(600)\n"
    )
    with ChildProcesses() as children:
        child = children.spawn(
            "child", [sys.executable, "-c", script], environment=dict(os.environ), on_line=lines.append
        )
        wait_until(lambda: lines == ["ready"])
        assert children.exited() == {}
    assert child.returncode == 3
    assert lines == ["ready", "stopping"]


def test_stop_kills_a_child_that_does_not_obey() -> None:
    lines: list[str] = []
    children = ChildProcesses()
    child = children.spawn(
        "deaf", [sys.executable, "-c", STUBBORN_CHILD], environment=dict(os.environ), on_line=lines.append
    )
    wait_until(lambda: bool(lines))
    began = time.monotonic()
    children.stop(within=0.2)
    assert time.monotonic() - began < 5
    assert child.returncode == -signal.SIGKILL


def test_exited_names_the_child_and_its_code() -> None:
    with ChildProcesses() as children:
        children.spawn("failing", [sys.executable, "-c", "raise SystemExit(7)"], environment=dict(os.environ))
        wait_until(lambda: children.exited() == {"failing": 7})


def test_a_process_started_by_hand_watches_nobody() -> None:
    watch_parent(None)
