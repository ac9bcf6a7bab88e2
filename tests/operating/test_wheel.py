"""The wheel: what is installed from it needs no checkout."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import asyncpg
import pytest

from app.postgres.schema import HEAD
from testkit.databases import CHECKOUT


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A virtual environment with the wheel. It takes the dependencies from this one, and the checkout's `app` not."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=CHECKOUT)
    [wheel] = tmp_path.glob("coseat-*.whl")
    folder = tmp_path / "installed"
    venv.create(folder, with_pip=False, symlinks=True)
    uv = Path(sys.executable).with_name("uv")
    run(uv, "pip", "install", "--python", folder, "--offline", "--no-deps", wheel, cwd=tmp_path)
    [packages] = folder.glob("lib/python*/site-packages")
    # Python does not read the .pth files of a folder that a .pth file names, so the checkout is not found.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


async def test_installed_wheel_migrates_when_there_is_no_checkout(
    installed: Path, empty_database_url: str, tmp_path: Path
) -> None:
    """O13: the wheel had no migrations, and `coseat migrate` looked for alembic.ini beside site-packages."""
    python, coseat = installed / "bin" / "python", installed / "bin" / "coseat"
    found = run(python, "-c", "import app; print(app.__file__)", cwd=tmp_path)
    assert Path(found.strip()).is_relative_to(installed)
    for _ in range(2):
        report = json.loads(run(coseat, "migrate", "--json", cwd=tmp_path, DATABASE_URL=empty_database_url))
        assert report["revision"] == HEAD
    connection = await asyncpg.connect(empty_database_url)
    try:
        assert await connection.fetchval("select version_num from alembic_version") == HEAD
        assert (
            await connection.fetchval("select count(*) from pg_proc where proname = 'subscription_state'")
            == 1
        )
    finally:
        await connection.close()
