"""The stream of a subscription: each reader sees what their role is shown, and nothing is lost between two streams."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect

from app.domain.ids import CustomerId, SubscriptionId
from app.domain.roles import Role
from app.errors import CursorExpired, RateLimited
from app.events.store import streams as store
from app.events.stream_rules import shown_to
from app.events.streams import Stream, Streams
from app.identity.principals import EndUser
from app.main import create_app
from app.settings import load_settings
from testkit.company import Company, Person, Service, new_email
from testkit.service import (
    ISSUER,
    api_process,
    as_service,
    as_user,
    in_process,
    worker_process,
)

Shown = list[dict[str, Any]]


class Reading:
    """What one reader has received."""

    def __init__(self) -> None:
        self.text = ""
        self.ended = asyncio.Event()

    @property
    def events(self) -> Shown:
        lines = self.text.splitlines()
        return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    @property
    def last_id(self) -> str:
        return [line for line in self.text.splitlines() if line.startswith("id: ")][-1].removeprefix("id: ")

    async def until(self, number: int) -> None:
        async with asyncio.timeout(10):
            while len(self.events) < number:  # noqa: ASYNC110 - the text grows in another task
                await asyncio.sleep(0.02)


def new_stream(
    company: Company, reader: Person | None, role: Role | None, begin: int, expires: float | None = None
) -> Stream:
    return Stream(
        SubscriptionId(company.subscription_id),
        None if reader is None else CustomerId(reader.customer_id),
        frozenset() if role is None else frozenset({role}),
        expires,
        begin,
    )


@asynccontextmanager
async def reading(service: Service, streams: Streams, stream: Stream) -> AsyncIterator[Reading]:
    """Reads a stream until the block ends; the first heartbeat has come."""
    found = Reading()

    async def read() -> None:
        async for message in streams.messages(service.context, stream):
            found.text += message.decode()
        found.ended.set()

    task = asyncio.create_task(read())
    async with asyncio.timeout(10):
        while ": heartbeat" not in found.text:  # noqa: ASYNC110 - the text grows in another task
            await asyncio.sleep(0.02)
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def streams() -> Streams:
    return Streams(most=2, is_draining=lambda: False)


async def filled_company(service: Service) -> Company:
    await service.fill()
    company = await service.company(users=2, seats=10)
    await service.announce()
    return company


async def test_each_role_is_shown_its_events(service: Service, streams: Streams) -> None:
    """Readings, events 14."""
    company = await filled_company(service)
    begin = await streams.begin(service.context, None)
    async with (
        reading(service, streams, new_stream(company, company.owner, Role.OWNER, begin)) as owner,
        reading(service, streams, new_stream(company, company.user, Role.USER, begin)) as user,
        reading(service, streams, new_stream(company, None, None, begin)) as key,
    ):
        await company.change(company.owner.headers, add=[new_email()])
        await service.stripe.post(f"/v1/subscriptions/{company.subscription_id}", cancel_at_period_end="true")
        await service.refresh("subscription", company.subscription_id)
        await service.announce()
        await user.until(1)
        await owner.until(4)
        await key.until(4)
    assert owner.types[:3] == key.types[:3] == ["seat.assigned", "operation.settled", "subscription.changed"]
    assert user.types == ["subscription.changed"]
    assert user.events[0]["sequence"] is None and owner.events[0]["sequence"] is not None
    assert user.events[0]["data"]["items"][0]["price_id"] is None
    assert owner.events[2]["data"]["items"][0]["price_id"] == company.price_id


async def one_person_of_two_teams(service: Service) -> tuple[Company, Company, Person]:
    """Two customers with the same product, and a person on both. The first one gives the access now."""
    first, second = await filled_company(service), await service.company()
    [item] = (await second.state())["items"]["data"]
    moved = [{"id": item["id"], "price": first.price_id, "quantity": 5}]
    await service.stripe.post(f"/v1/subscriptions/{second.subscription_id}", items=moved)
    await service.refresh("subscription", second.subscription_id)
    person = first.user
    added = await second.change(second.owner.headers, add=[person.email])
    assert added.status_code == 200, added.text
    await service.announce()
    found = await service.get(
        f"/v1/customers/{person.customer_id}/access", as_service("read"), product_id=first.product_id
    )
    if found.json()["subscription_id"] == second.subscription_id:
        first, second = second, first
    return first, second, person


@pytest.mark.parametrize("end", ["removal", "unpaid"])
async def test_owner_is_shown_no_other_subscription_when_it_gives_access_from_now_on(
    service: Service, streams: Streams, end: str
) -> None:
    """The owner of one customer's team learned on which other subscription a former member has a seat."""
    first, second, person = await one_person_of_two_teams(service)
    begin = await streams.begin(service.context, None)
    async with (
        reading(service, streams, new_stream(first, first.owner, Role.OWNER, begin)) as owner,
        reading(service, streams, new_stream(first, person, Role.USER, begin)) as own,
        reading(service, streams, new_stream(first, None, None, begin)) as key,
    ):
        if end == "removal":
            await first.change(first.owner.headers, remove=[person.customer_id])
        else:
            await first.set_status("unpaid")
        await service.announce()
        await _until_access(key, person)
        await _until_access(owner, person)
        await _until_access(own, person)
    whole = _access_of(key, person)["data"]
    assert (whole["has_access"], whole["via"], whole["subscription_id"]) == (
        True,
        "shared",
        second.subscription_id,
    )
    assert _access_of(own, person)["data"] == whole
    shown = _access_of(owner, person)
    assert shown["data"] == {
        **whole,
        "has_access": False,
        "via": None,
        "role": None,
        "subscription_id": None,
    }
    assert second.subscription_id not in owner.text
    sequences = [event["sequence"] for event in owner.events]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))


