"""The feed and the snapshot: a cursor that skips nothing, and a state to begin with."""

from typing import Any

import httpx

from app.events.store import feed
from testkit.company import Service, new_email
from testkit.event_fold import Beginner, folded, mismatches, truth
from testkit.service import as_service

READ = as_service("read")


async def read_all(service: Service, after: str | None = None, **query: Any) -> list[dict[str, Any]]:
    """Every event after a place, page by page."""
    found: list[dict[str, Any]] = []
    while True:
        given = {} if after is None else {"after": after}
        page = await service.get("/v1/events", READ, limit=7, **given, **query)
        assert page.status_code == httpx.codes.OK, page.text
        found += page.json()["data"]
        after = page.json()["next_cursor"]
        if not page.json()["has_more"]:
            return found


async def read_snapshot(service: Service, limit: int = 100) -> tuple[list[dict[str, Any]], str]:
    rows: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = await service.get("/v1/events/snapshot", READ, limit=limit, **cursor)
        assert page.status_code == httpx.codes.OK, page.text
        rows += page.json()["data"]
        if not page.json()["has_more"]:
            return rows, page.json()["after"]
        cursor = {"cursor": page.json()["next_cursor"]}


async def filled(service: Service) -> None:
    await service.fill()
    await service.announce()


async def test_feed_gives_every_event_once_in_pages(service: Service) -> None:
    await filled(service)
    company = await service.company(users=3)
    await company.change(company.owner.headers, add=[new_email()])
    await service.announce()
    found = await read_all(service)
    assert found[0]["type"] == "sync.completed"
    assert len({event["id"] for event in found}) == len(found)
    own = [event for event in found if event["subscription_id"] == company.subscription_id]
    assert [event["sequence"] for event in own] == list(range(1, len(own) + 1))
    assert set(own[0]) == {
        "id",
        "type",
        "created",
        "sequence",
        "previous_sequence",
        "subscription_id",
        "customer_id",
        "data",
    }


async def test_feed_selects_types_and_a_subscription(service: Service) -> None:
    await filled(service)
    first, second = await service.company(), await service.company()
    await service.announce()
    chosen = await read_all(service, types=["seat.assigned", "owner.changed"])
    assert {event["type"] for event in chosen} == {"seat.assigned", "owner.changed"}
    of_one = await read_all(service, subscription_id=second.subscription_id)
    assert {event["subscription_id"] for event in of_one} == {second.subscription_id}
    assert first.subscription_id != second.subscription_id


async def test_a_page_that_finds_few_of_its_types_says_where_to_go_on(
    service: Service, monkeypatch: Any
) -> None:
    await filled(service)
    await service.company()
    await service.announce()
    monkeypatch.setattr(feed, "_PAGE", feed._PAGE.replace(str(feed.LOOKED_AT), "3"))
    monkeypatch.setattr(feed, "_LOOKED_TO", feed._LOOKED_TO.replace(str(feed.LOOKED_AT), "3"))
    page = (await service.get("/v1/events", READ, types=["seat.assigned"])).json()
    assert (page["data"], page["has_more"]) == ([], True)
    found = await read_all(service, types=["seat.assigned"])
    assert len(found) == 2


async def test_the_last_page_has_a_place_from_which_news_are_read(service: Service) -> None:
    await filled(service)
    company = await service.company()
    await service.announce()
    page = (await service.get("/v1/events", READ, limit=100)).json()
    again = (await service.get("/v1/events", READ, after=page["next_cursor"])).json()
    assert (again["data"], again["has_more"], again["next_cursor"]) == ([], False, page["next_cursor"])
    await company.change(company.owner.headers, add=[new_email()])
    await service.announce()
    news = (await service.get("/v1/events", READ, after=page["next_cursor"])).json()["data"]
    assert [event["type"] for event in news] == ["seat.assigned", "operation.settled", "access.changed"]


async def test_feed_is_for_service_keys_only(service: Service) -> None:
    """Readings, events 9: end users and acting keys are refused."""
    company = await service.company()
    for who in (company.owner.headers, as_service("read", acting_for=company.owner.customer_id)):
        for path in ("/v1/events", "/v1/events/snapshot"):
            refused = await service.get(path, who)
            assert (refused.status_code, refused.json()["code"]) == (403, "scope_required")


async def test_feed_refuses_what_is_no_place_and_no_type(service: Service) -> None:
    for query in ({"after": "nowhere"}, {"after": "pl_-1"}, {"types": "seat.lost"}):
        refused = await service.get("/v1/events", READ, **query)
        assert refused.status_code == httpx.codes.UNPROCESSABLE_ENTITY, refused.text


async def test_cursor_is_expired_when_its_events_are_deleted_or_were_never_written(service: Service) -> None:
    """After a restore, a place that the log has not reached says that what was read is gone."""
    await filled(service)
    await service.company()
    await service.announce()
    assert (await service.get("/v1/events", READ, after="pl_999999")).json()["code"] == "cursor_expired"
    await service.fetch("update events set created = created - interval '40 days' where position < 4")
    async with service.context.database.connection() as connection:
        assert await feed.purge(connection, days=35) == 3
        assert await feed.purge(connection, days=35) == 0
    gone = await service.get("/v1/events", READ, after="pl_1")
    assert (gone.status_code, gone.json()["code"]) == (410, "cursor_expired")
    assert (await read_all(service))[0]["type"] == "seats.changed"
    assert len(await read_all(service, "pl_3")) == len(await read_all(service))


async def test_snapshot_is_refused_until_the_copy_is_filled(service: Service) -> None:
    refused = await service.get("/v1/events/snapshot", READ)
    assert (refused.status_code, refused.json()["code"]) == (503, "not_filled")
    assert "retry-after" in refused.headers


async def test_snapshot_and_later_events_fold_to_the_truth(service: Service) -> None:
    """Readings, events 10: a consumer begins with the snapshot while changes go on between its pages."""
    companies = [await service.company(users=2) for _ in range(3)]
    await filled(service)
    consumer = Beginner()
    cursor: dict[str, str] = {}
    while True:
        page = (await service.get("/v1/events/snapshot", READ, limit=4, **cursor)).json()
        for row in page["data"]:
            consumer.take_row(row)
        changing = companies[consumer.rows % 3]
        await changing.change(changing.owner.headers, add=[new_email()], remove=[changing.user.customer_id])
        await service.announce()
        if not page["has_more"]:
            break
        cursor = {"cursor": page["next_cursor"]}
    for event in await read_all(service, page["after"]):
        consumer.take(event)
    async with service.context.database.connection() as connection:
        assert mismatches(consumer.state, await truth(connection)) == []


async def test_snapshot_has_the_form_of_events_and_no_personal_data(service: Service) -> None:
    company = await service.company()
    await filled(service)
    rows, after = await read_snapshot(service)
    assert [row["type"] for row in rows[:3]] == ["subscription.changed", "owner.changed", "seats.changed"]
    assert rows[2]["data"]["total"] == 5
    assert company.owner.email not in str(rows) and company.owner.name not in str(rows)
    assert (await read_all(service, after)) == []
    async with service.context.database.connection() as connection:
        assert folded(rows).state() == await truth(connection)
