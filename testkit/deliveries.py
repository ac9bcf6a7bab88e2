"""Deliveries as Stripe makes them, prebuilt and freshly signed; `python -m testkit.deliveries PLAN` sends them.

Every one is another event. Of each subscription's, `created` rises by three seconds from one to the next, so that
every payload is clearly newer than the last one of its object.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles

import orjson
import uvloop

from app.stripe.client import API_VERSION
from testkit.load import GRACE_SECONDS, Connection, Measured
from testkit.seeding import HOT

STEP_SECONDS = 3
ITEMS = 3


@dataclass(frozen=True, slots=True)
class Sent:
    """`last`: the number of each connection's last event, to be looked for in the database."""

    measured: Measured
    last: list[int]


@dataclass(frozen=True, slots=True)
class Plan:
    """`first` is the number of the first event; `events` are built, more than can be sent in `seconds`.

    `kind`: `subscription` renews one, `seats` changes the number of its seats too, and `customer` renames one.
    """

    port: int
    connections: int
    seconds: float
    secret: str
    first: int
    events: int
    started: int
    stride: int
    kind: str = "subscription"


class NotEnoughEvents(Exception):
    """The target was faster than foreseen, and would have been sent duplicates."""


def subscription_id(number: int) -> str:
    return f"sub_bench{number:07}"


def customer_id(number: int) -> str:
    return f"cus_bench{number:07}"


def event_id(number: int) -> str:
    return f"evt_bench{number:012}"


