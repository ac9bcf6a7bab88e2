"""`make run` and the portal: built once, and no hindrance. Programs that it calls are replaced by scripts."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from testkit.databases import CHECKOUT

FILES = (
    "requirements.txt",
    "pyproject.toml",
    "requirements-node.txt",
    "package.json",
    "package-lock.json",
    ".npmrc",
    "openapi/openapi.json",
    "clients/typescript/package.json",
    "clients/typescript/generate.mjs",
    "clients/typescript/src/index.ts",
    "portal/package.json",
    "portal/index.html",
    "portal/vite.config.ts",
    "portal/src/main.tsx",
    "portal/scripts/size.mjs",
)
NPM = """echo "$@" >> npm.log
case "$*" in
  *@coseat/portal*) test ! -e broken && mkdir -p portal/dist && touch portal/dist/index.html ;;
  *@coseat/client*) mkdir -p clients/typescript/dist && touch clients/typescript/dist/index.js ;;
  *) mkdir -p node_modules ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copy(CHECKOUT / "Makefile", tmp_path)
    for name in (*FILES, ".venv/.ready"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for program, script in (
        (".venv/bin/uv", "exit 0"),
        (".venv/bin/python", "exit 0"),
        (".venv/bin/coseat", 'echo "coseat $*"'),
        (".venv-node/bin/npm", NPM),
    ):
        path = tmp_path / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return tmp_path


def run(checkout: Path) -> tuple[str, str]:
    """Standard output and standard error of `make run`, which has to succeed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "run"], cwd=checkout, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout, done.stderr


def npm_calls(checkout: Path) -> list[str]:
    log = checkout / "npm.log"
    return log.read_text().splitlines() if log.exists() else []


def test_portal_is_built_once_when_the_service_starts_twice(checkout: Path) -> None:
    out, err = run(checkout)
    assert (
        out.splitlines() == ["Building the portal. Later starts find it built.", "coseat dev"] and err == ""
    )
    assert any("@coseat/portal" in call for call in npm_calls(checkout))
    (checkout / "npm.log").unlink()
    assert run(checkout) == ("coseat dev\n", "")
    assert npm_calls(checkout) == []


def test_portal_is_built_again_when_a_source_has_changed(checkout: Path) -> None:
    run(checkout)
    (checkout / "npm.log").unlink()
    built = (checkout / "portal" / "dist" / "index.html").stat().st_mtime
    os.utime(checkout / "portal" / "src" / "main.tsx", (built + 5, built + 5))
    run(checkout)
    assert [call for call in npm_calls(checkout) if "@coseat/portal" in call]


def test_service_starts_with_one_warning_when_the_portal_cannot_be_built(checkout: Path) -> None:
    (checkout / "portal" / "dist").mkdir()
    (checkout / "portal" / "dist" / "old.js").touch()
    (checkout / "broken").touch()
    out, err = run(checkout)
    assert out.splitlines()[-1] == "coseat dev"
    assert err.count("\n") == 1 and err.startswith("Warning: starting without the portal")
    assert not (checkout / "portal" / "dist").exists()
    (checkout / "broken").unlink()
    assert run(checkout)[1] == "" and (checkout / "portal" / "dist" / "index.html").exists()
