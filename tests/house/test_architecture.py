"""Who may import whom, and who may read the environment. The rules are in pyproject.toml."""

import ast
import subprocess
import sys
from pathlib import Path

from testkit.databases import CHECKOUT

READERS_OF_THE_ENVIRONMENT = {"app/settings.py"}


def test_import_contracts_hold() -> None:
    # A process of its own: the command disables the loggers of the process that it runs in.
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    checked = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


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
