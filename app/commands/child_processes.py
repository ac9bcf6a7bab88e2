"""Child processes that end with their parent, even if that is killed.

The parent keeps the write end of a pipe and never writes to it. When the parent ends, the kernel closes the pipe, and
each child that reads from it stops itself.
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
    """Terminate this process when the other end of the pipe `fd` is closed.

    That happens when the parent ends. It sends SIGTERM, and SIGKILL after `grace` seconds. With None (the process was
    not started by a parent) nothing is watched.
    """
    if fd is None:
        return
    # A child of this process must depend on this process, not on its grandparent.
    os.set_inheritable(fd, False)

    def wait() -> None:
        while os.read(fd, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="watch-parent", daemon=True).start()


class ChildProcesses:
    """A group of processes that are started and stopped together.

    It must not be used from several threads.
    """

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
        """Start `command` with exactly the variables of `environment`.

        The variable that names the parent pipe is added. The child writes to this process's streams. With `on_line`, a
        thread passes each line to it instead. The child has a process group of its own, so Ctrl-C at the terminal
        reaches only the parent, which then stops the child.
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

    def child(self, name: str) -> subprocess.Popen[str]:
        """Return the child that was started last under this name."""
        return self._children[name]

    def exited(self) -> dict[str, int]:
        """Return the exit codes of the children that have ended, by name.

        A negative code is a signal.
        """
        codes = {name: child.poll() for name, child in self._children.items()}
        return {name: code for name, code in codes.items() if code is not None}

    def stop(self, within: float = STOP_SECONDS) -> None:
        """Terminate all children, the last started first.

        Those that still run after `within` seconds are killed.
        """
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
