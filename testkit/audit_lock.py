"""`python -m testkit.audit_lock DIRECTORY`: requirements.txt in the form that `uv audit` reads.

uv's own lock names the index that it was resolved from and is not part of the repository. The audit needs names and
versions alone. But uv also asks the index about each package, so the index that is written here refuses at once: a
name that does not exist would take 12 seconds to look up.
"""

import re
import sys
from pathlib import Path

from testkit.databases import CHECKOUT

_PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^ ;\\]+)", re.MULTILINE)
_NOBODY = "http://127.0.0.1:9"
_PACKAGE = """
[[package]]
name = "{name}"
version = "{version}"
source = {{ registry = "{nobody}/simple" }}
sdist = {{ url = "{nobody}/{name}.tar.gz", hash = "sha256:{hash}" }}
"""


def written(directory: Path) -> int:
    """The number of packages that the lock in `directory` names."""
    packages = dict(_PINNED.findall((CHECKOUT / "requirements.txt").read_text()))
    named = ", ".join(f'{{ name = "{name}" }}' for name in packages)
    lock = 'version = 1\nrequires-python = ">=3.11"\n\n[[package]]\nname = "pinned"\nversion = "0"\n'
    lock += f'source = {{ virtual = "." }}\ndependencies = [{named}]\n'
    for name, version in packages.items():
        lock += _PACKAGE.format(name=name, version=version, nobody=_NOBODY, hash="0" * 64)
    dependencies = ", ".join(f'"{name}"' for name in packages)
    project = '[project]\nname = "pinned"\nversion = "0"\nrequires-python = ">=3.11"\n'
    project += f"dependencies = [{dependencies}]\n"
    (directory / "uv.lock").write_text(lock)
    (directory / "pyproject.toml").write_text(project)
    return len(packages)


if __name__ == "__main__":
    sys.exit(0 if written(Path(sys.argv[1])) else 2)
