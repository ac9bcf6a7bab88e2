"""Webhook endpoints and their deliveries, in requests and answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from app.events.schemas import EventType, Place
from app.http.schemas import Answer, Instant, Page, Request

_Url = Annotated[str, Field(min_length=1, max_length=2000, examples=["https://app.example.com/hooks/coseat"])]
_Types = Annotated[list[EventType], Field(min_length=1, max_length=20)]
_Description = Annotated[str, Field(max_length=500)]


class NewWebhookEndpointRequest(Request):
    """`types` is all if absent. `after` is a place of the log; without it, the endpoint begins now."""

    url: _Url
    types: _Types | None = None
    description: _Description | None = None
    after: Place | None = None


class WebhookEndpointChangeRequest(Request):
    """The fields that are to be changed. `types: null` is all.

    An endpoint that is enabled without `after` goes on where each subscription stood. With `after` it goes on from that
    place, whatever it has received.
    """

    url: _Url | None = None
    types: _Types | None = None
    description: _Description | None = None
    status: Literal["enabled", "disabled"] | None = None
    after: Place | None = None


class RotateSecretRequest(Request):
    """`overlap_seconds`: for how long events are signed with the former secret too."""

    overlap_seconds: Annotated[int, Field(ge=0, le=604_800)] = 86_400


class WebhookEndpoint(Answer):
    """An endpoint. `types` is null for all. `disabled_reason` is null while it is enabled."""

    id: str
    url: str
    types: list[EventType] | None
    description: str | None
    status: Literal["enabled", "disabled"]
    disabled_reason: str | None
    created_at: Instant


class WebhookEndpointAnswer(Answer):
    """An endpoint."""

    webhook_endpoint: WebhookEndpoint


class WebhookEndpointSecretAnswer(WebhookEndpointAnswer):
    """An endpoint with its signing secret, which is shown once. A replayed answer has `secret: null`."""

    secret: str | None


class WebhookEndpointList(Page):
    """Endpoints by id."""

    data: list[WebhookEndpoint]


class DeliveryAttempt(Answer):
    """One try. `status` is null without an answer; `error` says what went wrong, null if nothing did."""

    at: Instant
    status: int | None
    error: str | None


class Delivery(Answer):
    """The tries to deliver one event, the last 100 of them."""

    id: str
    event_id: str
    state: Literal["pending", "delivered"]
    attempts: list[DeliveryAttempt]


class DeliveryList(Page):
    """Deliveries, the newest event first. An event that was not tried yet is not among them."""

    data: list[Delivery]


class TestAnswer(Answer):
    """How the endpoint has answered the test event."""

    __test__ = False

    delivered: bool
    status: int | None
    error: str | None
