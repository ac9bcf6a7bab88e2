"""Deliver events to endpoints: at least once, and for one subscription in the order of its events.

The event at the head of a queue is tried until it is taken or its endpoint is disabled; the events behind it wait, and
no other queue does. See docs/decisions/0053-keep-a-queue-for-each-endpoint-and-subscription.md.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from secrets import token_hex
from typing import Any, Final
from uuid import UUID, uuid4

import structlog
from prometheus_client import Counter

from app.context import Context
from app.domain.snapshots import JsonObject
from app.errors import BillingError, ServiceUnavailable
from app.events.schemas import SENT_MODELS
from app.events.secrets import EndpointSecrets
from app.events.sending import Sent, WebhookSender
from app.events.store import deliveries as store
from app.events.store import endpoints
from app.events.store.deliveries import Head
from app.postgres.database import Connection
from app.settings import Settings

log = structlog.get_logger(__name__)

TRIES = Counter("coseat_webhook_deliveries", "Tries to deliver an event to an endpoint", ["outcome"])

CONCURRENCY: Final = 64
"""Tries of one worker at the same time."""
FIRST_PAUSE: Final = 5.0
"""Seconds before the second try. Each later pause is twice as long, up to WEBHOOK_RETRY_MAX."""
WARN_SECONDS: Final = 60.0
"""Seconds between two warnings of a process without a key."""
_IDLE_SECONDS: Final = 0.2
_AWAY_SECONDS: Final = 1.0
_LEASE_MARGIN: Final = 15.0
_DOUBLINGS: Final = 20

Render = Callable[[JsonObject], Awaitable[JsonObject]]
"""Return the event as it is sent: an invitation's with its address and its token."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an endpoint is tried. All are in seconds."""

    timeout: float
    retry_max: float
    disable_after: float

    @classmethod
    def of(cls, settings: Settings) -> Patience:
        """Return what the settings say."""
        return cls(settings.webhook_timeout, settings.webhook_retry_max, settings.webhook_disable_after)


def pause_after(failures: int, patience: Patience, *, retry_after: float | None, jitter: float) -> float:
    """Return the seconds before the next try, after so many failures in a row, the last one included.

    `retry_after` is what the endpoint asked for. `jitter`, from 0 to 1, spreads the tries over the last fifth.
    """
    usual: float = min(FIRST_PAUSE * 2.0 ** min(failures - 1, _DOUBLINGS), patience.retry_max)
    return max(usual * (1 - 0.2 * jitter), min(retry_after or 0.0, patience.retry_max))


def body_of(event: JsonObject) -> bytes:
    """Return the event as it is sent."""
    return SENT_MODELS[event["type"]].model_validate(event).model_dump_json().encode()


