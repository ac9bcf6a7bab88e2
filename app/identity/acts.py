"""Record in the background that a login's person has acted, and the address that its token verifies.

A read never waits for a write. What cannot be recorded now is recorded at the login's next request.
"""

from __future__ import annotations

import asyncio

import structlog

from app.context import Context
from app.errors import BillingError
from app.identity import store as identities
from app.identity.principals import EndUser
from app.postgres.database import StatementRefused

log = structlog.get_logger(__name__)

_running: dict[str, asyncio.Task[None]] = {}
"""One task for each login, by its stable name."""


def note(context: Context, user: EndUser) -> None:
    """Begin to record an act of this login, unless that is under way."""
    if user.key in _running:
        return
    task = asyncio.create_task(_record(context, user))
    _running[user.key] = task
    task.add_done_callback(lambda _: _running.pop(user.key, None))


async def record(context: Context, user: EndUser) -> None:
    """Record that the login acts. If its token verifies another address than before, its seats are looked for."""
    async with context.database.transaction() as connection:
        if user.verified_email is not None:
            await identities.keep_email(connection, user.issuer, user.subject, user.verified_email)
        await identities.record_act(connection, user.issuer, user.subject)


async def _record(context: Context, user: EndUser) -> None:
    try:
        await record(context, user)
    except (BillingError, StatementRefused) as error:
        log.info("act_not_recorded", error=type(error).__name__)


async def drain() -> None:
    """Wait for what is being recorded; at shutdown."""
    await asyncio.gather(*_running.values(), return_exceptions=True)
