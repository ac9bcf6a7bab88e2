"""The pages of the documentation, and what their commands print when they are run against a fresh local service.

A block of shell commands is followed by a block with the JSON that they print, or by none. Requests are sent by HTTPX,
so that a test needs no curl; a form of a command that no page has used before is an error.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import httpx

from testkit.databases import CHECKOUT

PAGES: tuple[Path, ...] = (
    *sorted(CHECKOUT.glob("*.md")),
    *sorted((CHECKOUT / "docs").rglob("*.md")),
    *sorted(
        page
        for page in CHECKOUT.glob("*/README.md")
        if page.parent.name.isidentifier() and page.parent.name != "docs"
    ),
)
DECISIONS = CHECKOUT / "docs" / "decisions"

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LOCAL_COMMANDS = frozenset({"make", ".venv/bin/python"})
"""Commands on the reader's machine, which are run by other tests."""

MORE = "…"
"""A member of this name stands for the members of an answer that a page does not show."""

SETTLE_SECONDS = 10.0
"""How long a page's reads are repeated until a webhook has brought what the page shows."""

_ASSIGNMENT = re.compile(r"^([A-Z_]+)=(.*)$", re.DOTALL)
_FUNCTION = re.compile(r"^(\w+)\(\) \{ (.*?); echo; \}$", re.DOTALL)
_ETAG = re.compile(r"^([A-Z_]+)=\$\((.*?) \| .*etag.*\)$", re.DOTALL)
_ID = re.compile(r"([a-z]{2,6})_[A-Za-z0-9]{14,}(?:\.\d+\.[A-Za-z0-9_-]{43})?")
"""An id, or the token of an invitation, which begins with one."""
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name_of(page: Path) -> str:
    """Return the page's path from the checkout."""
    return page.relative_to(CHECKOUT).as_posix()


def lines_of(block: str) -> Iterator[str]:
    """Yield the commands of a block: lines that a backslash or an open quote continues are one."""
    kept = ""
    for line in block.splitlines():
        kept = f"{kept}\n{line}" if kept else line
        if kept.endswith("\\"):
            kept = kept[:-1]
            continue
        try:
            shlex.split(kept, comments=True)
        except ValueError:
            continue
        if kept.strip():
            yield kept
        kept = ""
    assert not kept, f"a command does not end: {kept}"


@dataclass(frozen=True, slots=True)
class Printed:
    """What a command prints: JSON, or the status where only that is asked for. `read` sends a GET again."""

    command: str
    value: Any
    status: int
    request: httpx.Request
    prints_status: bool


