"""Manage webhook endpoints: where events are sent, and with which secret they are signed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from secrets import token_hex
from typing import Final, Literal, get_args

import structlog

from app.context import Context
from app.domain.snapshots import JsonObject
from app.errors import BillingError, CursorExpired, InvalidRequest, NotFound
from app.events.addresses import check_url
from app.events.feed import named_position
from app.events.schemas import EndpointTest, EventType
from app.events.secrets import EndpointSecrets
from app.events.sending import Sent, WebhookSender
from app.events.store import endpoints as store
from app.events.store import feed
from app.events.store.endpoints import Endpoint
from app.postgres.database import Connection

log = structlog.get_logger(__name__)

ID_PATTERN: Final = "^we_[0-9a-f]{24}$"
DELIVERY_PATTERN: Final = "^dl_[0-9a-f]{24}$"
DELETE_SECONDS: Final = 1.0
"""Seconds for which a request deletes what an endpoint has left."""


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """What an operator asks for. `types` is None for all, `after` a place of the log or None for now."""

    url: str
    types: Sequence[str] | None
    description: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Changes:
    """What an operator changes. `given` names the fields that are to be changed."""

    given: frozenset[str]
    url: str | None = None
    types: Sequence[str] | None = None
    description: str | None = None
    status: Literal["enabled", "disabled"] | None = None
    after: str | None = None


async def create(
    context: Context, secrets: EndpointSecrets, asked: NewEndpoint, endpoint_id: str, *, live: bool
) -> tuple[Endpoint, str]:
    """Store an endpoint, and return it with its signing secret, which is shown once.

    Raises:
        ServiceUnavailable: `webhooks_unavailable` without WEBHOOK_ENCRYPTION_KEYS.
        InvalidRequest: the URL, a type or `after` breaks a rule.
        CursorExpired: `after` cannot be read on from.
    """
    secret = secrets.make()
    stored = secrets.encrypt(secret)
    url = check_url(asked.url, live=live)
    check_types(asked.types)
    async with context.database.transaction() as connection:
        ends = await feed.bounds(connection)
        begin = named_position(asked.after, ends, pointer="/after")
        await store.insert(
            connection,
            endpoint_id,
            url=url,
            description=asked.description,
            types=asked.types,
            secret=stored,
            after=ends.newest if begin is None else begin,
        )
        made = await _existing(connection, endpoint_id)
    return made, secret


def shown(endpoint: Endpoint) -> JsonObject:
    """Return what is shown of an endpoint: no secret."""
    names = ("id", "url", "types", "description", "status", "disabled_reason", "created_at")
    return {name: getattr(endpoint, name) for name in names}


def check_types(types: Sequence[str] | None) -> None:
    """Check that each is a type of an event. Raises InvalidRequest."""
    known = get_args(EventType)
    for one in types or ():
        if one not in known:
            raise InvalidRequest(f"/types: {one} is no type of an event. The types are {', '.join(known)}.")


async def get(context: Context, endpoint_id: str) -> Endpoint:
    """Return an endpoint. Raises NotFound."""
    async with context.database.reading() as connection:
        return await _existing(connection, endpoint_id)


async def page(context: Context, *, after: str, limit: int) -> list[Endpoint]:
    """Return the next endpoints by id."""
    async with context.database.reading() as connection:
        return await store.page(connection, after=after, limit=limit)


async def change(context: Context, endpoint_id: str, asked: Changes, *, live: bool) -> Endpoint:
    """Change an endpoint. Enabled without `after`, it goes on where each subscription stood.

    Raises:
        NotFound: there is no such endpoint.
        InvalidRequest: the URL, a type or `after` breaks a rule.
        CursorExpired: the events from where it would go on are not kept.
    """
    async with context.database.transaction() as connection:
        found = await _existing(connection, endpoint_id, locked=True)
        ends = await feed.bounds(connection)
        position = named_position(asked.after, ends, pointer="/after")
        status = asked.status or found.status
        reason = found.disabled_reason
        if status == "enabled":
            reason = None
        elif found.status == "enabled":
            reason = store.BY_OPERATOR
        await store.change(
            connection,
            endpoint_id,
            url=found.url if asked.url is None else check_url(asked.url, live=live),
            description=asked.description if "description" in asked.given else found.description,
            types=asked.types if "types" in asked.given else found.types,
            status=status,
            reason=reason,
        )
        if position is not None:
            await store.begin_after(connection, endpoint_id, position)
        elif status == "enabled" and found.status == "disabled":
            if await store.first_undelivered(connection, endpoint_id) < ends.purged_to:
                raise CursorExpired()
            await store.make_due(connection, endpoint_id, forgiven=True)
        return await _existing(connection, endpoint_id)


async def delete(context: Context, endpoint_id: str) -> None:
    """Delete an endpoint with its deliveries. Raises NotFound.

    It is gone at once. The deliveries of a busy one are many, and those that are left after DELETE_SECONDS are deleted
    by the worker.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + DELETE_SECONDS
    async with context.database.transaction() as connection:
        if not await store.delete(connection, endpoint_id):
            raise NotFound()
    try:
        async with context.database.connection() as connection:
            while await store.delete_rows(connection, endpoint_id) and loop.time() < until:
                pass
    except BillingError as error:
        log.warning("deliveries_not_deleted", endpoint_id=endpoint_id, reason=error.code)


