"""Events are delivered to endpoints: signed, in order, at least once, and no endpoint holds up another."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from standardwebhooks.webhooks import WebhookVerificationError

from app.events import delivering, endpoints
from app.events.delivering import Deliverer, Patience, pause_after
from app.events.secrets import EndpointSecrets
from app.events.sending import WebhookSender
from app.events.store import deliveries, feed
from app.sharing.invitation_tokens import InvitationTokens
from app.sharing.sent_invitations import renderer
from testkit.company import Service, new_email
from testkit.receiver import Receiver, receiving
from testkit.service import ENCRYPTION_KEY, INVITATION_SECRET, as_service

ADMIN = as_service("admin")
PATIENCE = Patience(timeout=2.0, retry_max=3600.0, disable_after=432_000.0)


@pytest.fixture
async def deliverer(service: Service) -> AsyncIterator[Deliverer]:
    """A worker's, over the service's database; the copy is filled."""
    await service.fill()
    await service.announce()
    async with WebhookSender(live=False, seconds=PATIENCE.timeout) as sender:
        render = renderer(service.context, InvitationTokens([INVITATION_SECRET]))
        yield Deliverer(service.context, sender, EndpointSecrets([ENCRYPTION_KEY]), PATIENCE, render)


async def endpoint(service: Service, receiver: Receiver, **more: Any) -> tuple[str, str]:
    """The id and the secret of a new endpoint."""
    made = await service.send("POST", "/v1/webhook-endpoints", ADMIN, {"url": receiver.url, **more})
    assert made.status_code == httpx.codes.CREATED, made.text
    return made.json()["webhook_endpoint"]["id"], made.json()["secret"]


async def deliver(service: Service, deliverer: Deliverer) -> None:
    """Announce, and deliver until nothing is due."""
    await service.announce()
    while True:
        await deliverer.begin_what_is_due(asyncio.Event())
        if deliverer.running:
            await asyncio.wait(set(deliverer.running))
            continue
        async with service.context.database.connection() as connection:
            if not await deliveries.open_endpoints(connection):
                return


async def make_due(service: Service) -> None:
    await service.fetch("update webhook_queues set due_at = clock_timestamp()")


async def test_events_are_delivered_signed_and_in_order(
    service: Service, deliverer: Deliverer, receiver: Receiver
) -> None:
    """Verified by the library's own verifier."""
    _, secret = await endpoint(service, receiver)
    company = await service.company(users=2)
    await service.announce()
    await company.change(company.owner.headers, add=[new_email()])
    await deliver(service, deliverer)
    own = [event for event in receiver.events if event["subscription_id"] == company.subscription_id]
    assert [event["sequence"] for event in own] == list(range(1, len(own) + 1))
    read = await service.get("/v1/events", as_service("read"), limit=100)
    assert [event["id"] for event in own] == [
        event["id"] for event in read.json()["data"] if event["subscription_id"] is not None
    ]
    for one in receiver.received:
        assert one.verified(secret)["id"] == one.headers["webhook-id"]
        with pytest.raises(WebhookVerificationError):
            one.verified("whsec_" + "A" * 43 + "=")


async def test_an_endpoint_begins_now_or_at_its_place_and_gets_its_types(
    service: Service, deliverer: Deliverer, receiver: Receiver
) -> None:
    company = await service.company()
    await service.announce()
    await endpoint(service, receiver, types=["seat.assigned"])
    await deliver(service, deliverer)
    assert receiver.events == []
    async with receiving() as early:
        await endpoint(service, early, after="pl_0")
        await company.change(company.owner.headers, add=[new_email()])
        await deliver(service, deliverer)
        assert early.events[0]["type"] in ("sync.completed", "subscription.changed")
        assert "sync.completed" in [event["type"] for event in early.events]
    assert [event["type"] for event in receiver.events] == ["seat.assigned"]


async def test_a_failing_event_holds_its_own_queue_and_no_other(
    service: Service, deliverer: Deliverer, receiver: Receiver
) -> None:
    first, second = await service.company(), await service.company()
    await service.announce()
    await endpoint(service, receiver)
    receiver.status = lambda one: 500 if one.event["subscription_id"] == first.subscription_id else 200
    for company in (first, second):
        await company.change(company.owner.headers, add=[new_email()])
    await deliver(service, deliverer)
    tried = [event["id"] for event in receiver.events if event["subscription_id"] == first.subscription_id]
    assert len(tried) == 1, "only the head"
    assert len([e for e in receiver.events if e["subscription_id"] == second.subscription_id]) == 3
    receiver.status = lambda _: 200
    await make_due(service)
    await deliver(service, deliverer)
    own = [event for event in receiver.events if event["subscription_id"] == first.subscription_id]
    assert own[0]["id"] == own[1]["id"] == tried[0]
    sequences = [event["sequence"] for event in own[1:]]
    assert sequences == list(range(sequences[0], sequences[0] + 3))