async def test_owner_is_shown_no_operation_of_another_subscription_when_it_clears_an_ended_key(
    service: Service, streams: Streams
) -> None:
    """As in the trail: the addition to another customer's team ends the membership of the ended one."""
    ended, new = await filled_company(service), await service.company()
    await service.stripe.delete(f"/v1/subscriptions/{ended.subscription_id}")
    await service.refresh("subscription", ended.subscription_id)
    await service.announce()
    begin = await streams.begin(service.context, None)
    person = ended.user
    added = await new.change(new.owner.headers, add=[person.email])
    assert added.status_code == 200, added.text
    await service.announce()
    async with (
        reading(service, streams, new_stream(ended, ended.owner, Role.OWNER, begin)) as owner,
        reading(service, streams, new_stream(ended, None, None, begin)) as key,
    ):
        await owner.until(1)
        await key.until(1)
    assert (owner.types, key.types) == (["seat.released"], ["seat.released"])
    whole, shown = key.events[0]["data"], owner.events[0]["data"]
    assert whole["operation_id"] == added.json()["operation_id"]
    assert shown == {**whole, "operation_id": None}


def _access_of(found: Reading, person: Person) -> dict[str, Any]:
    [event] = [
        event
        for event in found.events
        if event["type"] == "access.changed" and event["customer_id"] == person.customer_id
    ]
    return event


async def _until_access(found: Reading, person: Person) -> None:
    async with asyncio.timeout(10):
        while ("access.changed", person.customer_id) not in {  # noqa: ASYNC110 - the text grows in another task
            (event["type"], event["customer_id"]) for event in found.events
        }:
            await asyncio.sleep(0.02)


async def test_cut_stream_resumes_without_loss(service: Service, streams: Streams) -> None:
    company = await filled_company(service)
    begin = await streams.begin(service.context, None)
    async with reading(service, streams, new_stream(company, None, None, begin)) as first:
        await company.change(company.owner.headers, add=[new_email()])
        await service.announce()
        await first.until(3)
    await company.change(company.owner.headers, add=[new_email()])
    await service.announce()
    begin = await streams.begin(service.context, first.last_id)
    async with reading(service, streams, new_stream(company, None, None, begin)) as second:
        await second.until(3)
        await company.change(company.owner.headers, add=[new_email()])
        await service.announce()
        await second.until(6)
    sequences = [event["sequence"] for event in (*first.events, *second.events)]
    assert sequences == list(range(sequences[0], sequences[0] + 9))


