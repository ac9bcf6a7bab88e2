"""The first fill, with its progress on standard error."""

from __future__ import annotations

import sys

from app.main import open_context
from app.services import first_fill
from app.services.first_fill import Progress
from app.settings import Settings


async def fill_cache(settings: Settings, *, quiet: bool) -> int:
    """Returns the number of objects that this run read."""

    def report(progress: Progress) -> None:
        if not quiet:
            end = "\n" if progress.finished else "\r"
            sys.stderr.write(f"{progress.kind:>14}: {progress.objects}{end}")
            sys.stderr.flush()

    async with open_context(settings) as context:
        return await first_fill.fill(context, report)
