"""Real processes for tests: started, waited for by what they print, and stopped with their output at hand."""

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import httpx

from app.commands.child_processes import ChildProcesses
from testkit.waiting import wait_until


class RunningProcess:
    def __init__(self, process: subprocess.Popen[str], lines: list[str]) -> None:
        self.process = process
        self.lines = lines

    def wait_for_line(self, pattern: str, *, within: float = 60.0) -> re.Match[str]:
        """The first match of `pattern` in the output. AssertionError with the output if there is none."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            found.extend(match for line in self.lines if (match := re.search(pattern, line)))
            return bool(found) or self.process.poll() is not None

        self._wait(look, within)
        assert found, self._story(f"ended before printing {pattern!r}")
        return found[0]

    def wait_for_answer(self, url: str, *, within: float = 60.0) -> None:
        """Return once a GET of `url` is answered 200. Raises AssertionError with the output otherwise."""

        def answered() -> bool:
            try:
                return httpx.get(url, timeout=2.0).status_code == httpx.codes.OK
            except httpx.TransportError:
                return self.process.poll() is not None

        self._wait(answered, within)
        assert self.process.poll() is None, self._story("ended")

    def _wait(self, condition: Callable[[], bool], within: float) -> None:
        try:
            wait_until(condition, within=within, every=0.05)
        except AssertionError:
            raise AssertionError(self._story(f"is not ready after {within} s")) from None

    def _story(self, what: str) -> str:
        output = "\n".join(self.lines[-50:])
        return f"process {self.process.args!r} {what}; it printed:\n{output}"


@contextmanager
def running(name: str, command: Sequence[str], environment: Mapping[str, str]) -> Iterator[RunningProcess]:
    """`command` with exactly `environment`, ended with the block or with this process."""
    lines: list[str] = []
    with ChildProcesses() as children:
        yield RunningProcess(
            children.spawn(name, command, environment=environment, on_line=lines.append), lines
        )
