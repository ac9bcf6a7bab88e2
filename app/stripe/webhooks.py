"""Verify a webhook delivery and read its event, without objects of the SDK.

The SDK's `construct_event` builds the whole object tree, which takes 50 times as long, and accepts signatures that are
dated years in the future. Source: https://docs.stripe.com/webhooks#verify-manually
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import stripe

from app.errors import InvalidWebhook
from app.stripe.parsing.fields import LATEST_INSTANT

MAXIMUM_BODY_BYTES = 1024 * 1024
"""A subscription with long metadata and many items makes an event of hundreds of kilobytes."""
WINDOW_SECONDS = 300
_MAXIMUM_HEADER = 4096
_LONGEST_INSTANT = 15


@dataclass(frozen=True, slots=True)
class Event:
    """An event whose own fields have the right types. `object` and `previous` are not validated.

    `created` is a Unix second. `accounts` are the accounts that the event names: the connected account of a Connect
    endpoint, and the context of an organisation's endpoint. A name that is no text is "". `idempotency_key` is that of
    the API request that caused the event, if there was one.
    """

    id: str
    type: str
    created: int
    api_version: str | None
    livemode: bool
    accounts: tuple[str, ...]
    object: dict[str, Any]
    previous: dict[str, Any]
    idempotency_key: str | None = None


def verify(body: bytes, header: str | None, secrets: Sequence[str], *, now: float | None = None) -> None:
    """Check that one of the secrets signed this body.

    `now` is a Unix second, by default the current one. The signature may be at most 300 s away from it, past or future.

    Raises:
        InvalidWebhook: the header is missing or malformed, the time is too far away, or no secret matches.
    """
    if header is None:
        raise InvalidWebhook("missing")
    if len(header) > _MAXIMUM_HEADER or not header.isascii():
        raise InvalidWebhook("malformed")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidWebhook("malformed") from None
    if abs(_timestamp(header) - (time.time() if now is None else now)) > WINDOW_SECONDS:
        raise InvalidWebhook("timestamp")
    for secret in secrets:
        try:
            if stripe.WebhookSignature.verify_header(text, header, secret, tolerance=None):
                return
        except stripe.SignatureVerificationError:
            continue
    raise InvalidWebhook("signature")


def _timestamp(header: str) -> int:
    """Return the only timestamp of the header. With several, the SDK might verify another than this module checks."""
    instants = [part[2:] for part in header.split(",") if part.startswith("t=")]
    if len(instants) != 1 or not instants[0].isdigit() or len(instants[0]) > _LONGEST_INSTANT:
        raise InvalidWebhook("malformed")
    return int(instants[0])


def read(body: bytes) -> Event | None:
    """Return the event of a verified body; None for a thin event (`v2.core.event`), which has no object.

    Raises:
        InvalidWebhook: the body is not a JSON object, or a field is missing or has the wrong type.
    """
    try:
        envelope = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidWebhook("malformed") from None
    if not isinstance(envelope, dict):
        raise InvalidWebhook("malformed")
    return None if envelope.get("object") == "v2.core.event" else event_of(envelope)


def event_of(envelope: Mapping[str, Any]) -> Event:
    """Return the event of its JSON object. Raises InvalidWebhook if a field is missing or has the wrong type."""
    data = envelope.get("data")
    event_id, event_type, created = envelope.get("id"), envelope.get("type"), envelope.get("created")
    if not (
        envelope.get("object") == "event"
        and isinstance(event_id, str)
        and 0 < len(event_id) <= 255
        and isinstance(event_type, str)
        and 0 < len(event_type) <= 255
        and type(created) is int
        and 0 <= created <= LATEST_INSTANT
        and isinstance(data, dict)
        and isinstance(data.get("object"), dict)
        and "\x00" not in event_id + event_type
    ):
        raise InvalidWebhook("malformed")
    version, previous = envelope.get("api_version"), data.get("previous_attributes")
    return Event(
        id=event_id,
        type=event_type,
        created=created,
        api_version=version if isinstance(version, str) else None,
        livemode=envelope.get("livemode") is True,
        accounts=_accounts(envelope),
        object=data["object"],
        previous=previous if isinstance(previous, dict) else {},
        idempotency_key=_cause(envelope.get("request")),
    )


def _accounts(envelope: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the accounts that an event names. A context is a path whose last part is the account."""
    named = [value for name in ("account", "context") if (value := envelope.get(name)) is not None]
    return tuple(value.rpartition("/")[2] if isinstance(value, str) else "" for value in named)


def _cause(request: object) -> str | None:
    key = request.get("idempotency_key") if isinstance(request, dict) else None
    return key if isinstance(key, str) else None
