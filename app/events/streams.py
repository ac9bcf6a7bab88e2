"""Feed the event streams of this process: one poller, whatever the number of streams.

See docs/decisions/0054-feed-all-streams-of-a-process-by-one-poller.md.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import structlog
from prometheus_client import Gauge

from app.context import Context
from app.domain.ids import CustomerId, SubscriptionId
from app.domain.roles import Role
from app.domain.snapshots import JsonObject
from app.errors import BillingError, CursorExpired, RateLimited
from app.events.places import place_of, position_of
from app.events.schemas import EVENT_MODELS
from app.events.store import feed
from app.events.store import streams as store
from app.events.stream_rules import concerns, shown_to
from app.identity.principals import EndUser
from app.postgres.database import Connection

log = structlog.get_logger(__name__)

OPEN = Gauge("coseat_streams", "Event streams that this process holds open")

POLL_SECONDS: Final = 0.4
HEARTBEAT_SECONDS: Final = 10.0
"""Less than the 15 s within which readers are promised a message."""
FAREWELL_SECONDS: Final = 1.0
"""For how long the event that tells a reader of their new role is waited for before the stream ends."""
_AWAY_SECONDS: Final = 1.0
_MOST_WAITING: Final = 10_000
_RETRY_MILLISECONDS: Final = (500, 3000)


@dataclass(slots=True, eq=False)
class Stream:
    """One open stream. `reader` is None for a service key. `expires` is a Unix second, or None.

    `login` is None for a service key, also if it acts for `reader`. `waiting` holds the events that are to be sent,
    `newest` is the position up to which nothing else is.
    """

    subscription_id: SubscriptionId
    reader: CustomerId | None
    roles: frozenset[Role]
    expires: float | None
    newest: int
    login: EndUser | None = None
    waiting: deque[JsonObject] = field(default_factory=deque)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    is_over: bool = False
    role_changed_at: float | None = None

    @property
    def has_expired(self) -> bool:
        """Return True once the reader's token has expired."""
        return self.expires is not None and self.expires <= time.time()

    @property
    def judged(self) -> store.Reader | None:
        """Return who is judged by roles, None for a service key."""
        if self.reader is None:
            return None
        return store.Reader(self.subscription_id, self.reader, self.login)

    def take(self, event: JsonObject) -> None:
        """Take an event that is to be sent; a reader who does not keep up is ended."""
        self.waiting.append(event)
        if len(self.waiting) > _MOST_WAITING:
            self.end()
        self.woken.set()

    def end(self) -> None:
        """End the stream after what waits."""
        self.is_over = True
        self.woken.set()


