"""Send one signed event to one endpoint, by the Standard Webhooks specification.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Final, Self

import httpcore
from standardwebhooks.webhooks import Webhook

from app.domain.snapshots import JsonObject
from app.events.addresses import GuardedNetwork, NotPublic

READ_BYTES: Final = 16 * 1024
"""Bytes of an answer's body that are read. The rest is not waited for."""
_CONNECTIONS: Final = 100
_GONE: Final = 410


@dataclass(frozen=True, slots=True)
class Sent:
    """How a try has ended. `status` is None without an answer; `error` says in a few words what went wrong.

    `retry_after` is what the endpoint asked for, in seconds.
    """

    status: int | None
    error: str | None
    retry_after: float | None = None

    @property
    def is_success(self) -> bool:
        """Return True if the endpoint has taken the event."""
        return self.status is not None and 200 <= self.status <= 299

    @property
    def is_gone(self) -> bool:
        """Return True if the endpoint wants no more events."""
        return self.status == _GONE

    def as_members(self) -> JsonObject:
        """Return the members of an answer that tells of the try."""
        return {"delivered": self.is_success, "status": self.status, "error": self.error}


class WebhookSender:
    """Sends events. `live`: only to public addresses. `seconds`: the time for a whole try."""

    def __init__(self, *, live: bool, seconds: float) -> None:
        self._seconds = seconds
        self._pool = httpcore.AsyncConnectionPool(
            max_connections=_CONNECTIONS,
            max_keepalive_connections=_CONNECTIONS,
            keepalive_expiry=30.0,
            http2=False,
            network_backend=GuardedNetwork(live=live),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.aclose()

    async def send(self, url: str, event_id: str, body: bytes, secrets: Sequence[str]) -> Sent:
        """Post the body, signed by each secret. Redirects are not followed, and no error is raised."""
        now = datetime.now(UTC)
        text = body.decode()
        signatures = " ".join(Webhook(secret).sign(event_id, now, text) for secret in secrets)
        headers = [
            (b"host", authority(url)),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"user-agent", b"Coseat"),
            (b"webhook-id", event_id.encode()),
            (b"webhook-timestamp", str(int(now.timestamp())).encode()),
            (b"webhook-signature", signatures.encode()),
        ]
        try:
            async with asyncio.timeout(self._seconds):
                return await self._post(url, headers, body)
        except TimeoutError:
            return Sent(None, f"no answer within {self._seconds:g} s")
        except NotPublic:
            return Sent(None, "the host has an address that is not public")
        except httpcore.ConnectError:
            return Sent(None, "no connection")
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError):
            return Sent(None, "the connection broke")
        except (httpcore.UnsupportedProtocol, ValueError):
            return Sent(None, "the URL cannot be requested")

    async def _post(self, url: str, headers: list[tuple[bytes, bytes]], body: bytes) -> Sent:
        """Post over a connection that is open from an earlier event, if there is one.

        An endpoint may close it at any time, also while the request is under way (RFC 9112, 9.3.1). That says nothing
        of the endpoint, so the request is repeated until it had a connection of its own.
        """
        while True:
            use = _Use()
            try:
                return await self._exchange(url, headers, body, use)
            except (httpcore.NetworkError, httpcore.ProtocolError):
                if use.is_first or use.is_answered:
                    raise

    async def _exchange(self, url: str, headers: list[tuple[bytes, bytes]], body: bytes, use: _Use) -> Sent:
        extensions = {"trace": use.trace}
        async with self._pool.stream(
            "POST", url, headers=headers, content=body, extensions=extensions
        ) as answer:
            use.is_answered = True
            read = 0
            async for part in answer.aiter_stream():
                read += len(part)
                if read >= READ_BYTES:
                    break
        named = {name.lower(): value for name, value in answer.headers}
        sent = Sent(answer.status, None)
        if sent.is_success:
            return sent
        return Sent(answer.status, f"answered {answer.status}", _retry_after(named.get(b"retry-after")))


@dataclass(slots=True)
class _Use:
    """What is known of one request's use of a connection."""

    is_first: bool = False
    is_answered: bool = False

    async def trace(self, event: str, _: object) -> None:
        """Take note of what the library does for the request."""
        if event == "connection.connect_tcp.started":
            self.is_first = True


def authority(url: str) -> bytes:
    """Return the Host header of a request to a URL. An IPv6 address stands in brackets."""
    target = httpcore.URL(url)
    host = b"[" + target.host + b"]" if b":" in target.host else target.host
    return host if target.port is None else host + b":" + str(target.port).encode()


def _retry_after(value: bytes | None) -> float | None:
    """Return the seconds of a Retry-After header, which is a number of seconds or a date; None if it is neither."""
    if value is None:
        return None
    text = value.decode("ascii", "replace").strip()
    if text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None
