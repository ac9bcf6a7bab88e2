"""What the commands `coseat events …` do and print."""

from __future__ import annotations

import json
from datetime import datetime
from secrets import token_hex
from typing import Any, Literal

import orjson

from app.context import Context
from app.domain.snapshots import JsonObject
from app.events import endpoints
from app.events.endpoints import Changes, NewEndpoint
from app.events.history import DeliveredEvent
from app.events.secrets import EndpointSecrets
from app.events.sending import Sent, WebhookSender
from app.events.store.endpoints import Endpoint
from app.settings import Settings


async def create(
    context: Context,
    settings: Settings,
    url: str,
    types: list[str] | None,
    description: str | None,
    after: str | None,
) -> tuple[Endpoint, str]:
    """Create an endpoint, and return it with its secret. Raises BillingError."""
    asked = NewEndpoint(url, types, description, after)
    secrets = EndpointSecrets(settings.encryption_keys)
    return await endpoints.create(
        context, secrets, asked, f"we_{token_hex(12)}", live=settings.stripe_livemode
    )


async def rotate(
    context: Context, settings: Settings, endpoint_id: str, overlap: float
) -> tuple[Endpoint, str]:
    """Make a new secret, and return it with its endpoint. Raises BillingError."""
    return await endpoints.rotate(
        context, EndpointSecrets(settings.encryption_keys), endpoint_id, overlap=overlap
    )


async def change(
    context: Context,
    settings: Settings,
    endpoint_id: str,
    status: Literal["enabled", "disabled"],
    after: str | None,
) -> Endpoint:
    """Enable or disable an endpoint. Raises BillingError."""
    asked = Changes(frozenset({"status"}), status=status, after=after)
    return await endpoints.change(context, endpoint_id, asked, live=settings.stripe_livemode)


async def send_test(context: Context, settings: Settings, endpoint_id: str) -> Sent:
    """Send the event that only tests an endpoint. Raises BillingError."""
    async with WebhookSender(live=settings.stripe_livemode, seconds=settings.webhook_timeout) as sender:
        return await endpoints.send_test(
            context, EndpointSecrets(settings.encryption_keys), sender, endpoint_id
        )


def print_report(report: Any, text: str, *, as_json: bool) -> None:
    """Print a report as one JSON line, or as text."""
    print(orjson.dumps(report).decode() if as_json else text)


def print_events(events: list[JsonObject], *, as_json: bool) -> None:
    """Print events, each on one line."""
    lines = [
        f"{_moment(one['created'])}  {one['id']}  {one['type']:<22} {one['subscription_id'] or '-'}"
        f"  {one['sequence'] or '-'}  {one['customer_id'] or '-'}"
        for one in events
    ]
    print_report({"events": events}, "\n".join(lines) or "There are no such events.", as_json=as_json)


def print_event(found: DeliveredEvent, *, as_json: bool) -> None:
    """Print an event with its data, and each try to deliver it."""
    event = {**found.event, "created": _moment(found.event["created"])}
    lines = [json.dumps(event, indent=2)]
    for delivery in found.deliveries:
        lines.append(f"{delivery['endpoint_id']}: {delivery['state']} ({delivery['id']})")
        lines += [
            f"  {attempt['at']}  {attempt['status'] or '-'}  {attempt['error'] or 'taken'}"
            for attempt in delivery["attempts"]
        ]
    if not found.deliveries:
        lines.append("It was sent to no endpoint.")
    print_report({"event": found.event, "deliveries": found.deliveries}, "\n".join(lines), as_json=as_json)


def print_endpoints(found: list[JsonObject], *, as_json: bool) -> None:
    """Print endpoints, each on one line."""
    lines = []
    for one in found:
        age = one["oldest_seconds"]
        waiting = "nothing waits" if age is None else f"the oldest waits for {age:.0f} s"
        status = one["status"] if one["disabled_reason"] is None else f"disabled: {one['disabled_reason']}"
        lines.append(f"{one['id']}  {one['url']}  {status}; {waiting}; {one['failures']} failures")
    print_report({"endpoints": found}, "\n".join(lines) or "There is no endpoint.", as_json=as_json)


def print_secret(made: tuple[Endpoint, str], *, as_json: bool) -> None:
    """Print an endpoint and its secret, which is shown once."""
    endpoint, secret = made
    report = {"endpoint": endpoints.shown(endpoint), "secret": secret}
    print_report(report, f"{endpoint.id}  {endpoint.url}\nSecret, shown once: {secret}", as_json=as_json)


def _moment(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