async def test_tries_are_listed_and_a_delivery_is_sent_again(
    service: Service, deliverer: Deliverer, receiver: Receiver
) -> None:
    endpoint_id, _ = await endpoint(service, receiver, types=["seat.assigned"])
    company = await service.company(users=0)
    receiver.status = lambda _: 503
    await deliver(service, deliverer)
    path = f"/v1/webhook-endpoints/{endpoint_id}/deliveries"
    (delivery,) = (await service.get(path, ADMIN)).json()["data"]
    assert (delivery["state"], delivery["attempts"][0]["status"]) == ("pending", 503)
    assert delivery["attempts"][0]["error"] == "answered 503"
    receiver.status = lambda _: 200
    again = await service.send("POST", f"{path}/{delivery['id']}/redeliver", ADMIN)
    assert again.status_code == httpx.codes.ACCEPTED, again.text
    await deliver(service, deliverer)
    (delivery,) = (await service.get(path, ADMIN)).json()["data"]
    assert delivery["state"] == "delivered"
    assert {one.headers["webhook-id"] for one in receiver.received} == {delivery["event_id"]}
    assert company.subscription_id == receiver.events[0]["subscription_id"]


async def test_secret_is_shown_once_encrypted_and_rotated_with_an_overlap(
    service: Service, deliverer: Deliverer, receiver: Receiver
) -> None:
    body = {"url": receiver.url}
    made = [
        await service.send("POST", "/v1/webhook-endpoints", ADMIN, body, Idempotency_Key="one")
        for _ in range(2)
    ]
    endpoint_id, secret = made[0].json()["webhook_endpoint"]["id"], made[0].json()["secret"]
    assert made[1].json() == {"webhook_endpoint": made[0].json()["webhook_endpoint"], "secret": None}
    stored = await service.fetch("select secret from webhook_endpoints")
    assert len(stored) == 1 and secret not in stored[0]["secret"]
    kept = await service.fetch("select body from idempotency_keys where body is not null")
    assert all(secret.encode() not in row["body"] for row in kept)
    path = f"/v1/webhook-endpoints/{endpoint_id}"
    rotated = await service.send("POST", f"{path}/rotate-secret", ADMIN, {"overlap_seconds": 60})
    new = rotated.json()["secret"]
    company = await service.company(users=0)
    await deliver(service, deliverer)
    assert all(one.verified(secret) == one.verified(new) for one in receiver.received)
    await service.send("POST", f"{path}/rotate-secret", ADMIN, {"overlap_seconds": 0})
    receiver.received.clear()
    await company.change(company.owner.headers, add=[new_email()])
    await deliver(service, deliverer)
    for one in receiver.received:
        with pytest.raises(WebhookVerificationError):
            one.verified(new)


async def test_endpoint_is_disabled_when_one_event_fails_for_long_and_resumes_without_a_gap(
    service: Service, deliverer: Deliverer, receiver: Receiver
) -> None:
    """The design: five days of failure, with the reason; nothing is skipped."""
    company = await service.company(users=0)
    await service.announce()
    endpoint_id, _ = await endpoint(service, receiver)
    receiver.status = lambda _: 500
    await company.change(company.owner.headers, add=[new_email()])
    await deliver(service, deliverer)
    await service.fetch(
        "update webhook_queues set failing_since = failing_since - interval '5 days 1 second'"
    )
    await make_due(service)
    await deliver(service, deliverer)
    path = f"/v1/webhook-endpoints/{endpoint_id}"
    shown = (await service.get(path, ADMIN)).json()["webhook_endpoint"]
    assert shown["status"] == "disabled"
    assert receiver.events[0]["id"] in shown["disabled_reason"]
    assert "answered 500" in shown["disabled_reason"]
    receiver.received.clear()
    receiver.status = lambda _: 200
    await company.change(company.owner.headers, add=[new_email()])
    await deliver(service, deliverer)
    assert receiver.received == []
    enabled = await service.send("PATCH", path, ADMIN, {"status": "enabled"})
    assert enabled.json()["webhook_endpoint"]["disabled_reason"] is None
    await deliver(service, deliverer)
    sequences = [event["sequence"] for event in receiver.events]
    assert sequences == list(range(sequences[0], sequences[0] + 6))


