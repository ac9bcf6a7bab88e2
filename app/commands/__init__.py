"""The command line: `coseat --help`."""

from app.commands.cli import main

__all__ = ["main"]
