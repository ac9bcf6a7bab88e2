"""The first fill of the cache: every object of every kind, in parallel ranges, resumable, safe beside live webhooks."""

from __future__ import annotations

from app.context import Context
from app.errors import Conflict
from app.mirror import scans
from app.mirror.scans import Report, ScannedInterval
from app.mirror.store import fills, refreshes
from app.mirror.store import rows as mirror
from app.mirror.store import scans as scan_rows
from app.mirror.store.scans import Range
from app.postgres import locks
from app.postgres.database import Connection
from app.stripe.gateway import Account, Page


async def check_account(context: Context) -> Account:
    """Stores the account at first sight. Raises Conflict when the key belongs to another one than the cache."""
    account = await context.stripe.account()
    async with context.database.connection() as connection:
        known = await fills.remember_account(connection, account.id, livemode=account.livemode)
    if known != (account.id, account.livemode):
        raise Conflict(
            "This database mirrors another Stripe account, or the other mode of it.", code="wrong_account"
        )
    return account


async def fill(context: Context, report: Report) -> int:
    """Reads what is not read yet and returns the number of objects seen; a killed run goes on at its pages.

    Raises Conflict `already_running` while another process fills, and `wrong_account`.
    """
    account = await check_account(context)
    in_bulk = context.doing("bulk")
    async with locks.exclusive(context.database, "fill") as ours:
        if not ours:
            raise Conflict("Another process is filling this cache.", code="already_running")
        async with context.database.connection() as connection:
            if await fills.is_filled(connection):
                return 0
        scan = await scans.open_scan(in_bulk, "fill", account)
        _, seen = await scans.read(in_bulk, scan, account, _take_in, report)
        async with context.database.transaction() as connection:
            await fills.note_filled(connection)
            await scan_rows.finish(connection, scan, "finished")
    return seen


async def _take_in(connection: Connection, current: Range, page: Page, _: ScannedInterval) -> None:
    """Absent rows are inserted, differing ones noted; what came incomplete is fetched by the worker."""
    await mirror.apply_page(connection, page.snapshots, marker=page.at)
    for object_id in page.cut_short:
        await refreshes.note(connection, current.kind, object_id, notified_at=page.at)