@pytest.mark.parametrize("place", ["nowhere", "pl_999999", "evt_1"])
async def test_place_that_is_not_of_this_log_is_expired(
    service: Service, streams: Streams, place: str
) -> None:
    with pytest.raises(CursorExpired):
        await streams.begin(service.context, place)


async def test_stream_ends_with_the_own_event_when_the_reader_is_removed(
    service: Service, streams: Streams
) -> None:
    company = await filled_company(service)
    begin = await streams.begin(service.context, None)
    manager = new_stream(company, company.manager, Role.MANAGER, begin)
    async with reading(service, streams, manager) as found:
        began = time.monotonic()
        await company.change(company.owner.headers, remove=[company.manager.customer_id])
        await company.change(company.owner.headers, add=[new_email()])
        await service.announce()
        await asyncio.wait_for(found.ended.wait(), 5)
        assert time.monotonic() - began < 5
    assert {event["customer_id"] for event in found.events} == {company.manager.customer_id}
    assert "seat.released" in found.types


@pytest.mark.timed
async def test_stream_ends_in_two_seconds_when_no_event_tells_the_lost_role(
    service: Service, streams: Streams
) -> None:
    """The worker may be down: the role is read from the copy."""
    company = await filled_company(service)
    begin = await streams.begin(service.context, None)
    async with reading(service, streams, new_stream(company, company.user, Role.USER, begin)) as found:
        await service.fetch(
            "update customers set member_of = null, member_role = null where id = $1",
            company.user.customer_id,
        )
        await asyncio.wait_for(found.ended.wait(), 4)
    assert found.events == []


async def test_stream_ends_when_the_token_expires(service: Service, streams: Streams) -> None:
    company = await filled_company(service)
    begin = await streams.begin(service.context, None)
    stream = new_stream(company, company.owner, Role.OWNER, begin, expires=time.time() + 1.5)
    async with reading(service, streams, stream) as found:
        assert not found.ended.is_set()
        await asyncio.wait_for(found.ended.wait(), 4)
        assert time.time() - (stream.expires or 0) < 1


async def test_stream_ends_with_retry_when_the_process_drains(service: Service) -> None:
    draining = asyncio.Event()
    streams = Streams(most=2, is_draining=draining.is_set)
    company = await filled_company(service)
    begin = await streams.begin(service.context, None)
    async with reading(service, streams, new_stream(company, company.owner, Role.OWNER, begin)) as found:
        draining.set()
        await asyncio.wait_for(found.ended.wait(), 4)
    assert found.text.splitlines()[-2].startswith("retry: ")


async def _missed_three(service: Service, streams: Streams, company: Company) -> int:
    """Return the place where a stream begins that has missed the events of three additions."""
    begin = await streams.begin(service.context, None)
    for _ in range(3):
        await company.change(company.owner.headers, add=[new_email()])
    await service.announce()
    return begin


async def _first_event(messages: AsyncGenerator[bytes, None]) -> None:
    async for message in messages:
        if b"data: " in message:
            return


async def _rest(messages: AsyncGenerator[bytes, None]) -> Reading:
    found = Reading()
    async with asyncio.timeout(5):
        async for message in messages:
            found.text += message.decode()
    return found


@pytest.mark.timed
async def test_missed_events_are_withheld_when_the_role_is_lost_while_they_are_sent(
    service: Service, streams: Streams
) -> None:
    company = await filled_company(service)
    begin = await _missed_three(service, streams, company)
    messages = streams.messages(service.context, new_stream(company, company.manager, Role.MANAGER, begin))
    await _first_event(messages)
    await service.fetch(
        "update customers set member_of = null, member_role = null where id = $1",
        company.manager.customer_id,
    )
    await asyncio.sleep(0.5)
    assert (await _rest(messages)).events == []


async def test_missed_events_are_withheld_when_the_role_was_lost_before_they_are_read(
    service: Service, streams: Streams
) -> None:
    company = await filled_company(service)
    begin = await _missed_three(service, streams, company)
    messages = streams.messages(service.context, new_stream(company, company.manager, Role.MANAGER, begin))
    assert (await anext(messages)).startswith(b"retry: ")
    await company.change(company.owner.headers, remove=[company.manager.customer_id])
    await service.announce()
    shown = (await _rest(messages)).events
    assert [event["type"] for event in shown if event["type"].startswith("seat.")] == ["seat.released"]
    assert {event["customer_id"] for event in shown} == {company.manager.customer_id}