@dataclass(slots=True)
class Deliverer:
    """Delivers what is due. Any number of processes may do this."""

    context: Context
    sender: WebhookSender
    secrets: EndpointSecrets
    patience: Patience
    render: Render
    running: set[asyncio.Task[Any]] = field(default_factory=set)
    warn_at: float = 0.0
    """The time of the event loop at which it looks for endpoints again that wait for a key of this process."""

    async def keep_delivering(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set, then finish the tries that have begun."""
        stopping = asyncio.create_task(stop.wait())
        while not stop.is_set():
            pause = _IDLE_SECONDS
            try:
                await self.begin_what_is_due(stop)
            except BillingError as error:
                log.warning("deliveries_wait", reason=error.code)
                pause = _AWAY_SECONDS
            except Exception as error:  # One round must not end all later ones.
                log.error("deliveries_wait", error=type(error).__name__, exc_info=error)
                pause = _AWAY_SECONDS
            await asyncio.wait({stopping}, timeout=pause)
        if self.running:
            await asyncio.wait(set(self.running), timeout=self.patience.timeout)

    async def begin_what_is_due(self, stop: asyncio.Event) -> None:
        """Fill the queues, lease what is due, and begin to send it."""
        if not self.secrets.are_available:
            await self._warn_of_missing_key()
            return
        async with self.context.database.connection() as connection:
            open_endpoints = await store.open_endpoints(connection)
            for endpoint_id in open_endpoints:
                await store.enqueue(connection, endpoint_id)
        for endpoint_id in open_endpoints:
            if len(self.running) < CONCURRENCY:
                await self._begin_for(endpoint_id, stop)

    async def _warn_of_missing_key(self) -> None:
        """Log every WARN_SECONDS for how many endpoints events wait that this process cannot sign."""
        now = asyncio.get_running_loop().time()
        if now < self.warn_at:
            return
        self.warn_at = now + WARN_SECONDS
        async with self.context.database.connection() as connection:
            open_endpoints = await store.open_endpoints(connection)
        if open_endpoints:
            log.warning(
                "deliveries_wait",
                reason="webhooks_unavailable",
                setting="WEBHOOK_ENCRYPTION_KEYS",
                endpoints=len(open_endpoints),
            )

    async def _begin_for(self, endpoint_id: str, stop: asyncio.Event) -> None:
        token = uuid4()
        async with self.context.database.transaction() as connection:
            if not await store.hold(connection, endpoint_id):
                return
            queues = await store.lease(connection, endpoint_id, token, seconds=self._lease)
            again = await store.take_again(connection, endpoint_id, seconds=self._lease)
        for queue in queues:
            self._begin(self._work_off(endpoint_id, queue, token, stop))
        for head in again:
            self._begin(self._send_again(head))

    @property
    def _lease(self) -> float:
        return self.patience.timeout + _LEASE_MARGIN

    def _begin(self, job: Any) -> None:
        task = asyncio.create_task(_logged(job))
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    async def _work_off(self, endpoint_id: str, queue: str, token: UUID, stop: asyncio.Event) -> None:
        """Send the events of one queue in their order, until one fails or none is left."""
        while True:
            async with self.context.database.connection() as connection:
                head = await store.head(connection, endpoint_id, queue, token)
            if head is None:
                return
            sent = await self._try(head)
            if not await self._settle(head, sent, token):
                return
            if stop.is_set():
                async with self.context.database.connection() as connection:
                    await store.release(connection, endpoint_id, queue, token)
                return

    async def _try(self, head: Head) -> Sent:
        secrets = [self.secrets.decrypt(head.secret)]
        if head.former_secret is not None:
            secrets.append(self.secrets.decrypt(head.former_secret))
        event = await self.render(head.event)
        sent = await self.sender.send(head.url, head.event["id"], body_of(event), secrets)
        TRIES.labels("delivered" if sent.is_success else "failed").inc()
        return sent

    async def _settle(self, head: Head, sent: Sent, token: UUID) -> bool:
        """Store how a try has ended; return True if the next event of the queue may be sent."""
        async with self.context.database.transaction() as connection:
            await _record(connection, head, sent)
            if sent.is_success:
                return await store.succeeded(connection, head, token, seconds=self._lease)
            failures = head.failures + 1
            pause = pause_after(
                failures,
                self.patience,
                retry_after=sent.retry_after,
                jitter=random.random(),  # noqa: S311 - spreads load, guards nothing
            )
            await store.failed(connection, head, token, pause=pause)
            if reason := self._why_disabled(head, sent):
                await endpoints.disable(connection, head.endpoint_id, reason)
                log.error("endpoint_disabled", endpoint_id=head.endpoint_id, reason=reason)
        return False

    def _why_disabled(self, head: Head, sent: Sent) -> str | None:
        if sent.is_gone:
            return "It answered 410 Gone."
        since = head.failing_since
        if since is None or head.at - since < timedelta(seconds=self.patience.disable_after):
            return None
        return f"The event {head.event['id']} has failed since {since:%Y-%m-%dT%H:%M:%SZ}. The last try: {sent.error}."

    async def _send_again(self, head: Head) -> None:
        sent = await self._try(head)
        async with self.context.database.connection() as connection:
            await _record(connection, head, sent, is_again=True)


async def _record(connection: Connection, head: Head, sent: Sent, *, is_again: bool = False) -> None:
    attempt = {"at": head.at.isoformat(), "status": sent.status, "error": sent.error}
    state = "delivered" if sent.is_success else "pending"
    delivery_id = f"dl_{token_hex(12)}"
    await store.record_attempt(connection, head, delivery_id, state=state, attempt=attempt, is_again=is_again)


async def _logged(job: Awaitable[None]) -> None:
    try:
        await job
    except ServiceUnavailable as error:
        log.warning("delivery_waits", reason=error.code)
    except Exception as error:  # An error about one event must not stop the others.
        log.error("delivery_failed", error=type(error).__name__, exc_info=error)
