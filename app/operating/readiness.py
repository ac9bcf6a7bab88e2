"""Check whether this process can do its work: answer reads from the cache, and accept deliveries.

There is an answer for each part that it depends on. Stripe's part never makes a process unready, because reads and
deliveries need no call to Stripe.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Final, Literal, NamedTuple

from app.context import Context
from app.errors import BillingError
from app.http.draining import Draining
from app.mirror.first_fill import check_account
from app.postgres import schema

QUIET_SECONDS: Final = 30.0
"""A process that has had no answer from Stripe for so long asks for the account once."""
_FIRST_ANSWER_SECONDS: Final = 2.0
"""Longest wait of the first probe of a process, so that it learns of a key of another account."""
_ASK_SECONDS: Final = 5.0

State = Literal["ok", "degraded", "failed"]


class Check(NamedTuple):
    """The state of one part, and a code that says why it is not `ok`."""

    state: State
    reason: str | None = None


OK: Final = Check("ok")
_UNKNOWN: Final = Check("degraded", "not_known")
_DRAINING: Final = Check("failed", "draining")


class Readiness:
    """The checks of one process, with what it last learned from Stripe."""

    def __init__(self, draining: Draining) -> None:
        self._draining = draining
        self._account = _UNKNOWN
        self._asked_at = -math.inf
        self._went_unanswered_at = -math.inf
        self._asking: asyncio.Task[None] | None = None

    @property
    def is_draining(self) -> bool:
        """Return True if the process is about to end."""
        return self._draining.began

    async def check(self, context: Context) -> dict[str, Check]:
        """Return the state of each part."""
        if self.is_draining:
            # A process that ends asks nobody: its balancer has to learn of it at once.
            return {
                **dict.fromkeys(("database", "schema", "account", "stripe"), _UNKNOWN),
                "drain": _DRAINING,
            }
        database, fits = await _database(context)
        if database == OK:
            await self._ask_if_quiet(context)
        account, stripe = self._account, self._stripe(context)
        return {"database": database, "schema": fits, "account": account, "stripe": stripe, "drain": OK}

    def _stripe(self, context: Context) -> Check:
        """Return the state of the breakers, or of the last question of a quiet process."""
        silent = context.breakers.quiet_seconds > time.monotonic() - self._went_unanswered_at
        if context.breakers.worst.is_open or silent:
            return Check("degraded", "stripe_unavailable")
        return OK

    async def _ask_if_quiet(self, context: Context) -> None:
        """Ask for the account in the background, if nothing else has asked Stripe for some time."""
        is_first = self._asked_at == -math.inf
        is_quiet = min(context.breakers.quiet_seconds, time.monotonic() - self._asked_at) > QUIET_SECONDS
        is_due = self._account != OK and time.monotonic() - self._asked_at > QUIET_SECONDS
        if self._asking is None and (is_quiet or is_due) and not context.breakers.worst.is_open:
            self._asked_at = time.monotonic()
            self._asking = asyncio.create_task(self._ask(context))
            context.breakers["fresh"].keep(self._asking)
        if is_first and self._asking is not None:
            await asyncio.wait({self._asking}, timeout=_FIRST_ANSWER_SECONDS)

    async def _ask(self, context: Context) -> None:
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                await check_account(context)
            self._account = OK
        except TimeoutError:
            self._went_unanswered_at = time.monotonic()
        except BillingError as error:
            if error.code == "wrong_account":
                self._account = Check("failed", error.code)
            elif error.code == "stripe_unavailable":
                self._went_unanswered_at = time.monotonic()
            elif self._account != OK:
                self._account = Check("degraded", error.code)
        finally:
            self._asking = None


async def _database(context: Context) -> tuple[Check, Check]:
    """Return the state of the database and of its schema.

    A database that takes no writes still answers reads, and Stripe delivers a refused event again.
    """
    state = await context.database.state()
    if state == "database_unavailable":
        return Check("failed", state), _UNKNOWN
    database = OK if state == "ok" else Check("degraded", state)
    try:
        async with context.database.reading() as connection:
            found = await schema.read_schema_state(connection)
    except BillingError as error:
        return Check("failed", error.code), _UNKNOWN
    return database, OK if found.refusal() is None else Check("failed", "schema_refused")
