"""`coseat events …` as an operator runs it: exit codes, reports, and what a worker then does."""

import re

import httpx

from app.events.delivering import Deliverer
from testkit.company import Service, new_email
from testkit.operator import Operator
from testkit.receiver import Receiver
from testkit.service import as_service
from tests.events.test_feed import read_all
from tests.events.test_webhooks import deliver, deliverer, endpoint

__all__ = ["deliverer"]


async def test_operator_finds_an_event_and_sends_it_again_when_a_receiver_lost_it(
    service: Service, deliverer: Deliverer, receiver: Receiver
) -> None:
    operator = Operator(service.stripe, service.database_url)
    assert await operator.report("events", "endpoints") == (0, {"endpoints": []})
    code, made = await operator.report(
        "events", "endpoints", "create", receiver.url, "--type", "seat.assigned"
    )
    endpoint_id, secret = made["endpoint"]["id"], made["secret"]
    assert code == 0 and made["endpoint"]["types"] == ["seat.assigned"]
    company = await service.company(users=0)
    receiver.status = lambda _: 503
    await deliver(service, deliverer)
    await company.change(company.owner.headers, add=[new_email()])
    await deliver(service, deliverer)

    code, listed = await operator.report(
        "events", "list", "--type", "seat.assigned", "--subscription", company.subscription_id, "--limit", "1"
    )
    [newest] = listed["events"]
    read = await read_all(service, subscription_id=company.subscription_id, types=["seat.assigned"])
    assert code == 0 and newest["id"] == read[-1]["id"] and newest["sequence"] == read[-1]["sequence"]
    first = read[0]["id"]
    code, shown = await operator.report("events", "show", first)
    [delivery] = shown["deliveries"]
    assert (delivery["endpoint_id"], delivery["state"]) == (endpoint_id, "pending")
    assert delivery["attempts"][0]["status"] == httpx.codes.SERVICE_UNAVAILABLE
    code, out, _ = await operator.run("events", "endpoints")
    assert code == 0 and endpoint_id in out and secret not in out
    assert re.search(r"waits for \d+ s; [1-9]\d* failures", out), out

    receiver.status = lambda _: 200
    assert await operator.report("events", "redeliver", first) == (
        0,
        {"event_id": first, "endpoints": [endpoint_id]},
    )
    before = len(receiver.received)
    await deliver(service, deliverer)
    assert receiver.received[before].headers["webhook-id"] == first
    assert receiver.received[before].verified(secret)["id"] == first
    code, report = await operator.report("events", "show", "evt_000000000000000000000000")
    assert (code, report["error"]) == (1, "not_found")
    code, report = await operator.report("events", "redeliver", newest["id"], "--endpoint", "we_" + "0" * 24)
    assert (code, report["error"]) == (1, "not_found")


async def test_operator_manages_endpoints_when_no_admin_key_is_at_hand(
    service: Service, deliverer: Deliverer, receiver: Receiver
) -> None:
    operator = Operator(service.stripe, service.database_url)
    endpoint_id, secret = await endpoint(service, receiver)
    tested = {"delivered": True, "status": 204, "error": None}
    assert await operator.report("events", "endpoints", "test", endpoint_id) == (0, tested)
    receiver.status = lambda _: 500
    code, report = await operator.report("events", "endpoints", "test", endpoint_id)
    assert (code, report["status"]) == (1, 500)
    receiver.status = lambda _: 204
    code, rotated = await operator.report(
        "events", "endpoints", "rotate-secret", endpoint_id, "--overlap", "0"
    )
    assert code == 0 and rotated["secret"] != secret
    code, report = await operator.report("events", "endpoints", "disable", endpoint_id)
    assert (code, report["status"], report["disabled_reason"]) == (0, "disabled", "Disabled by an operator.")
    await service.company(users=0)
    receiver.received.clear()
    await deliver(service, deliverer)
    assert receiver.received == []
    code, report = await operator.report("events", "endpoints", "enable", endpoint_id)
    assert (code, report["status"]) == (0, "enabled")
    await deliver(service, deliverer)
    assert receiver.received[0].verified(rotated["secret"])
    assert await operator.report("events", "endpoints", "delete", endpoint_id) == (
        0,
        {"deleted": endpoint_id},
    )
    code, report = await operator.report("events", "endpoints", "enable", endpoint_id)
    assert (code, report["error"]) == (1, "not_found")


async def test_operator_lets_events_jump_when_the_database_was_restored(
    service: Service, deliverer: Deliverer
) -> None:
    operator = Operator(service.stripe, service.database_url)
    code, report = await operator.report("events", "restored")
    assert code == 0 and report["sequence_floor"] > 1_700_000_000_000_000
    [opening] = await read_all(service)
    assert opening["id"] == report["event_id"] and opening["type"] == "sync.completed"
    old = await service.get("/v1/events", as_service("read"), after="pl_1")
    assert old.status_code == httpx.codes.GONE


async def test_endpoint_is_refused_when_a_type_is_misspelt(service: Service, receiver: Receiver) -> None:
    """It was stored, and the API could then list no endpoint at all."""
    operator = Operator(service.stripe, service.database_url)
    code, report = await operator.report(
        "events", "endpoints", "create", receiver.url, "--type", "seat.asigned"
    )
    assert (code, report["error"]) == (1, "invalid_request") and "seat.assigned" in report["detail"]
    assert (await service.get("/v1/webhook-endpoints", as_service("admin"))).json()["data"] == []


async def test_list_is_refused_when_a_type_is_misspelt(service: Service) -> None:
    """It said that there are no such events."""
    operator = Operator(service.stripe, service.database_url)
    code, report = await operator.report(
        "events", "list", "--type", "seat.assigned", "--type", "seat.asigned"
    )
    assert (code, report["error"]) == (1, "invalid_request") and "seat.asigned is no type" in report["detail"]


async def test_event_is_found_by_an_index_when_the_log_is_long(service: Service) -> None:
    await service.fetch(
        """insert into events (position, id, type, created, data)
        select n, 'evt_' || md5(n::text), 'seat.assigned', clock_timestamp(), '{}' from generate_series(1, 20000) n"""
    )
    await service.fetch("analyze events")
    plan = await service.fetch("explain select * from events where id = 'evt_' || md5('7')")
    assert "Index Scan using ix_events_id" in plan[0][0], plan
