"""The command line `coseat`."""

from app.commands.cli import main

__all__ = ["main"]
