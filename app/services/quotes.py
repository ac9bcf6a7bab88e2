"""Quotes: what a change was said to cost, held for a day, used once, for that very change of that very plan."""

from __future__ import annotations

import hashlib
from dataclasses import asdict

import orjson

from app.cache import quotes
from app.cache.database import Connection
from app.domain.views import SubscriptionView
from app.errors import (
    Conflict,
    FieldError,
    InvalidRequest,
)
from app.services.actors import Actor
from app.services.plan_writes import PlanUpdate


def change_hash(change: PlanUpdate) -> bytes:
    """All that decides what it costs or what it does; the card that pays may still be another."""
    asked = [
        [[i.id, i.price_id, i.quantity, i.deleted] for i in change.items],
        change.promotion_code,
        change.cancel_at_period_end,
        asdict(change.terms),
    ]
    return hashlib.sha256(orjson.dumps(asked)).digest()


def state_hash(view: SubscriptionView) -> bytes:
    """What a quote depends on: the items, their prices, quantities and periods."""
    state = [[i["id"], i["price"]["id"], i["quantity"], i["current_period_end"]] for i in view.items]
    return hashlib.sha256(orjson.dumps(state)).digest()


async def use_quote(
    connection: Connection, actor: Actor, view: SubscriptionView, change: PlanUpdate
) -> quotes.Quote:
    """Raises InvalidRequest for another change than the quoted one, Conflict `quote_expired` once it is stale."""
    quote_id = change.quote_id or ""
    quote = await quotes.find(connection, quote_id, subscription_id=view.id, principal=actor.principal.key)
    if quote is None or quote.change_hash != change_hash(change):
        detail = "This quote was not made for this change."
        raise InvalidRequest(detail, errors=[FieldError("/quote_id", "invalid", detail)])
    if not quote.open or quote.state_hash != state_hash(view):
        raise Conflict(
            "The quote was used, is older than a day, or the plan changed since.", code="quote_expired"
        )
    await quotes.use(connection, quote_id)
    return quote
