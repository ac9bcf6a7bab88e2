"""The commands `sync` and `reconcile`, which read whole lists.

They show their progress on standard error.
"""

from __future__ import annotations

import sys
import time

from app.commands.contexts import checked_context
from app.mirror import first_fill
from app.mirror import reconcile as reconciling
from app.mirror.first_fill import Filled
from app.mirror.reconcile import Reconciled
from app.mirror.scans import Progress
from app.settings import Settings

_EVERY_SECONDS = 1.0
_EVERY_SECONDS_IN_A_LOG = 10.0


class ProgressLine:
    """Shows progress on standard error.

    On a terminal one line is overwritten; otherwise a new line comes every 10 s.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._is_terminal = sys.stderr.isatty()
        self._started = time.monotonic()
        self._shown_at = 0.0

    def __call__(self, progress: Progress) -> None:
        """Show `progress`, unless a line was shown just before."""
        now = time.monotonic()
        every = _EVERY_SECONDS if self._is_terminal else _EVERY_SECONDS_IN_A_LOG
        if self._quiet or now - self._shown_at < every:
            return
        self._shown_at = now
        rate = progress.pages / max(0.001, now - self._started)
        left = progress.pages_left / max(0.001, rate)
        line = f"{progress.objects:,} objects, {rate:.1f} pages a second, about {_span(left)} left"
        sys.stderr.write(f"\r{line:<78}" if self._is_terminal else f"{line}\n")
        sys.stderr.flush()

    def end(self) -> None:
        """End the line on a terminal."""
        if self._is_terminal and self._shown_at:
            sys.stderr.write("\n")


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
    )


async def fill_cache(settings: Settings, *, quiet: bool) -> Filled:
    """Fill the cache. Raises BillingError."""
    line = ProgressLine(quiet=quiet)
    async with checked_context(settings) as context:
        try:
            return await first_fill.fill(context, line)
        finally:
            line.end()


async def reconcile_cache(
    settings: Settings, *, dry_run: bool, allow_removals: int | None, quiet: bool
) -> Reconciled:
    """Reconcile the cache with Stripe, or only compare with `dry_run`.

    Raises BillingError.
    """
    line = ProgressLine(quiet=quiet)
    async with checked_context(settings) as context:
        try:
            return await reconciling.reconcile(
                context, dry_run=dry_run, allow_removals=allow_removals, report=line
            )
        finally:
            line.end()