async def test_endpoint_is_disabled_at_once_when_it_answers_gone(
    service: Service, deliverer: Deliverer, receiver: Receiver
) -> None:
    endpoint_id, _ = await endpoint(service, receiver)
    receiver.status = lambda _: 410
    await service.company(users=0)
    await deliver(service, deliverer)
    shown = (await service.get(f"/v1/webhook-endpoints/{endpoint_id}", ADMIN)).json()["webhook_endpoint"]
    assert (shown["status"], shown["disabled_reason"]) == ("disabled", "It answered 410 Gone.")
    assert len(receiver.received) == 1


async def test_enabling_is_refused_when_the_events_are_not_kept(
    service: Service, deliverer: Deliverer, receiver: Receiver
) -> None:
    endpoint_id, _ = await endpoint(service, receiver)
    path = f"/v1/webhook-endpoints/{endpoint_id}"
    await service.send("PATCH", path, ADMIN, {"status": "disabled"})
    await service.company(users=0)
    await deliver(service, deliverer)
    await service.fetch("update events set created = created - interval '40 days'")
    async with service.context.database.connection() as connection:
        assert await feed.purge(connection, days=35)
    refused = await service.send("PATCH", path, ADMIN, {"status": "enabled"})
    assert (refused.status_code, refused.json()["code"]) == (410, "cursor_expired")
    place = (await service.get("/v1/events", as_service("read"))).json()["next_cursor"]
    taken = await service.send("PATCH", path, ADMIN, {"status": "enabled", "after": place})
    assert taken.status_code == httpx.codes.OK, taken.text


async def test_events_that_an_enabled_endpoint_waits_for_are_kept(
    service: Service, deliverer: Deliverer, receiver: Receiver
) -> None:
    await endpoint(service, receiver)
    receiver.status = lambda _: 500
    await service.company(users=0)
    await deliver(service, deliverer)
    await service.fetch("update events set created = created - interval '40 days'")
    async with service.context.database.connection() as connection:
        assert await feed.purge(connection, days=35) == 1, "only the end of the fill, which came before"
        assert await feed.purge(connection, days=35) == 0


async def test_address_and_token_of_an_invitation_are_only_in_what_is_sent(
    service: Service, deliverer: Deliverer, receiver: Receiver
) -> None:
    """Readings, events 11: rendered at each sending, with the current generation; null once it has ended."""
    company = await service.company()
    await service.announce()
    await endpoint(service, receiver, types=["invitation.created"])
    email = new_email()
    made = await company.invite(as_service("write", acting_for=company.owner.customer_id), email)
    await deliver(service, deliverer)
    (sent,) = receiver.events
    assert (sent["data"]["email"], sent["data"]["token"]) == (email, made.json()["token"])
    read = await service.get("/v1/events", as_service("read"), limit=100)
    assert email not in read.text and made.json()["token"] not in read.text
    again = await company.invite(company.owner.headers)
    path = f"{company.path}/invitations/{again.json()['invitation']['id']}"
    await service.send("DELETE", path, company.owner.headers)
    await deliver(service, deliverer)
    assert (receiver.events[-1]["data"]["email"], receiver.events[-1]["data"]["token"]) == (None, None)


async def test_test_event_is_sent_at_once(service: Service, deliverer: Deliverer, receiver: Receiver) -> None:
    endpoint_id, secret = await endpoint(service, receiver)
    shown = await service.send("POST", f"/v1/webhook-endpoints/{endpoint_id}/test", ADMIN)
    assert shown.json() == {"delivered": True, "status": 204, "error": None}
    event = receiver.received[0].verified(secret)
    assert (event["type"], event["subscription_id"], event["sequence"]) == ("endpoint.test", None, None)
    receiver.seconds = 5.0
    service.client._transport.app.state.sender._seconds = 0.2  # type: ignore[attr-defined]
    late = await service.send("POST", f"/v1/webhook-endpoints/{endpoint_id}/test", ADMIN)
    assert late.json() == {"delivered": False, "status": None, "error": "no answer within 0.2 s"}


async def test_one_request_for_a_subscription_and_eight_for_an_endpoint_are_in_flight(
    service: Service, deliverer: Deliverer, receiver: Receiver
) -> None:
    """Readings, events 13."""
    await endpoint(service, receiver, types=["subscription.changed", "owner.changed"])
    receiver.seconds = 0.2
    for number in range(12):
        await service.fetch(
            """insert into events (position, id, type, created, subscription_id, sequence, data)
            select 1000 + 2 * $1::int + n, 'evt_' || $1 || n, t, now(), 'sub_' || $1, n, d
            from (values (1, 'subscription.changed', '{"status": "active", "cancel_at": null, "items": [],
                    "cancel_at_period_end": false, "ended_at": null, "source": "api", "operation_id": null}'::jsonb),
                (2, 'owner.changed', '{"owner_id": null, "previous_owner_id": null, "source": "api",
                    "operation_id": null}')) v(n, t, d)""",
            number,
        )
    await service.fetch("update event_log set position = 2000")
    await deliver(service, deliverer)
    assert len(receiver.received) == 24
    assert receiver.most_at_once == deliveries.IN_FLIGHT
    for number in range(12):
        own = [e["sequence"] for e in receiver.events if e["subscription_id"] == f"sub_{number}"]
        assert own == [1, 2]


