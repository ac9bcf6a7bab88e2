"""The append-only journal: one JSON line per transaction, replayed at start."""

from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import orjson


class Journal:
    """Each line is written with one system call, so a killed process loses at most a torn last line."""

    def __init__(self, directory: Path | None) -> None:
        self._file: FileIO | None = None
        self._path = directory / "journal.jsonl" if directory else None

    def replay(self) -> Iterator[dict[str, Any]]:
        """Every whole line since the beginning; a torn last line is cut off the file."""
        if self._path is None or not self._path.exists():
            return
        good = 0
        with self._path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    entry = orjson.loads(line)
                except orjson.JSONDecodeError:
                    break
                good += len(line)
                yield entry
        if good != self._path.stat().st_size:
            with self._path.open("r+b") as file:
                file.truncate(good)

    def open(self) -> None:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab", buffering=0)

    def append(self, entry: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