async def forget_deleted(context: Context) -> int:
    """Delete what is left of deleted endpoints; return the number of their queues and deliveries."""
    number = 0
    async with context.database.connection() as connection:
        for endpoint_id in await store.deleted(connection):
            while deleted := await store.delete_rows(connection, endpoint_id):
                number += deleted
    return number


async def rotate(
    context: Context, secrets: EndpointSecrets, endpoint_id: str, *, overlap: float
) -> tuple[Endpoint, str]:
    """Make a new secret. Events are signed with the former one too for `overlap` seconds.

    Raises:
        NotFound: there is no such endpoint.
        ServiceUnavailable: `webhooks_unavailable` without WEBHOOK_ENCRYPTION_KEYS.
    """
    secret = secrets.make()
    stored = secrets.encrypt(secret)
    async with context.database.transaction() as connection:
        await _existing(connection, endpoint_id, locked=True)
        await store.rotate(connection, endpoint_id, secret=stored, overlap=overlap)
        return await _existing(connection, endpoint_id), secret


async def send_test(
    context: Context, secrets: EndpointSecrets, sender: WebhookSender, endpoint_id: str
) -> Sent:
    """Send `endpoint.test` at once, outside of queue and feed, and return how it ended.

    Raises:
        NotFound: there is no such endpoint.
        ServiceUnavailable: `webhooks_unavailable` without WEBHOOK_ENCRYPTION_KEYS.
    """
    async with context.database.reading() as connection:
        found = await _existing(connection, endpoint_id)
    event_id = f"evt_{token_hex(12)}"
    body = test_event(event_id)
    return await sender.send(found.url, event_id, body, [secrets.decrypt(found.secret)])


def test_event(event_id: str) -> bytes:
    """Return the event that only tests an endpoint."""
    event = {
        "id": event_id,
        "type": "endpoint.test",
        "created": datetime.now(UTC),
        "sequence": None,
        "previous_sequence": None,
        "subscription_id": None,
        "customer_id": None,
        "data": {"source": "api", "operation_id": None},
    }
    return EndpointTest.model_validate(event).model_dump_json().encode()


async def deliveries(
    context: Context, endpoint_id: str, *, before: int | None, limit: int
) -> list[JsonObject]:
    """Return what was tried, the newest event first. Raises NotFound."""
    async with context.database.reading() as connection:
        await _existing(connection, endpoint_id)
        return await store.deliveries(connection, endpoint_id, before=before, limit=limit)


async def redeliver(context: Context, endpoint_id: str, delivery_id: str) -> None:
    """Let the worker send an event again, and try the head of every queue of the endpoint at once.

    Raises:
        NotFound: there is no such delivery, or its event is not kept any more.
    """
    async with context.database.transaction() as connection:
        await _existing(connection, endpoint_id)
        if not await store.ask_again(connection, endpoint_id, delivery_id):
            raise NotFound()
        await store.make_due(connection, endpoint_id)


async def _existing(connection: Connection, endpoint_id: str, *, locked: bool = False) -> Endpoint:
    found = await store.one(connection, endpoint_id, locked=locked)
    if found is None:
        raise NotFound()
    return found