async def test_missed_events_end_when_the_token_expires(service: Service, streams: Streams) -> None:
    company = await filled_company(service)
    begin = await _missed_three(service, streams, company)
    stream = new_stream(company, company.owner, Role.OWNER, begin, expires=time.time() + 1.0)
    messages = streams.messages(service.context, stream)
    await _first_event(messages)
    sent = stream.newest
    await asyncio.sleep(1.1)
    rest = await _rest(messages)
    assert rest.events == []
    begin = await streams.begin(service.context, rest.last_id)
    assert begin == sent, "the next stream goes on after the last event that was sent"


async def test_missed_events_end_with_retry_when_the_process_drains(service: Service) -> None:
    draining = asyncio.Event()
    streams = Streams(most=2, is_draining=draining.is_set)
    company = await filled_company(service)
    begin = await _missed_three(service, streams, company)
    messages = streams.messages(service.context, new_stream(company, company.owner, Role.OWNER, begin))
    await _first_event(messages)
    draining.set()
    rest = await _rest(messages)
    assert rest.events == []
    assert rest.text.splitlines()[-2].startswith("retry: ")


async def test_waiting_events_are_withheld_when_the_token_expires_before_they_are_read(
    service: Service, streams: Streams
) -> None:
    """A reader who takes a message now and then kept a queue for itself beyond the expiry."""
    company = await filled_company(service)
    begin = await streams.begin(service.context, None)
    stream = new_stream(company, company.owner, Role.OWNER, begin, expires=time.time() + 3.0)
    messages = streams.messages(service.context, stream)
    await anext(messages)
    await anext(messages)
    for _ in range(3):
        await company.change(company.owner.headers, add=[new_email()])
    await service.announce()
    await _first_event(messages)
    assert stream.waiting
    await asyncio.sleep(max(0.0, (stream.expires or 0) - time.time()) + 0.1)
    assert (await _rest(messages)).events == []


async def test_heartbeat_has_no_later_place_than_the_events_that_wait(service: Service) -> None:
    """A look of the poller and a heartbeat fell together, and a resume after the heartbeat lost the events."""
    streams = Streams(most=2, is_draining=lambda: False, heartbeat=0.0)
    company = await filled_company(service)
    begin = await _missed_three(service, streams, company)
    end = await streams.begin(service.context, None)
    async with service.context.database.reading() as connection:
        [event, *_] = await store.events_between(connection, begin, end, [company.subscription_id])
    stream = new_stream(company, company.owner, Role.OWNER, end)
    messages = streams.messages(service.context, stream)
    assert [(await anext(messages))[:7] for _ in range(2)] == [b"retry: ", b": heart"]
    coming = asyncio.create_task(anext(messages))
    await asyncio.sleep(0)
    stream.take(event)
    assert b"data: " in await coming
    await messages.aclose()


async def test_stream_ends_when_the_link_of_its_login_ends(service: Service) -> None:
    """P3: the reads of the login were refused, and its stream went on until the token expired."""
    company = await filled_company(service)
    path, who = f"{company.path}/events", company.manager.headers
    with api_process(service.environment()) as (base_url, _):
        async with (
            httpx.AsyncClient(base_url=base_url, timeout=20) as client,
            client.stream("GET", path, headers=who) as stream,
        ):
            lines = stream.aiter_lines()
            async for line in lines:
                if line == ": heartbeat":
                    break
            link = f"/v1/customers/{company.manager.customer_id}/link"
            ended = await service.send("DELETE", link, as_service("admin"))
            assert ended.status_code == 204, ended.text
            assert (await service.get(company.path, who)).status_code == 404
            began = time.monotonic()
            async with asyncio.timeout(6):
                assert [line async for line in lines if line.startswith("event: ")] == []
            assert time.monotonic() - began < 4


