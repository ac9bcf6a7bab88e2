"""The account itself, its events and its webhook endpoints."""

from ..call import Call, metadata, text
from ..errors import invalid, no_such
from ..history import EventRecord
from ..listing import limit_of, page, time_bounds
from ..objects import Obj
from ..wire import bare, wire
from ..world import Transaction


def retrieve_account(call: Call) -> Obj:
    world = call.tx.world
    if call.ids and call.id != world.account_id:
        raise no_such("account", call.id, "account", 404)
    return {
        "id": world.account_id,
        "object": "account",
        "business_profile": {"mcc": None, "name": "Simulated account", "support_email": None, "url": None},
        "business_type": "company",
        "capabilities": {"card_payments": "active", "transfers": "active"},
        "charges_enabled": True,
        "controller": {"type": "account"},
        "country": "US",
        "created": world.started,
        "default_currency": "usd",
        "details_submitted": True,
        "email": "account@example.com",
        "payouts_enabled": True,
        "settings": {"dashboard": {"display_name": "Simulated account", "timezone": "Etc/UTC"}},
        "type": "standard",
    }


def shown_event(record: EventRecord) -> Obj:
    return {**record.event, "pending_webhooks": len(record.waiting)}


def retrieve_event(call: Call) -> Obj:
    record = call.tx.world.event(call.id)
    if record is None:
        raise no_such("event", call.id)
    return shown_event(record)


def list_events(call: Call) -> Obj:
    world, params = call.tx.world, call.params
    limit = limit_of(params)
    low, high = time_bounds(params.get("created"))
    types = params.get("types") or ([params["type"]] if "type" in params else None)
    delivered = params.get("delivery_success")

    def wanted(record: EventRecord) -> bool:
        if not low <= record.created <= high:
            return False
        if types is not None and not any(_covers(pattern, record.type) for pattern in types):
            return False
        return delivered is None or delivered == (not record.waiting and not record.failed)

    after, before = params.get("starting_after"), params.get("ending_before")
    if after and before:
        raise invalid("Received both starting_after and ending_before parameters.", "starting_after")
    cursor = after or before
    if cursor and cursor not in world.event_position:
        raise no_such("event", cursor, "starting_after" if after else "ending_before", 400)
    if before:
        indexes = range(world.event_position[before] + 1, len(world.events))
    else:
        top = world.event_position[after] if after else len(world.events)
        indexes = range(top - 1, -1, -1)
    found: list[EventRecord] = []
    for index in indexes:
        if wanted(world.events[index]):
            found.append(world.events[index])
            if len(found) > limit:
                break
    rows = found[:limit]
    if before:
        rows.reverse()
    return {
        "object": "list",
        "data": [shown_event(record) for record in rows],
        "has_more": len(found) > limit,
        "url": "/v1/events",
    }


def _covers(pattern: str, event_type: str) -> bool:
    return pattern in ("*", event_type) or (pattern.endswith(".*") and event_type.startswith(pattern[:-1]))


def new_endpoint(
    tx: Transaction, url: str, enabled: list[str], secret: str | None = None, **given: object
) -> Obj:
    endpoint = {
        "id": tx.new_id("we_"),
        "object": "webhook_endpoint",
        "api_version": given.get("api_version"),
        "application": None,
        "created": tx.now,
        "description": given.get("description"),
        "enabled_events": enabled,
        "livemode": False,
        "metadata": given.get("metadata") or {},
        "status": "enabled",
        "url": url,
        "_secret": secret or tx.new_id("whsec_"),
    }
    return tx.store("webhook_endpoint", endpoint)


def create_endpoint(call: Call) -> Obj:
    """The signing secret is shown once, here."""
    params = call.params
    if not params["url"].startswith(("http://", "https://")):
        raise invalid(
            "Invalid URL: An explicit scheme (such as https) must be provided.", "url", "url_invalid"
        )
    endpoint = new_endpoint(
        call.tx,
        params["url"],
        params["enabled_events"],
        api_version=params.get("api_version"),
        description=text(params.get("description")),
        metadata=metadata({}, params.get("metadata")),
    )
    return {**bare(endpoint), "secret": endpoint["_secret"]}


def retrieve_endpoint(call: Call) -> Obj:
    return wire(call.tx, call.tx.need("webhook_endpoint", call.id))


def update_endpoint(call: Call) -> Obj:
    tx, params = call.tx, call.params
    old = tx.need("webhook_endpoint", call.id)
    new = dict(old)
    for name in ("url", "enabled_events"):
        if name in params:
            new[name] = params[name]
    if "description" in params:
        new["description"] = text(params["description"])
    if "disabled" in params:
        new["status"] = "disabled" if params["disabled"] else "enabled"
    new["metadata"] = metadata(old["metadata"], params.get("metadata"))
    tx.store("webhook_endpoint", new)
    return wire(tx, new)


def delete_endpoint(call: Call) -> Obj:
    endpoint = call.tx.need("webhook_endpoint", call.id)
    call.tx.remove("webhook_endpoint", endpoint["id"])
    return {"id": endpoint["id"], "object": "webhook_endpoint", "deleted": True}


def list_endpoints(call: Call) -> Obj:
    """The account's own endpoints; those of its organisation are managed there."""

    def match(endpoint: Obj) -> bool:
        return not endpoint.get("_organisation")

    return page(call.tx, "webhook_endpoint", call.params, "/v1/webhook_endpoints", wire, match=match)
