"""Run the command line: `python -m app` is the same as `coseat`."""

from app.commands import main

main()
