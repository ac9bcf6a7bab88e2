"""No process of the tests is given a port that another one uses or will use."""

import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from testkit.ports import free_port

MANY = 40
_ASK = f"""
import os, sys
from testkit.ports import free_port
# Every process begins to look at the same place.
os.getpid = lambda: 1
print(*[free_port() for _ in range({MANY})], flush=True)
sys.stdin.read()
"""


def ask(stack: ExitStack) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", _ASK]
    return stack.enter_context(
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    )


def ports(process: "subprocess.Popen[str]") -> list[int]:
    assert process.stdout is not None
    return [int(port) for port in process.stdout.readline().split()]


def test_processes_that_ask_at_once_get_different_ports() -> None:
    """33733 was free when two processes looked for a port, and in use when the second wanted to listen."""
    with ExitStack() as stack:
        asking = [ask(stack) for _ in range(4)]
        found = [port for process in asking for port in ports(process)]
    assert len(found) == len(set(found)) == 4 * MANY


def test_threads_that_ask_at_once_get_different_ports() -> None:
    """Two processes of a test are started by two threads."""
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda _: free_port(), range(400)))
    assert len(found) == len(set(found))


def test_port_that_is_in_use_is_passed_over() -> None:
    with ExitStack() as stack:
        first, *_ = ports(ask(stack))
    with socket.create_server(("127.0.0.1", first)), ExitStack() as stack:
        assert first not in ports(ask(stack))