@pytest.mark.timed
async def test_stream_goes_on_when_the_link_follows_from_metadata_and_is_not_stored(
    service: Service, streams: Streams
) -> None:
    """A read-only database serves a login at first sight, and cannot store its link."""
    company = await filled_company(service)
    begin = await streams.begin(service.context, None)
    logins = {
        "named": EndUser(ISSUER, company.owner.subject),
        "claimed": EndUser(ISSUER, "other", customer_claim=CustomerId(company.owner.customer_id)),
        "foreign": EndUser(ISSUER, "other"),
    }
    went_on = {}
    for name, login in logins.items():
        stream = replace(new_stream(company, company.owner, Role.OWNER, begin), login=login)
        async with reading(service, streams, stream) as found:
            await asyncio.sleep(2)
            went_on[name] = not found.ended.is_set()
    assert went_on == {"named": True, "claimed": True, "foreign": False}


def test_streams_of_a_caller_are_bounded(streams: Streams) -> None:
    with streams.place("cus_1"), streams.place("cus_1"):
        with pytest.raises(RateLimited):
            streams.place("cus_1").__enter__()
        with streams.place("cus_2"):
            pass
    with streams.place("cus_1"):
        pass


async def test_place_is_given_back_when_the_client_is_gone_before_the_first_message(
    service: Service,
) -> None:
    company = await filled_company(service)
    environment = service.environment(STREAMS_PER_CALLER="1")
    app = create_app(load_settings(environment))
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": f"{company.path}/events",
        "raw_path": f"{company.path}/events".encode(),
        "query_string": b"",
        "root_path": "",
        "server": ("testserver", 80),
        "client": ("127.0.0.1", 1),
        "headers": [(b"authorization", company.owner.headers["Authorization"].encode())],
    }

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError("nothing is received")

    async def gone(message: Any) -> None:
        raise OSError("the client is gone")

    async def heard(message: Any) -> None:
        statuses.append(message.get("status"))
        raise OSError("enough")

    statuses: list[int | None] = []
    async with in_process(app):
        for send in (gone, heard):
            with suppress(OSError, ClientDisconnect):
                await asyncio.wait_for(app({**scope, "state": {}}, receive, send), 10)
    assert statuses == [200]


@pytest.mark.parametrize(
    ("kind", "about_reader", "roles", "is_shown"),
    [
        ("seat.assigned", False, {Role.MANAGER}, True),
        ("seat.assigned", False, {Role.USER}, False),
        ("seat.assigned", True, {Role.USER}, True),
        ("access.changed", False, {Role.PAYER}, False),
        ("seats.changed", False, {Role.PAYER}, True),
        ("seats.changed", False, {Role.USER}, False),
        ("invitation.created", False, {Role.USER, Role.PAYER}, False),
        ("operation.settled", False, {Role.PAYER}, False),
        ("owner.changed", False, {Role.USER}, True),
        ("seat.released", True, set(), True),
        ("subscription.changed", False, set(), True),
    ],
)
def test_rule_of_what_is_shown(kind: str, about_reader: bool, roles: set[Role], is_shown: bool) -> None:
    event: dict[str, Any] = {
        "type": kind,
        "customer_id": "cus_1" if about_reader else "cus_2",
        "data": {"owner_id": None, "previous_owner_id": None, "items": []},
    }
    assert (shown_to(event, CustomerId("cus_1"), frozenset(roles)) is not None) == is_shown


async def test_stream_over_http_shows_a_change_and_refuses_strangers(
    service: Service,
) -> None:
    """With real processes: the API polls, the worker announces."""
    company = await filled_company(service)
    environment = service.environment()
    path = f"{company.path}/events"
    with api_process(environment) as (base_url, _), worker_process(environment):
        async with httpx.AsyncClient(base_url=base_url, timeout=20) as client:
            assert (await client.get(path, headers=as_user("nobody"))).status_code in (403, 404)
            late = await client.get(path, headers={**as_service("read"), "Last-Event-ID": "pl_99999"})
            assert (late.status_code, late.json()["code"]) == (410, "cursor_expired")
            async with client.stream("GET", path, headers=company.owner.headers) as stream:
                assert stream.headers["content-type"].startswith("text/event-stream")
                lines = stream.aiter_lines()
                async for line in lines:
                    if line == ": heartbeat":
                        break
                await company.change(company.owner.headers, add=[new_email()])
                began = time.monotonic()
                async for line in lines:
                    if line == "event: seat.assigned":
                        break
                assert time.monotonic() - began < 10
