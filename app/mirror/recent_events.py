"""Look at Stripe's recent events, once an hour, for those that never arrived, and fetch what they changed.

A secret that was rotated, an endpoint that is gone, a proxy that answers 200: then no event arrives, nothing fails, and
the copy falls behind until the next reconcile. Stripe's list of events shows them. See
docs/decisions/0044-look-at-recent-events-once-an-hour.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog

from app.context import Context
from app.errors import InvalidWebhook
from app.mirror import late_effects
from app.mirror.event_types import NEEDED_EVENTS
from app.mirror.first_fill import check_account
from app.mirror.store import event_looks, fills, refreshes
from app.mirror.webhooks import kind_of, news_of
from app.stripe.gateway import Account
from app.stripe.webhooks import Event, event_of

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 3600
GRACE_SECONDS: Final = 300
"""Seconds that an event may take to arrive before it counts as lost."""
PAGES: Final = 10
"""Pages of 100 events that one look reads at most, the newest first."""
_TRY_AGAIN_SECONDS: Final = 120
_LISTED_SECONDS: Final = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Lost:
    """The events of an interval that changed a mirrored object, and those of them that never arrived.

    `until` is the Unix second at which the interval ends. `is_complete` is False if it has more events than PAGES.
    """

    seen: int
    events: list[Event]
    until: int
    is_complete: bool


async def look_when_due(context: Context) -> bool:
    """Look if the last look of any worker was an hour ago; True if it was done here.

    Raises:
        Conflict: `wrong_account`.
        ServiceUnavailable: Stripe or the database does not answer. The next try follows after two minutes.
        StripeRejected: Stripe refused a read.
    """
    async with context.database.connection() as connection:
        reached = await event_looks.take(
            connection, every_seconds=LOOK_SECONDS, try_again_seconds=_TRY_AGAIN_SECONDS
        )
    if reached is None:
        return False
    in_bulk = context.doing("bulk")
    account = await check_account(in_bulk)
    found = await find_lost(in_bulk, account, since=reached + 1)
    if found is not None:
        await _note(in_bulk, found)
    return True


async def find_lost(context: Context, account: Account, *, since: int | None = None) -> Lost | None:
    """Return the events since a Unix second that never arrived; without `since` those of the last hour.

    None if the mirror was not filled before them: the first fill shows what earlier events changed. Nothing is written.

    Raises what `app.stripe.gateway.StripeGateway.events` raises, and ServiceUnavailable.
    """
    until = account.at - GRACE_SECONDS
    async with context.database.reading() as connection:
        filled_at = await fills.filled_second(connection)
    if filled_at is None:
        return None
    begin = max(until - LOOK_SECONDS if since is None else since, filled_at, until - _LISTED_SECONDS)
    if begin > until:
        return None
    sources, is_complete = await context.stripe.events(since=begin, until=until, pages=PAGES)
    changing: dict[str, Event] = {}
    for source in sources:
        try:
            event = event_of(source)
        except InvalidWebhook:
            continue
        is_ours = set(event.accounts) <= {account.id}
        if is_ours and event.type in NEEDED_EVENTS and news_of(event):
            changing[event.id] = event
    async with context.database.reading() as connection:
        arrived = await event_looks.arrived(connection, list(changing))
    lost = [event for event in changing.values() if event.id not in arrived]
    return Lost(len(changing), lost, until, is_complete)


async def _note(context: Context, found: Lost) -> None:
    """Notify of the objects that lost events changed, and store the result."""
    newest: dict[tuple[str, str], int] = {}
    for event in found.events:
        for one in news_of(event):
            newest[one] = max(event.created, newest.get(one, 0))
        await late_effects.watch(context, event, kind_of(event.type))
    async with context.database.transaction() as connection:
        for (kind, object_id), created in sorted(newest.items()):
            await refreshes.note(connection, kind, object_id, notified_at=created)
        await event_looks.record(
            connection,
            reached=found.until,
            seen=found.seen,
            lost=len(found.events),
            is_complete=found.is_complete,
        )
    if found.events:
        log.error("events_lost", lost=len(found.events), seen=found.seen, objects=len(newest))
    if not found.is_complete:
        log.warning("recent_events_not_all_read", seen=found.seen)
