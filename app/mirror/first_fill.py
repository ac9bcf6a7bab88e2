"""Fill an empty mirror from Stripe's lists. The fill can be resumed, and webhooks may arrive while it runs.

See docs/how-to/fill-and-reconcile.md.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from app.context import Context
from app.errors import BillingError, Conflict
from app.mirror import scans
from app.mirror.scans import Report, ScannedInterval
from app.mirror.store import fills, refreshes, unreadable
from app.mirror.store import rows as mirror
from app.mirror.store import scans as scan_rows
from app.mirror.store.scans import Range
from app.postgres import locks
from app.postgres.database import Connection
from app.stripe.gateway import Account
from app.stripe.pages import Page

ASK_SECONDS: Final = 5.0
"""Longest wait for the account where the work goes on without an answer."""


async def check_account(context: Context) -> Account:
    """Return the account of the API key, and store it if the mirror has none yet.

    Raises:
        Conflict: `wrong_account` if the mirror belongs to another account, or to the other mode of it.
        ServiceUnavailable: Stripe or the database does not answer.
        StripeRejected: Stripe refused the read.
    """
    account = await context.stripe.account()
    async with context.database.connection() as connection:
        known = await fills.remember_account(connection, account.id, livemode=account.livemode)
    if known != (account.id, account.livemode):
        raise _wrong_account(f"the account {account.id}", account.livemode, known)
    return account


async def is_own_account(context: Context) -> bool:
    """Return True if the API key is of the mirror's account, or False if Stripe does not say so within ASK_SECONDS.

    The mode is compared in either case. Nothing is stored: a mirror that has no account yet takes any key.

    Raises:
        Conflict: `wrong_account` if the mirror belongs to another account, or to the other mode of it.
        ServiceUnavailable: the database does not answer.
    """
    async with context.database.reading() as connection:
        known = await fills.stored_account(connection)
    if known is None:
        return True
    if known[1] != context.stripe.livemode:
        raise _wrong_account("an account", context.stripe.livemode, known)
    try:
        async with asyncio.timeout(ASK_SECONDS):
            account = await context.stripe.account()
    except (BillingError, TimeoutError):
        return False
    if account.id != known[0]:
        raise _wrong_account(f"the account {account.id}", account.livemode, known)
    return True


def _wrong_account(of: str, livemode: bool, known: tuple[str, bool]) -> Conflict:
    return Conflict(
        f"STRIPE_API_KEY is of {of} in {_mode(livemode)}, and this database is a copy of {known[0]} in "
        f"{_mode(known[1])}. Set STRIPE_API_KEY to a key of the latter, or DATABASE_URL to another database.",
        code="wrong_account",
    )


def _mode(livemode: bool) -> str:
    return f"{'live' if livemode else 'test'} mode"


@dataclass(frozen=True, slots=True)
class Filled:
    """The result of a first fill.

    `objects` is the number of objects that this run read. `unrepaired` is the number of those in all lists that cannot
    be read; `coseat doctor` names them.
    """

    objects: int = 0
    unrepaired: int = 0


async def fill(context: Context, report: Report) -> Filled:
    """Read every list to its end. Nothing is read if the mirror is filled.

    A run that was interrupted continues with the page that it had reached. `report` is called after each page.

    Raises:
        Conflict: `wrong_account`, or `already_running` if another process fills the mirror.
        ServiceUnavailable: Stripe or the database did not answer for some minutes.
        StripeRejected: Stripe refused a read.
    """
    account = await check_account(context)
    in_bulk = context.doing("bulk")
    async with locks.exclusive(context.database, "fill") as ours:
        if not ours:
            raise Conflict("Another process is filling this cache.", code="already_running")
        async with context.database.connection() as connection:
            if await fills.is_filled(connection):
                return Filled()
        scan = await scans.open_scan(in_bulk, "fill", account)
        _, seen = await scans.read(in_bulk, scan, account, _take_in, report)
        async with context.database.transaction() as connection:
            await fills.note_filled(connection)
            await scan_rows.finish(connection, scan, "finished")
            return Filled(seen, await unreadable.count(connection))


async def _take_in(connection: Connection, current: Range, page: Page, _: ScannedInterval) -> None:
    """Insert absent rows, and notify of rows that differ and of objects that are incomplete on the page.

    Objects that cannot be read are recorded.
    """
    await mirror.apply_page(connection, page.snapshots, marker=page.at)
    read_well = [snapshot.id for snapshot in page.snapshots]
    await unreadable.note_page(connection, current.kind, read_well=read_well, reasons=page.unreadable)
    for object_id in page.cut_short:
        await refreshes.note(connection, current.kind, object_id, notified_at=page.at)
