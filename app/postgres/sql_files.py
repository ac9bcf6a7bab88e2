"""Read the SQL files with the functions and triggers of the schema, for migrations."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "postgres" / "sql"

# A statement ends with a semicolon at the end of a line, outside of a function's body.
_STATEMENT = re.compile(r"(?:\$\$.*?\$\$|.)+?;[ \t]*(?:\n|\Z)", re.DOTALL)


def read_statements(name: str) -> list[str]:
    """Return the statements of `<name>.sql`, each without its semicolon, because the driver prepares one at a time.

    Raises:
        FileNotFoundError: there is no such file.
    """
    return [
        statement.strip().removesuffix(";")
        for statement in _STATEMENT.findall((FOLDER / f"{name}.sql").read_text(encoding="utf-8"))
    ]
