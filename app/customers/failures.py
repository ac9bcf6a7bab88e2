"""Count declined cards and unknown promotion codes, and block after too many.

After 5 failures in 10 minutes, attempts are answered 429 for a while. A caller who tries stolen cards or guesses codes
fails far more often than one who pays. After the last failure every attempt gets one and the same answer, so nothing
more is learned; successes never count.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from app.context import Context
from app.customers.store import failures
from app.domain.ids import CustomerId
from app.domain.payments import PaymentStep
from app.errors import (
    BillingError,
    FieldError,
    InvalidRequest,
    PaymentRequired,
    RateLimited,
    ServiceUnavailable,
)
from app.identity.actors import Actor
from app.postgres.database import Connection

_FREE_SLOT_SECONDS = 10.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 1.0
_PROMOTION_CODE = "/promotion_code"
TOO_MANY_DECLINES: Final = "too_many_declines"


@dataclass(slots=True)
class Attempt:
    """The outcome of one attempt.

    `failed` is True if a card was declined or a code is unknown.
    """

    failed: bool = False

    def saw(self, payment: PaymentStep | None) -> None:
        """Count a change that stands, or is held back, with a declined payment."""
        if payment is not None and payment.is_declined:
            self.failed = True


def login_of(actor: Actor) -> str | None:
    """Return the name that failures are counted by: the customer, else the login.

    None for a key that acts for nobody, whose failures are not counted.
    """
    if actor.is_service:
        return None
    return actor.principal.key if actor.customer_id is None else _name_of(actor.customer_id)


def _name_of(customer_id: CustomerId) -> str:
    return f"customer:{customer_id}"


@asynccontextmanager
async def counted(context: Context, actor: Actor) -> AsyncIterator[Attempt]:
    """Run an attempt that may show whether a card or a code is good.

    Raises:
        RateLimited: `too_many_declines`: the login has failed too often, and nothing was attempted.
    """
    login, attempt = login_of(actor), Attempt()
    if login is None:
        yield attempt
        return
    slot = await _slot(context, login)
    async with _ended(context, login, slot, attempt):
        yield attempt


@asynccontextmanager
async def counted_later(context: Context, customer_id: CustomerId | None) -> AsyncIterator[Attempt]:
    """Run what `counted` would run, in an operation of this customer; None: a key that acts for nobody.

    Raises:
        RateLimited: `too_many_declines`: the customer has failed too often, and nothing was attempted.
        ServiceUnavailable: Other attempts of the customer are still running, so this one comes later.
    """
    attempt = Attempt()
    if customer_id is None:
        yield attempt
        return
    login = _name_of(customer_id)
    try:
        slot = await _slot(context, login)
    except RateLimited as error:
        if error.code == TOO_MANY_DECLINES:
            raise
        raise ServiceUnavailable(error.detail, retry_after=2) from error
    async with _ended(context, login, slot, attempt):
        yield attempt


@asynccontextmanager
async def _ended(context: Context, login: str, slot: int, attempt: Attempt) -> AsyncIterator[None]:
    """Give the slot back, or keep it as a failure, once the attempt in the block has ended."""
    try:
        yield
    except BillingError as error:
        await _end(context, login, slot, failed=attempt.failed or is_failure(error))
        raise
    except Exception:
        await _end(context, login, slot, failed=attempt.failed)
        raise
    # An attempt that is cancelled keeps its slot until that runs out: nobody knows what became of it.
    await _end(context, login, slot, failed=attempt.failed)


@asynccontextmanager
async def noted(context: Context, actor: Actor) -> AsyncIterator[Attempt]:
    """Run a change that may charge the stored card, and count a decline.

    It is not refused here: whether it charges anything is known only after it was judged, see `check`.
    """
    login, attempt = login_of(actor), Attempt()
    try:
        yield attempt
    except BillingError as error:
        if login is not None and is_failure(error):
            await _note(context, login)
        raise
    if login is not None and attempt.failed:
        await _note(context, login)


async def _note(context: Context, login: str) -> None:
    async with context.database.transaction() as connection:
        slots = await failures.begin(connection, login)
        if slots.taken is not None:
            await failures.end(connection, login, slots.taken, failed=True)


async def check(connection: Connection, actor: Actor) -> None:
    """Refuse what charges a card while the login is blocked.

    Raises RateLimited `too_many_declines`.
    """
    login = login_of(actor)
    seconds = None if login is None else await failures.blocked_for(connection, login)
    if seconds is not None:
        raise _too_many(seconds)


def is_failure(error: BillingError) -> bool:
    """Return True if a card was declined, or a code is unknown or was refused."""
    if isinstance(error, PaymentRequired):
        return error.code == "card_declined"
    return isinstance(error, InvalidRequest) and any(
        entry.pointer == _PROMOTION_CODE and entry.code in ("not_found", "refused_by_stripe")
        for entry in error.errors
    )


@asynccontextmanager
async def naming_the_code(promotion_code: str | None) -> AsyncIterator[None]:
    """Point errors about `discounts` to `/promotion_code` if the caller gave a code."""
    try:
        yield
    except InvalidRequest as error:
        if promotion_code is None or [entry.pointer for entry in error.errors] != ["/discounts"]:
            raise
        entry = FieldError(_PROMOTION_CODE, error.errors[0].code, error.errors[0].detail)
        raise InvalidRequest(f"{entry.pointer}: {entry.detail}", code=error.code, errors=[entry]) from error


async def _slot(context: Context, login: str) -> int:
    loop = asyncio.get_running_loop()
    give_up, pause = loop.time() + _FREE_SLOT_SECONDS, _FIRST_PAUSE_SECONDS
    while True:
        async with context.database.transaction() as connection:
            slots = await failures.begin(connection, login)
        if slots.taken is not None:
            return slots.taken
        if slots.blocked_for is not None:
            raise _too_many(slots.blocked_for)
        if loop.time() + pause > give_up:
            raise RateLimited(
                "Other attempts of this login are still running. Send the request again after Retry-After.",
                retry_after=2,
            )
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


async def _end(context: Context, login: str, slot: int, *, failed: bool) -> None:
    async with context.database.transaction() as connection:
        await failures.end(connection, login, slot, failed=failed)


def _too_many(seconds: float) -> RateLimited:
    return RateLimited(
        "Too many declined cards or unknown promotion codes. Wait, then try again.",
        code=TOO_MANY_DECLINES,
        retry_after=int(seconds) + 1,
    )