async def test_success_reads_few_rows_when_thousands_of_events_and_queues_are_of_others(
    service: Service, deliverer: Deliverer, receiver: Receiver
) -> None:
    """Decision 0053: the size of the backlog does not change the cost of a try."""
    endpoint_id, _ = await endpoint(service, receiver)
    await service.fetch(
        """insert into events (position, id, type, created, subscription_id, sequence, data)
        select n, 'evt_' || n, 'access.changed', now(), case when n > 1010 then 'sub_large' else 'sub_' || n end,
            case when n > 1010 then n else 1 end, '{}' from generate_series(1001, 5000) n"""
    )
    await service.fetch(
        """insert into webhook_queues (endpoint_id, subscription_id, delivered_to, next_position, due_at, failures)
        select $1, 'sub_idle' || n, 0, null, now(), 0 from generate_series(1, 3000) n""",
        endpoint_id,
    )
    await service.fetch("update event_log set position = 5000")
    async with service.context.database.connection() as connection:
        await deliveries.enqueue(connection, endpoint_id)
    await service.fetch("analyze events, webhook_queues")
    token = uuid4()
    read = """select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint from pg_stat_xact_user_tables
        where relname in ('events', 'webhook_queues')"""
    async with service.context.database.transaction() as connection:
        before = await connection.fetchval(read)
        leased = await deliveries.lease(connection, endpoint_id, token, seconds=30.0)
        for queue in set(leased) - {"sub_large"}:
            sent = await deliveries.head(connection, endpoint_id, queue, token)
            assert sent is not None
            assert not await deliveries.succeeded(connection, sent, token, seconds=30.0)
        rows = await connection.fetchval(read) - before
    assert len(leased) == deliveries.IN_FLIGHT
    assert rows < 100


async def test_success_does_not_wait_for_the_disk_and_nothing_else_changes(
    service: Service, deliverer: Deliverer, receiver: Receiver
) -> None:
    """Decision 0053: only the transaction of a success may be lost in a crash, and its event is sent again."""
    endpoint_id, _ = await endpoint(service, receiver)
    await service.company(users=0)
    await service.announce()
    token = uuid4()
    async with service.context.database.connection() as connection:
        usual = await connection.fetchval("show synchronous_commit")
        await deliveries.enqueue(connection, endpoint_id)
        [queue] = await deliveries.lease(connection, endpoint_id, token, seconds=30.0)
        sent = await deliveries.head(connection, endpoint_id, queue, token)
        assert sent is not None
        async with connection.transaction():
            await connection.execute("set local synchronous_commit = on")
            assert await deliveries.succeeded(connection, sent, token, seconds=30.0)
            assert await connection.fetchval("show synchronous_commit") == "off"
        assert await connection.fetchval("show synchronous_commit") == usual


async def test_slow_endpoint_does_not_hold_up_another(
    service: Service, deliverer: Deliverer, receiver: Receiver
) -> None:
    company = await service.company(users=0)
    await service.announce()
    await endpoint(service, receiver)
    async with receiving() as slow:
        slow.seconds = 30.0
        await endpoint(service, slow)
        await company.change(company.owner.headers, add=[new_email()])
        await service.announce()
        stop = asyncio.Event()
        working = asyncio.create_task(deliverer.keep_delivering(stop))
        async with asyncio.timeout(20):
            while len(receiver.received) < 3:  # noqa: ASYNC110 - the receiver has no event of its own
                await asyncio.sleep(0.02)
        assert slow.received == []
        stop.set()
        await working


async def test_queue_goes_on_when_a_process_was_killed_in_a_try(
    service: Service, deliverer: Deliverer, receiver: Receiver
) -> None:
    """Its lease runs out, and another process tries the same event again."""
    company = await service.company(users=0)
    await service.announce()
    await endpoint(service, receiver)
    await company.change(company.owner.headers, add=[new_email()])
    await service.announce()
    receiver.seconds = 5.0
    await deliverer.begin_what_is_due(asyncio.Event())
    await asyncio.sleep(0.3)
    for task in set(deliverer.running):
        task.cancel()
    await asyncio.wait(set(deliverer.running))
    receiver.seconds = 0.0
    await deliver(service, deliverer)
    assert receiver.received == [], "the lease holds"
    await service.fetch(
        "update webhook_queues set lease_until = clock_timestamp() where lease_until is not null"
    )
    await deliver(service, deliverer)
    assert {e["type"] for e in receiver.events} == {"seat.assigned", "operation.settled", "access.changed"}
    assert len(receiver.received) == 3


