"""Who may import whom, and who may read the environment. The rules are in pyproject.toml."""

import ast
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from testkit.databases import CHECKOUT

READERS_OF_THE_ENVIRONMENT = {"app/settings.py"}


def test_import_contracts_hold(capsys: pytest.CaptureFixture[str]) -> None:
    status = lint_imports(config_filename=str(CHECKOUT / "pyproject.toml"), no_cache=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


def reads_environment(path: Path) -> bool:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Attribute(value=ast.Name(id="os"), attr="environ" | "environb" | "getenv" | "getenvb"):
                return True
            case ast.ImportFrom(module="os", names=names):
                if {name.name for name in names} & {"environ", "environb", "getenv", "getenvb"}:
                    return True
    return False


def test_only_settings_read_the_environment() -> None:
    sources = (CHECKOUT / "app").rglob("*.py")
    readers = {path.relative_to(CHECKOUT).as_posix() for path in sources if reads_environment(path)}
    assert readers <= READERS_OF_THE_ENVIRONMENT
