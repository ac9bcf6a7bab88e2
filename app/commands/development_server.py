"""Run the API of `coseat dev`, with the application around it. `coseat dev` starts this module as a process."""

from __future__ import annotations

import sys
from pathlib import Path

from app.commands.preparing import printed_failures, settings_for
from app.commands.running import serve_api


def main() -> None:
    """Run until interrupted. The arguments are the directory of the state, and that of the built portal."""
    from app.operating.dev.application import develop

    directory, portal = map(Path, sys.argv[1:])
    settings = settings_for("serve")
    with printed_failures(as_json=False):
        serve_api(
            settings, around=lambda service: develop(service, settings, directory=directory, portal=portal)
        )


if __name__ == "__main__":
    main()