async def test_event_is_not_skipped_when_the_queue_is_ahead_of_the_log_that_was_taken_in(
    service: Service, deliverer: Deliverer, receiver: Receiver
) -> None:
    """A queue goes on to events that no look has put there yet. The next look begins with these, and then new ones."""
    company = await service.company(users=0)
    await service.announce()
    await endpoint(service, receiver)
    await company.change(company.owner.headers, add=[new_email()])
    await service.announce()
    receiver.seconds = 0.2
    await deliverer.begin_what_is_due(asyncio.Event())
    await company.change(company.owner.headers, add=[new_email()])
    await service.announce()
    await asyncio.wait(set(deliverer.running))
    assert len(receiver.received) == 6, "those of both changes"
    await company.change(company.owner.headers, add=[new_email()])
    await deliver(service, deliverer)
    sequences = [event["sequence"] for event in receiver.events]
    assert sequences == list(range(sequences[0], sequences[0] + 9))


async def deliveries_and_queues(service: Service) -> tuple[int, int]:
    [row] = await service.fetch(
        """select (select count(*) from webhook_deliveries) as deliveries,
            (select count(*) from webhook_queues) as queues"""
    )
    return int(row["deliveries"]), int(row["queues"])


async def test_endpoint_is_gone_at_once_and_a_worker_deletes_what_it_has_left(
    service: Service, deliverer: Deliverer, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One statement deleted all deliveries, and that of a busy endpoint ended at its limit."""
    (gone, _), (kept, _) = await endpoint(service, receiver), await endpoint(service, receiver)
    company = await service.company(users=0)
    await deliver(service, deliverer)
    (of_both, queues) = await deliveries_and_queues(service)
    await service.fetch(
        """insert into webhook_deliveries (id, endpoint_id, position, event_id, state, attempts)
        select 'dl_' || n, $1, 100000 + n, 'evt_' || n, 'delivered', '[]' from generate_series(1, 2500) n""",
        gone,
    )
    await company.change(company.owner.headers, add=[new_email()])
    await service.announce()
    receiver.seconds = 0.3
    await deliverer.begin_what_is_due(asyncio.Event())
    monkeypatch.setattr(endpoints, "DELETE_SECONDS", 0.0)
    deleted = await service.send("DELETE", f"/v1/webhook-endpoints/{gone}", ADMIN)
    assert deleted.status_code == httpx.codes.NO_CONTENT, deleted.text
    for path in (f"/v1/webhook-endpoints/{gone}", f"/v1/webhook-endpoints/{gone}/deliveries"):
        assert (await service.get(path, ADMIN)).status_code == httpx.codes.NOT_FOUND
    await asyncio.wait(set(deliverer.running))
    await deliver(service, deliverer)
    assert (await deliveries_and_queues(service))[0] > 1500, "the request had no time for them"
    assert await endpoints.forget_deleted(service.context) > 1500
    left = await service.fetch(
        "select endpoint_id from webhook_deliveries union select endpoint_id from webhook_queues"
    )
    assert [row["endpoint_id"] for row in left] == [kept]
    assert await deliveries_and_queues(service) == (of_both // 2 + 3, queues // 2)
    assert await endpoints.forget_deleted(service.context) == 0


async def test_endpoints_are_for_admin_keys_only(service: Service) -> None:
    for who in (as_service("write"), as_service("admin", acting_for="cus_1")):
        refused = await service.get("/v1/webhook-endpoints", who)
        assert (refused.status_code, refused.json()["code"]) == (403, "scope_required")


@pytest.mark.parametrize(
    ("failures", "retry_after", "least", "most"),
    [(1, None, 4, 5), (2, None, 8, 10), (30, None, 2880, 3600), (1, 60.0, 60, 60), (1, 9999.0, 3600, 3600)],
)
def test_pauses_grow_and_honour_retry_after(
    failures: int, retry_after: float | None, least: float, most: float
) -> None:
    for jitter in (0.0, 0.5, 1.0):
        assert least <= pause_after(failures, PATIENCE, retry_after=retry_after, jitter=jitter) <= most
    assert delivering.FIRST_PAUSE == 5.0