@dataclass
class Reader:
    """A person who goes through a page: the variables of their shell, and the ids that their service gave out."""

    client: httpx.Client
    variables: dict[str, str]
    functions: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def go_through(self, page: Path) -> int:
        """Run the page's commands in their order and compare what is shown. Returns the number of requests.

        AssertionError for an answer that differs, and for a failure that the page does not show.
        """
        given = frozenset(self.variables)
        waiting: list[Printed] = []
        count = 0
        for kind, block in BLOCK.findall(text_of(page)):
            if kind == "sh":
                self._check_success(waiting)
                waiting = [found for line in lines_of(block) if (found := self._run(line, given)) is not None]
                count += len(waiting)
            elif kind == "json":
                shown = _values(block)
                assert len(shown) == len(waiting), (
                    f"{len(waiting)} commands print {len(shown)} values:\n{block}"
                )
                for expected, printed in zip(shown, waiting, strict=True):
                    self._compare(expected, printed)
                waiting = []
        self._check_success(waiting)
        return count

    def _check_success(self, waiting: Sequence[Printed]) -> None:
        for printed in waiting:
            assert printed.status < httpx.codes.BAD_REQUEST, f"{printed.command}\n{printed.value}"

    def _run(self, line: str, given: frozenset[str]) -> Printed | None:
        if function := _FUNCTION.match(line):
            self.functions[function[1]] = function[2]
            return None
        if etag := _ETAG.match(line):
            response = self.client.send(self._request(shlex.split(etag[2]))[0])
            self.variables[etag[1]] = response.headers["etag"]
            return None
        words = shlex.split(line, comments=True)
        if not words or words[0] in LOCAL_COMMANDS:
            return None
        if len(words) == 1 and (assignment := _ASSIGNMENT.match(words[0])):
            if assignment[1] not in given:
                self.variables[assignment[1]] = self._expanded(assignment[2])
            return None
        request, prints_status = self._request(words)
        return self._sent(line, request, prints_status=prints_status)

    def _sent(self, command: str, request: httpx.Request, *, prints_status: bool) -> Printed:
        response = self.client.send(request)
        value: Any = response.status_code
        if not prints_status:
            value = response.json() if response.content else None
        return Printed(command, value, response.status_code, request, prints_status)

    def _expanded(self, text: str) -> str:
        expanded = Template(text).substitute(self.variables)
        return _ID.sub(lambda found: self.ids.get(found[0], found[0]), expanded)

    def _request(self, words: Sequence[str]) -> tuple[httpx.Request, bool]:
        """Return what curl would send, and True if it prints the status alone."""
        if words[0] in self.functions:
            words = list(_called(self.functions[words[0]], words[1:]))
        assert words[0] == "curl", f"no page has used this command before: {words[0]}"
        method, url, body, status, credentials = None, "", list[str](), False, None
        headers: dict[str, str] = {}
        rest = iter([self._expanded(word) for word in words[1:]])
        for word in rest:
            match word:
                case "-s":
                    continue
                case "-X":
                    method = next(rest)
                case "-d":
                    body.append(next(rest))
                case "-H":
                    name, _, value = next(rest).partition(": ")
                    headers[name] = value
                case "-u":
                    credentials = httpx.BasicAuth(*next(rest).split(":", 1))
                case "-o" | "-D":
                    assert next(rest) in ("/dev/null", "-")
                case "-w":
                    status = next(rest).rstrip("\\n") == "%{http_code}"
                    assert status
                case _:
                    assert not word.startswith("-") and not url, (
                        f"no page has used this option before: {word}"
                    )
                    url = word
        if body:
            headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        sent = "&".join(body).encode() or None
        request = httpx.Request(method or ("POST" if body else "GET"), url, headers=headers, content=sent)
        return (next(credentials.auth_flow(request)) if credentials else request), status

    def _compare(self, shown: Any, printed: Printed) -> None:
        give_up = time.monotonic() + SETTLE_SECONDS
        while (problem := self._difference(shown, printed.value, "")) is not None:
            is_read = printed.request.method == "GET" and not printed.prints_status
            assert is_read and time.monotonic() < give_up, f"{printed.command}\n{problem}"
            time.sleep(0.2)
            printed = self._sent(printed.command, printed.request, prints_status=False)

    def _difference(self, shown: Any, real: Any, where: str) -> str | None:
        """Return what differs; ids and instants may, as long as one id stands for one id everywhere."""
        if isinstance(shown, dict) and isinstance(real, dict):
            named = set(shown) - {MORE}
            if not named <= set(real) or (MORE not in shown and named != set(real)):
                return f"{where}: members {sorted(named ^ set(real))}"
            parts = ((f"{where}/{name}", shown[name], real[name]) for name in named)
        elif isinstance(shown, list) and isinstance(real, list):
            if len(shown) != len(real):
                return f"{where}: {len(real)} entries instead of {len(shown)}"
            parts = ((f"{where}/{n}", a, b) for n, (a, b) in enumerate(zip(shown, real, strict=True)))
        elif isinstance(shown, str) and isinstance(real, str) and self._alike(shown, real):
            return None
        else:
            return (
                None
                if shown == real and type(shown) is type(real)
                else f"{where}: {real!r} instead of {shown!r}"
            )
        return next((found for path, a, b in parts if (found := self._difference(a, b, path))), None)

    def _alike(self, shown: str, real: str) -> bool:
        if _INSTANT.fullmatch(shown) and _INSTANT.fullmatch(real):
            return True
        ours, theirs = _ID.fullmatch(shown), _ID.fullmatch(real)
        if ours is None or theirs is None or ours[1] != theirs[1]:
            return shown == real
        return self.ids.setdefault(shown, real) == real


def _called(body: str, arguments: Sequence[str]) -> Iterator[str]:
    for word in shlex.split(body):
        if word == "${@:2}":
            yield from arguments[1:]
        else:
            yield word.replace("$1", arguments[0])


def _values(block: str) -> list[Any]:
    """Return the JSON values that a block shows, one after the other."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(block.rstrip()):
        value, at = decoder.raw_decode(block, at)
        found.append(value)
        at += len(block[at:]) - len(block[at:].lstrip())
    return found


def variables(api: str, stripe: str, tokens: Mapping[str, str]) -> dict[str, str]:
    """Return the shell variables that `make run` prints; `tokens` by person, in lower case."""
    return {"API": api, "STRIPE": stripe, **{name.upper(): token for name, token in tokens.items()}}
