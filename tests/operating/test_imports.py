"""What a command loads: an operator's command must not wait for, nor a worker hold, what only the API needs."""

import subprocess
import sys

import pytest

from testkit.databases import CHECKOUT

ONLY_FOR_THE_API = ("fastapi", "starlette", "uvicorn", "app.main")
TYPES_OF_VALUES = {"app.http", "app.http.schemas", "app.http.stripe_values"}
"""What of `app.http` a worker renders webhooks with: models, and nothing that answers a request."""


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
    loaded = set(told.stdout.split())
    assert loaded & set(ONLY_FOR_THE_API) == set()
    for_http = {name for name in loaded if name == "app.http" or name.startswith("app.http.")}
    assert for_http == (TYPES_OF_VALUES if module == "app.worker" else set())