class Streams:
    """The streams of one process, at most `most` for one caller. `is_draining` tells that the process is to end.

    `heartbeat`: seconds without an event after which a stream shows that it is there.
    """

    def __init__(
        self, *, most: int, is_draining: Callable[[], bool], heartbeat: float = HEARTBEAT_SECONDS
    ) -> None:
        self._most = most
        self._heartbeat = heartbeat
        self._is_draining = is_draining
        self._open: set[Stream] = set()
        self._callers: Counter[str] = Counter()
        self._poller: asyncio.Task[None] | None = None

    @contextmanager
    def place(self, caller: str) -> Iterator[None]:
        """Count one stream of a caller. Raises RateLimited `too_many_in_flight`."""
        if self._callers[caller] >= self._most:
            raise RateLimited(
                f"{self._most} event streams of this caller are open. Close one of them, then try again.",
                code="too_many_in_flight",
                retry_after=1,
            )
        self._callers[caller] += 1
        try:
            yield
        finally:
            self._callers[caller] -= 1
            if not self._callers[caller]:
                del self._callers[caller]

    async def begin(self, context: Context, last_event_id: str | None) -> int:
        """Return the position after which a stream begins: now, or that of a Last-Event-ID.

        Raises:
            CursorExpired: it is no place of this log, or its events are not kept.
        """
        async with context.database.reading() as connection:
            ends = await feed.bounds(connection)
        if last_event_id is None:
            return ends.newest
        position = position_of(last_event_id)
        if position is None or not ends.purged_to <= position <= ends.newest:
            raise CursorExpired()
        return position

    async def messages(self, context: Context, stream: Stream) -> AsyncGenerator[bytes, None]:
        """Yield the messages of a stream until it ends: at its reader's expiry or change of role, or at drain."""
        yield b"retry: 1000\n\n"
        async for event in self._missed(context, stream):
            if (message := _message(event, stream)) is not None:
                yield message
        if not stream.is_over:
            self._attach(context, stream)
        try:
            yield _heartbeat(stream.newest)
            last = time.monotonic()
            while True:
                while stream.waiting and not stream.has_expired:
                    if (message := _message(stream.waiting.popleft(), stream)) is not None:
                        last = time.monotonic()
                        yield message
                if stream.is_over or stream.has_expired:
                    if self._is_draining():
                        pause = random.randint(*_RETRY_MILLISECONDS)  # noqa: S311 - spreads load, guards nothing
                        yield f"retry: {pause}\n\n".encode()
                    return
                stream.woken.clear()
                await _wait(stream, last + self._heartbeat - time.monotonic())
                if not stream.waiting and time.monotonic() - last >= self._heartbeat:
                    last = time.monotonic()
                    yield _heartbeat(stream.newest)
        finally:
            self._open.discard(stream)
            OPEN.set(len(self._open))

    async def _missed(self, context: Context, stream: Stream) -> AsyncIterator[JsonObject]:
        """Yield the events between the place where the stream begins and the end of the log.

        The reader's roles are read with each page, and again while a slow reader takes it. No further event is yielded
        once the stream is to end.
        """
        while True:
            async with context.database.reading() as connection:
                newest = await store.newest(connection)
                found = await store.events_between(
                    connection, stream.newest, newest, [stream.subscription_id]
                )
                judged_at = await _judge_now(connection, stream)
            for event in found:
                if time.monotonic() - judged_at >= POLL_SECONDS:
                    async with context.database.reading() as connection:
                        judged_at = await _judge_now(connection, stream)
                if self._is_to_end(stream):
                    return
                stream.newest = event["position"]
                yield event
            if len(found) < store.PAGE:
                stream.newest = max(stream.newest, newest)
                return

    def _is_to_end(self, stream: Stream) -> bool:
        """Return True if no further event is sent, because of drain, expiry, or a role that was lost a second ago."""
        if self._is_draining() or _is_farewell_over(stream):
            stream.end()
        return stream.is_over or stream.has_expired

    def _attach(self, context: Context, stream: Stream) -> None:
        self._open.add(stream)
        OPEN.set(len(self._open))
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll(context))

    async def _poll(self, context: Context) -> None:
        while self._open:
            pause = POLL_SECONDS
            try:
                await self._look(context)
            except BillingError as error:
                log.warning("streams_wait", reason=error.code)
                pause = _AWAY_SECONDS
            except Exception as error:  # The streams go on with the next look.
                log.error("streams_wait", error=type(error).__name__, exc_info=error)
                pause = _AWAY_SECONDS
            if self._is_draining():
                for stream in list(self._open):
                    stream.end()
            await asyncio.sleep(pause)

    async def _look(self, context: Context) -> None:
        streams = list(self._open)
        position = min(one.newest for one in streams)
        readers = [one.judged for one in streams if one.judged is not None]
        async with context.database.reading() as connection:
            newest, events = await store.newest(connection), []
            if newest > position:
                events = await store.events_between(
                    connection, position, newest, {one.subscription_id for one in streams}
                )
            # Roles are read after the events, so that no event is sent by a role that ended before it.
            found = iter(await store.roles(connection, readers))
        if len(events) == store.PAGE:
            newest = events[-1]["position"]
        for stream in streams:
            _judge(stream, None if stream.reader is None else next(found))
        of_subscription: dict[str, list[Stream]] = {}
        for stream in streams:
            of_subscription.setdefault(stream.subscription_id, []).append(stream)
        for event in events:
            for stream in of_subscription.get(event["subscription_id"], ()):
                if event["position"] > stream.newest:
                    stream.take(event)
        for stream in streams:
            stream.newest = max(stream.newest, newest)
            _end_if_told(stream)


async def _wait(stream: Stream, seconds: float) -> None:
    """Wait until something happens to the stream, for at most so many seconds, and not beyond its expiry."""
    if stream.expires is not None:
        seconds = min(seconds, stream.expires - time.time())
    with suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, seconds)):
            await stream.woken.wait()


def _judge(stream: Stream, roles: frozenset[Role] | None) -> None:
    """Note that the reader's roles have changed: from now on they are shown their own events only."""
    if roles is not None and roles != stream.roles and stream.role_changed_at is None:
        stream.role_changed_at = time.monotonic()


async def _judge_now(connection: Connection, stream: Stream) -> float:
    """Read the reader's roles and judge by them. Return the moment on the process's monotonic clock."""
    now = time.monotonic()
    if stream.judged is not None:
        _judge(stream, (await store.roles(connection, [stream.judged]))[0])
    return now


def _is_farewell_over(stream: Stream) -> bool:
    return stream.role_changed_at is not None and time.monotonic() - stream.role_changed_at > FAREWELL_SECONDS


def _end_if_told(stream: Stream) -> None:
    """End a stream whose reader has another role, once their own event is there, or after a second."""
    if stream.role_changed_at is None or stream.reader is None:
        return
    reader = stream.reader
    if any(concerns(event, reader) for event in stream.waiting) or _is_farewell_over(stream):
        stream.end()


def _message(event: JsonObject, stream: Stream) -> bytes | None:
    if (
        stream.role_changed_at is not None
        and stream.reader is not None
        and not concerns(event, stream.reader)
    ):
        return None
    roles = frozenset[Role]() if stream.role_changed_at is not None else stream.roles
    shown = shown_to(event, stream.reader, roles)
    if shown is None:
        return None
    body = EVENT_MODELS[event["type"]].model_validate(shown).model_dump_json()
    return f"id: {place_of(event['position'])}\nevent: {event['type']}\ndata: {body}\n\n".encode()


def _heartbeat(position: int) -> bytes:
    return f": heartbeat\nid: {place_of(position)}\n\n".encode()
