"""What a command loads: an operator's command must not wait for, nor a worker hold, what only the API needs."""

import subprocess
import sys

import pytest

from testkit.databases import CHECKOUT

ONLY_FOR_THE_API = ("fastapi", "starlette", "uvicorn", "app.http", "app.main")


@pytest.mark.parametrize(
    "module",
    [
        "app.commands.cli",
        "app.commands.filling",
        "app.commands.reports",
        "app.commands.running",
        "app.worker",
    ],
)
def test_a_command_loads_no_web_framework(module: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(told.stdout.split()) & set(ONLY_FOR_THE_API) == set()