def body(number: int, *, started: int, stride: int, kind: str = "subscription") -> bytes:
    hot = number % HOT
    created = started + STEP_SECONDS * (number // HOT)
    is_customer = kind == "customer"
    found = {"customer": customer, "seats": with_other_seats}.get(kind, subscription)(hot * stride, created)
    event = {
        "id": event_id(number),
        "object": "event",
        "api_version": API_VERSION,
        "created": created,
        "data": {"object": found, "previous_attributes": {} if is_customer else {"items": {"data": []}}},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": f"req_{number:014}", "idempotency_key": None},
        "type": "customer.updated" if is_customer else "customer.subscription.updated",
    }
    return orjson.dumps(event)


def customer(number: int, at: int) -> dict[str, object]:
    """A whole object of Stripe's, whose name was changed in second `at`; it is on no subscription."""
    return {
        "id": customer_id(number),
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": 1_700_000_000,
        "currency": "usd",
        "default_source": None,
        "delinquent": False,
        "description": "d" * 100,
        "discount": None,
        "email": f"owner.{number:07}@example.com",
        "invoice_prefix": "BENCH",
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": f"pm_bench{number:07}",
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": {"billing_user_id": f"bench-{number}", "plan_note": "n" * 100},
        "name": f"Owner {at}",
        "next_invoice_sequence": 2,
        "phone": None,
        "preferred_locales": ["en"],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
    }


def subscription(number: int, at: int) -> dict[str, object]:
    """A whole object of Stripe's, about 6 kB, just renewed; a service needs the smaller part of it."""
    own = subscription_id(number)
    return {
        "id": own,
        "object": "subscription",
        "application": None,
        "application_fee_percent": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": at,
        "billing_cycle_anchor_config": None,
        "billing_mode": {"type": "flexible", "flexible": {"proration_discounts": "included"}},
        "billing_thresholds": None,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "cancellation_details": {"comment": None, "feedback": None, "reason": None},
        "collection_method": "charge_automatically",
        "created": 1_700_000_000,
        "currency": "usd",
        "customer": customer_id(number),
        "days_until_due": None,
        "default_payment_method": f"pm_bench{number:07}",
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "ended_at": None,
        "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
        "items": {
            "object": "list",
            "data": [_item(own, position, at) for position in range(ITEMS)],
            "has_more": False,
            "total_count": ITEMS,
            "url": f"/v1/subscription_items?subscription={own}",
        },
        "latest_invoice": f"in_bench{number:07}",
        "livemode": False,
        "metadata": {"billing_shared_subscription_owner": f"cus_bench{number:07}", "plan_note": "n" * 100},
        "next_pending_invoice_item_invoice": None,
        "on_behalf_of": None,
        "pause_collection": None,
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": None,
        "schedule": None,
        "start_date": 1_700_000_000,
        "status": "active",
        "test_clock": None,
        "transfer_data": None,
        "trial_end": None,
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
        "trial_start": None,
    }


def with_other_seats(number: int, at: int) -> dict[str, object]:
    """A renewed subscription as `testkit.seeding` makes them, with another number of seats in every step."""
    renewed = subscription(number, at)
    items = [_item(subscription_id(number), position, at) for position in range(ITEMS)]
    seats = {"price": {"id": "price_team", "product": "prod_team"}, "quantity": 5 + at // STEP_SECONDS % 97}
    return {
        **renewed,
        "items": {"object": "list", "has_more": False, "data": [{**items[0], **seats}, *items[1:]]},
    }


def _item(own: str, position: int, at: int) -> dict[str, object]:
    price = f"price_bench{position}"
    recurring = {
        "interval": "month",
        "interval_count": 1,
        "meter": None,
        "trial_period_days": None,
        "usage_type": "licensed",
    }
    return {
        "id": f"si_{own}_{position}",
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": 1_700_000_000,
        "current_period_end": at + 30 * 86_400,
        "current_period_start": at,
        "discounts": [],
        "metadata": {"note": "n" * 50},
        "plan": {
            "id": price,
            "object": "plan",
            "active": True,
            "amount": 1200,
            "amount_decimal": "1200",
            "billing_scheme": "per_unit",
            "created": 1_700_000_000,
            "currency": "usd",
            "interval": "month",
            "interval_count": 1,
            "livemode": False,
            "metadata": {"note": "n" * 50},
            "meter": None,
            "nickname": "Monthly",
            "product": f"prod_bench{position}",
            "tiers_mode": None,
            "transform_usage": None,
            "trial_period_days": None,
            "usage_type": "licensed",
        },
        "price": {
            "id": price,
            "object": "price",
            "active": True,
            "billing_scheme": "per_unit",
            "created": 1_700_000_000,
            "currency": "usd",
            "custom_unit_amount": None,
            "livemode": False,
            "lookup_key": f"lookup_{position}",
            "metadata": {"note": "n" * 50},
            "nickname": "Monthly",
            "product": f"prod_bench{position}",
            "recurring": recurring,
            "tax_behavior": "exclusive",
            "tiers_mode": None,
            "transform_quantity": None,
            "type": "recurring",
            "unit_amount": 1200,
            "unit_amount_decimal": "1200",
        },
        "quantity": 5,
        "subscription": own,
        "tax_rates": [],
    }


def delivery(content: bytes, *, port: int, secret: str) -> bytes:
    """The whole HTTP request, signed now."""
    at = int(time.time())
    digest = hmac.new(secret.encode(), b"%d." % at + content, hashlib.sha256).hexdigest()
    head = (
        f"POST /webhooks/stripe HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Stripe-Signature: t={at},v1={digest}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


class Sender(Connection):
    """Counts what it has sent; a second turn of the same events would be duplicates."""

    @property
    def used(self) -> int:
        return self._next


async def run(plan: Plan) -> Sent:
    requests = [
        delivery(
            body(number, started=plan.started, stride=plan.stride, kind=plan.kind),
            port=plan.port,
            secret=plan.secret,
        )
        for number in range(plan.first, plan.first + plan.events)
    ]
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    senders: list[Sender] = []
    for first in range(plan.connections):
        _, sender = await loop.create_connection(
            lambda first=first: Sender(requests, first, plan.connections, started + plan.seconds),  # type: ignore[misc]
            "127.0.0.1",
            plan.port,
        )
        senders.append(sender)
    async with asyncio.timeout(plan.seconds + GRACE_SECONDS):
        await asyncio.gather(*(sender.done for sender in senders))
    seconds = time.perf_counter() - started
    if max(sender.used for sender in senders) > plan.events + plan.connections:
        raise NotEnoughEvents(f"more than {plan.events} events were sent")
    latencies = [latency * 1000 for sender in senders for latency in sender.latencies]
    percentiles = quantiles(latencies, n=100) if len(latencies) > 1 else latencies * 99
    failed = sum(sender.failed for sender in senders)
    last = [plan.first + sender.used - plan.connections for sender in senders]
    return Sent(Measured(len(latencies), failed, seconds, percentiles[49], percentiles[98]), last)


def main() -> None:
    plan = Plan(**orjson.loads(Path(sys.argv[1]).read_bytes()))
    sys.stdout.buffer.write(orjson.dumps(asdict(uvloop.run(run(plan)))) + b"\n")


if __name__ == "__main__":
    main()
