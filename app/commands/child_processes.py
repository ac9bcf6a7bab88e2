"""Child processes that end with their parent, even when the parent is killed outright.

The parent keeps the write end of a pipe and never writes; the kernel closes it with the parent, and every
child that watches the read end then stops itself.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

PARENT_PIPE_VARIABLE = "COSEAT_PARENT_PIPE"
STOP_SECONDS = 10.0


def watch_parent(fd: int | None, *, grace: float = STOP_SECONDS) -> None:
    """Terminate this process when the process holding the other end of `fd` is gone.

    SIGTERM first; SIGKILL after `grace` seconds. `None`, for a process started by hand, watches nothing.
    """
    if fd is None:
        return
    # A child of this process shall depend on this process, not on its grandparent.
    os.set_inheritable(fd, False)

    def wait() -> None:
        while os.read(fd, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="watch-parent", daemon=True).start()


class ChildProcesses:
    """A group of processes started and stopped together. Not for use from several threads."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        self._children: dict[str, subprocess.Popen[str]] = {}
        self._readers: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def spawn(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        on_line: Callable[[str], None] | None = None,
    ) -> subprocess.Popen[str]:
        """Start `command` with `environment`, its whole environment, and the parent pipe added to it.

        The child writes to this process's streams, or hands each line of them to `on_line`, in a thread.
        The child has its own process group: an interrupt at the terminal reaches the parent, which stops it.
        """
        captured = subprocess.PIPE if on_line is not None else None
        child = subprocess.Popen(
            command,
            env={**environment, PARENT_PIPE_VARIABLE: str(self._read_end)},
            pass_fds=(self._read_end,),
            stdin=subprocess.DEVNULL,
            stdout=captured,
            stderr=subprocess.STDOUT if on_line is not None else None,
            text=True,
            errors="replace",
            process_group=0,
        )
        self._children[name] = child
        if on_line is not None:
            reader = threading.Thread(
                target=_hand_over, args=(child, on_line), name=f"read-{name}", daemon=True
            )
            reader.start()
            self._readers.append(reader)
        return child

    def exited(self) -> dict[str, int]:
        """The exit codes of the children that have ended, by name; negative for a signal."""
        codes = {name: child.poll() for name, child in self._children.items()}
        return {name: code for name, code in codes.items() if code is not None}

    def stop(self, within: float = STOP_SECONDS) -> None:
        """Terminate every child, the last started first; kill those that outlast `within` seconds."""
        for child in reversed(self._children.values()):
            child.terminate()
        deadline = time.monotonic() + within
        for child in self._children.values():
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for reader in self._readers:
            reader.join(timeout=1.0)
        self._children.clear()
        self._readers.clear()
        for end in (self._read_end, self._write_end):
            if end >= 0:
                os.close(end)
        self._read_end = self._write_end = -1


def _hand_over(child: subprocess.Popen[str], on_line: Callable[[str], None]) -> None:
    if child.stdout is not None:
        with child.stdout as lines:
            for line in lines:
                on_line(line.rstrip("\n"))
