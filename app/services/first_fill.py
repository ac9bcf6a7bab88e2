"""The first fill of the cache: every object of every kind, page by page, resumable, safe beside live webhooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from app.cache import fills, mirror, refreshes
from app.errors import Conflict, NotFound
from app.services.context import Context

KINDS = ("product", "price", "customer", "subscription", "invoice")


@dataclass(frozen=True, slots=True)
class Progress:
    kind: str
    objects: int
    finished: bool


async def check_account(context: Context) -> None:
    """Stores the account at first sight. Raises Conflict when the key belongs to another one than the cache."""
    account = await context.stripe.account()
    async with context.database.connection() as connection:
        known = await fills.remember_account(connection, account.id, livemode=account.livemode)
    if known != (account.id, account.livemode):
        raise Conflict(
            "This database mirrors another Stripe account, or the other mode of it.", code="wrong_account"
        )


async def fill(context: Context, report: Callable[[Progress], None]) -> int:
    """Reads what is not read yet and returns the number of objects seen; a killed run goes on at its page."""
    await check_account(context)
    seen = 0
    for kind in KINDS:
        seen += await _fill_kind(context, kind, report)
    async with context.database.connection() as connection:
        await fills.note_filled(connection)
    return seen


async def _fill_kind(context: Context, kind: str, report: Callable[[Progress], None]) -> int:
    async with context.database.connection() as connection:
        cursor = await fills.cursor(connection, kind)
    seen = 0
    while not cursor.finished:
        try:
            page = await context.stripe.page(kind, starting_after=cursor.last_id)
        except NotFound:
            if cursor.last_id is None:
                raise
            # Deleted since the run that stopped there. What is in the cache already costs only the reading.
            async with context.database.connection() as connection:
                await fills.start_over(connection, kind)
                cursor = await fills.cursor(connection, kind)
            continue
        seen += len(page.snapshots) + len(page.cut_short)
        async with context.database.transaction() as connection:
            await mirror.apply_page(connection, page.snapshots, marker=page.at)
            for object_id in page.cut_short:
                await refreshes.note(connection, kind, object_id, hinted_at=page.at)
            cursor = await fills.advance(
                connection,
                kind,
                last_id=page.last_id,
                objects=len(page.snapshots) + len(page.cut_short),
                finished=not page.has_more,
            )
        report(Progress(kind, cursor.objects, cursor.finished))
    return seen
