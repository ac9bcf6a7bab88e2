"""The sync rule against PostgreSQL: what each piece of news does to a row, whoever brings it and whenever."""

import asyncio
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from app.domain.snapshots import Snapshot, Subscription
from app.domain.statuses import ENDED
from app.mirror.store import inbox, refreshes, scans
from app.mirror.store import rows as mirror
from app.mirror.store.rows import MIRRORS, EventRecord
from app.postgres import tables
from app.postgres.database import Connection, Database
from testkit.snapshots import CUSTOMER, EVERY_KIND, INVOICE, PRICE, PRODUCT, SUBSCRIPTION, like

MARGIN = 2
KINDS = [pytest.param(snapshot, id=mirror.mirror_of(snapshot).kind) for snapshot in EVERY_KIND]
REUSED = [pytest.param(snapshot, id=mirror.mirror_of(snapshot).kind) for snapshot in (PRODUCT, PRICE)]
numbers = itertools.count(1)


async def event(
    connection: Connection,
    snapshot: Snapshot,
    created: int,
    *,
    id: str | None = None,
    usable: bool = True,
    reason: str = "noted: other version",
) -> str:
    """What applying a delivery did."""
    record = EventRecord(id or f"evt_{next(numbers)}", "some.event", snapshot.id, created, usable, reason)
    effect = await mirror.apply_event(connection, record, snapshot, margin=MARGIN)
    return effect.outcome


async def row(connection: Connection, snapshot: Snapshot) -> dict[str, Any]:
    table = mirror.mirror_of(snapshot).table
    found = await connection.fetchrow(f"select * from {table} where id = $1", snapshot.id)
    return {} if found is None else dict(found)


async def notifications(connection: Connection, snapshot: Snapshot) -> int:
    return int(
        await connection.fetchval("select notifications from refreshes where id = $1", snapshot.id) or 0
    )


def stored(snapshot: Snapshot) -> dict[str, Any]:
    """The snapshot's fields as they come back from the database."""
    fields = mirror.mirror_of(snapshot).fields
    plain: dict[str, Any] = orjson.loads(orjson.dumps({name: getattr(snapshot, name) for name in fields}))
    return plain


@pytest.mark.parametrize("kind", MIRRORS)
def test_fields_columns_and_tables_are_the_same(kind: str) -> None:
    one = MIRRORS[kind]
    snapshot = next(s for s in EVERY_KIND if mirror.mirror_of(s) is one)
    columns = {column.name for column in tables.metadata.tables[one.table].columns}
    assert columns == {*one.fields, *mirror.SYNC_COLUMNS}
    assert set(one.fields) == {f.name for f in dataclasses.fields(snapshot)} - mirror.NOT_COLUMNS


def test_every_mirrored_table_has_its_kind() -> None:
    assert {one.table for one in MIRRORS.values()} == {table.name for table in tables.MIRRORED}


@pytest.mark.parametrize("snapshot", KINDS)
async def test_every_field_comes_back_as_it_went(connection: Connection, snapshot: Snapshot) -> None:
    assert await event(connection, snapshot, 1000) == "applied"
    found = await row(connection, snapshot)
    assert {name: found[name] for name in stored(snapshot)} == stored(snapshot)
    assert (found["marker"], found["serial"], found["existence"], found["terminal"]) == (
        1000,
        1,
        "present",
        False,
    )


@pytest.mark.parametrize("snapshot", KINDS)
async def test_empty_fields_come_back_empty(connection: Connection, snapshot: Snapshot) -> None:
    columns = tables.metadata.tables[mirror.mirror_of(snapshot).table].columns
    empty = {name: None for name in stored(snapshot) if columns[name].nullable}
    sparse = like(snapshot, **empty, **({"discounts": []} if "discount_details" in empty else {}))
    assert await event(connection, sparse, 1000) == "applied"
    found = await row(connection, sparse)
    assert {name: found[name] for name in stored(sparse)} == stored(sparse)


@pytest.mark.parametrize(
    ("later", "outcome"),
    [
        (-50, "noted"),
        (-1, "noted"),
        (0, "noted"),
        (1, "noted"),
        (2, "noted"),
        (3, "applied"),
        (60, "applied"),
    ],
)
@pytest.mark.parametrize("snapshot", KINDS)
async def test_a_payload_is_applied_only_when_it_is_clearly_newer(
    connection: Connection, snapshot: Snapshot, later: int, outcome: str
) -> None:
    await event(connection, snapshot, 1000)
    assert await event(connection, like(snapshot, created=555), 1000 + later) == outcome
    found = await row(connection, snapshot)
    applied = outcome == "applied"
    assert (found["created"], found["marker"], found["serial"]) == (
        (555, 1000 + later, 2) if applied else (100, 1000, 1)
    )
    assert await notifications(connection, snapshot) == (0 if applied else 1)
    kept = await connection.fetchval(
        "select outcome from webhook_events where created = $1 and id like 'evt_%' order by received_at desc",
        1000 + later,
    )
    assert kept == outcome


async def test_a_duplicate_changes_nothing(connection: Connection) -> None:
    assert await event(connection, CUSTOMER, 1000, id="evt_twice") == "applied"
    before = await row(connection, CUSTOMER)
    assert await event(connection, like(CUSTOMER, name="Other"), 2000, id="evt_twice") == "duplicate"
    assert await row(connection, CUSTOMER) == before
    assert await notifications(connection, CUSTOMER) == 0


async def test_many_deliveries_of_one_event_at_once_are_one(database: Database) -> None:
    async def deliver() -> str:
        async with database.connection() as connection:
            return await event(connection, CUSTOMER, 1000, id="evt_raced")

    outcomes = await asyncio.gather(*(deliver() for _ in range(12)))
    assert sorted(outcomes) == ["applied"] + ["duplicate"] * 11


async def test_many_events_of_one_object_at_once_leave_the_newest(database: Database) -> None:
    async def deliver(created: int) -> str:
        async with database.connection() as connection:
            return await event(connection, like(CUSTOMER, name=f"at {created}"), created)

    instants = list(range(1000, 1400, 10))
    await asyncio.gather(*(deliver(created) for created in instants[::2] + instants[1::2][::-1]))
    async with database.connection() as connection:
        found = await row(connection, CUSTOMER)
    assert (found["name"], found["marker"]) == ("at 1390", 1390)


async def test_the_inbox_tells_what_came_of_an_event_that_was_overtaken_while_it_waited(
    database: Database,
) -> None:
    """A fetch is applied in the same second: what the event's statement expected when it began is not so any more."""
    async with database.connection() as connection:
        await event(connection, CUSTOMER, 1000)

    async def deliver() -> str:
        async with database.connection() as connection:
            return await event(connection, like(CUSTOMER, name="Event"), 2000, id="evt_waits")

    async with database.connection() as connection:
        async with connection.transaction():
            assert await mirror.apply_fetched(connection, like(CUSTOMER, name="Read"), serial=1, marker=2000)
            waiting = asyncio.create_task(deliver())
            await asyncio.sleep(0.2)
            assert not waiting.done()
        assert await waiting == "noted"
        assert (
            await connection.fetchval("select outcome from webhook_events where id = 'evt_waits'") == "noted"
        )
        assert (await row(connection, CUSTOMER))["name"] == "Read"
        assert await notifications(connection, CUSTOMER) == 1


async def test_an_unusable_payload_is_noted_even_for_an_object_never_seen(connection: Connection) -> None:
    assert await event(connection, CUSTOMER, 1000, usable=False) == "noted: other version"
    assert await row(connection, CUSTOMER) == {}
    assert await notifications(connection, CUSTOMER) == 1
    assert await connection.fetchval("select outcome from webhook_events") == "noted: other version"


@pytest.mark.parametrize("snapshot", KINDS)
async def test_a_deletion_stays(connection: Connection, snapshot: Snapshot) -> None:
    """Whatever its instant, and whatever comes after it."""
    await event(connection, snapshot, 1000)
    assert await event(connection, like(snapshot, deleted=True), 990) == "applied"
    assert await event(connection, snapshot, 5000, id="evt_after") == mirror.HAD_ENDED
    kept = await connection.fetchval("select outcome from webhook_events where id = 'evt_after'")
    assert kept == mirror.HAD_ENDED
    found = await row(connection, snapshot)
    assert (found["existence"], found["terminal"], found["marker"]) == ("deleted", True, 1000)
    assert await notifications(connection, snapshot) == 0, "there is nothing left to fetch"
    assert await mirror.apply_fetched(connection, snapshot, serial=found["serial"], marker=6000)
    assert await mirror.mark_absent(
        connection, mirror.mirror_of(snapshot).kind, snapshot.id, serial=found["serial"], marker=6000
    )
    effect = await mirror.apply_page(connection, [snapshot], marker=7000)
    assert (effect.inserted, effect.differing) == (0, 0)
    assert await row(connection, snapshot) == found


@pytest.mark.parametrize("snapshot", REUSED)
@pytest.mark.parametrize("path", ["event", "fetch", "page"])
async def test_object_is_a_new_one_when_its_id_is_used_again(
    connection: Connection, snapshot: Snapshot, path: str
) -> None:
    """C3: the tombstone of the deleted object stayed, and reconcile saw no drift."""
    kind = mirror.mirror_of(snapshot).kind
    await event(connection, snapshot, 1000)
    assert await event(connection, like(snapshot, deleted=True), 1010) == "applied"
    again = like(snapshot, created=1020, active=False)
    if path == "event":
        assert await event(connection, again, 1020) == "applied"
    elif path == "page":
        assert (await mirror.apply_page(connection, [again], marker=1030)).differing == 1
        assert await scans.compare(connection, [again]) == {snapshot.id: "stale"}
        assert await notifications(connection, snapshot) == 1
    if path != "event":
        serial = await mirror.serial_of(connection, kind, snapshot.id)
        assert await mirror.apply_fetched(connection, again, serial=serial, marker=1030)
    found = await row(connection, snapshot)
    assert (found["existence"], found["terminal"], found["created"]) == ("present", False, 1020)
    # A late delivery about the first object changes nothing.
    await event(connection, snapshot, 1009)
    await event(connection, like(snapshot, deleted=True), 1010, id="evt_again")
    assert await row(connection, snapshot) == found
    assert await event(connection, like(again, deleted=True), 1040) == "applied"


@pytest.mark.parametrize("snapshot", REUSED)
async def test_fetch_decides_when_an_id_is_used_again_within_one_second(
    connection: Connection, snapshot: Snapshot
) -> None:
    """C3: created, deleted and created again in one second, the two objects have the same `created`."""
    await event(connection, snapshot, 100)
    assert await event(connection, like(snapshot, deleted=True), 100) == "applied"
    assert await event(connection, snapshot, 100) == "noted"
    serial = await mirror.serial_of(connection, mirror.mirror_of(snapshot).kind, snapshot.id)
    assert not await mirror.apply_fetched(connection, snapshot, serial=serial, marker=102), "to be repeated"
    assert (await row(connection, snapshot))["existence"] == "deleted"
    assert await mirror.apply_fetched(connection, snapshot, serial=serial, marker=108)
    assert (await row(connection, snapshot))["existence"] == "present"


async def test_deleted_customer_stays_deleted_whatever_is_seen_of_its_id(connection: Connection) -> None:
    """C3: Stripe generates the ids of customers, and uses none again."""
    await event(connection, CUSTOMER, 1000)
    await event(connection, like(CUSTOMER, deleted=True), 1010)
    assert await event(connection, like(CUSTOMER, created=1020), 1020) == mirror.HAD_ENDED
    assert (await row(connection, CUSTOMER))["existence"] == "deleted"


@pytest.mark.parametrize("status", sorted(ENDED))
async def test_an_ended_subscription_stays_ended(connection: Connection, status: str) -> None:
    ended = like(SUBSCRIPTION, status=status)
    await event(connection, SUBSCRIPTION, 1000)
    assert await event(connection, ended, 1010) == "applied"
    assert await event(connection, SUBSCRIPTION, 5000) == mirror.HAD_ENDED
    assert await notifications(connection, SUBSCRIPTION) == 0
    assert (await row(connection, SUBSCRIPTION))["status"] == status
    serial = await mirror.serial_of(connection, "subscription", "sub_1")
    assert await mirror.apply_fetched(connection, SUBSCRIPTION, serial=serial, marker=6000)
    assert (await row(connection, SUBSCRIPTION))["status"] == status
    assert await mirror.apply_fetched(connection, like(ended, owner_id=None), serial=serial, marker=6000)
    assert (await row(connection, SUBSCRIPTION))["owner_id"] is None


async def test_an_absent_object_comes_back_with_its_next_sighting(connection: Connection) -> None:
    async def vanish() -> None:
        serial = await mirror.serial_of(connection, "customer", "cus_1")
        assert await mirror.mark_absent(connection, "customer", "cus_1", serial=serial, marker=0)
        assert (await row(connection, CUSTOMER))["existence"] == "absent"

    await event(connection, CUSTOMER, 1000)
    await vanish()
    assert await event(connection, CUSTOMER, 1010) == "applied"
    assert (await row(connection, CUSTOMER))["existence"] == "present"
    await vanish()
    assert (await mirror.apply_page(connection, [CUSTOMER], marker=1020)).differing == 1
    assert await notifications(connection, CUSTOMER) == 1
    serial = await mirror.serial_of(connection, "customer", "cus_1")
    assert await mirror.apply_fetched(connection, CUSTOMER, serial=serial, marker=1020)
    assert (await row(connection, CUSTOMER))["existence"] == "present"


async def test_an_absence_seen_before_a_change_is_looked_at_again(connection: Connection) -> None:
    assert await mirror.mark_absent(connection, "customer", "cus_1", serial=0, marker=0)
    assert await row(connection, CUSTOMER) == {}
    await event(connection, CUSTOMER, 1000)
    assert not await mirror.mark_absent(connection, "customer", "cus_1", serial=0, marker=0)
    assert (await row(connection, CUSTOMER))["existence"] == "present"


@pytest.mark.parametrize("snapshot", KINDS)
async def test_a_fetch_that_began_before_a_change_is_refused(
    connection: Connection, snapshot: Snapshot
) -> None:
    before = await mirror.serial_of(connection, mirror.mirror_of(snapshot).kind, snapshot.id)
    assert before == 0
    await event(connection, snapshot, 1000)
    stale = like(snapshot, created=555)
    assert not await mirror.apply_fetched(connection, stale, serial=before, marker=2000)
    assert (await row(connection, snapshot))["created"] == 100
    serial = await mirror.serial_of(connection, mirror.mirror_of(snapshot).kind, snapshot.id)
    assert await mirror.apply_fetched(connection, stale, serial=serial, marker=2000)
    assert not await mirror.apply_fetched(connection, snapshot, serial=serial, marker=2000)
    found = await row(connection, snapshot)
    assert (found["created"], found["marker"], found["serial"]) == (555, 2000, serial + 1)


async def test_a_fetched_object_never_moves_the_marker_back(connection: Connection) -> None:
    await event(connection, CUSTOMER, 1000)
    assert await mirror.apply_fetched(connection, like(CUSTOMER, name="Fetched"), serial=1, marker=900)
    found = await row(connection, CUSTOMER)
    assert (found["name"], found["marker"]) == ("Fetched", 1000)


async def test_a_payload_clears_the_hints_that_it_is_clearly_newer_than(connection: Connection) -> None:
    await event(connection, CUSTOMER, 1000)
    assert await event(connection, CUSTOMER, 1001) == "noted"
    assert await event(connection, CUSTOMER, 1003) == "applied"
    assert await notifications(connection, CUSTOMER) == 1, "the notification is too close to be covered"
    assert await event(connection, CUSTOMER, 1006) == "applied"
    assert await notifications(connection, CUSTOMER) == 0
    assert await event(connection, CUSTOMER, 990) == "noted"
    assert await event(connection, CUSTOMER, 1010) == "applied"
    assert await notifications(connection, CUSTOMER) == 0


async def test_a_payload_leaves_the_hints_of_a_refresh_that_is_running(connection: Connection) -> None:
    await event(connection, CUSTOMER, 1000)
    await event(connection, CUSTOMER, 1000)
    (lease,) = await refreshes.due(connection, limit=5, lease_seconds=30)
    assert await event(connection, CUSTOMER, 1060) == "applied"
    assert await notifications(connection, CUSTOMER) == 1
    await refreshes.mark_applied(connection, lease)
    assert await notifications(connection, CUSTOMER) == 0


async def test_a_page_inserts_what_is_absent_and_only_notes_what_differs(connection: Connection) -> None:
    same, other, new = CUSTOMER, like(CUSTOMER, id="cus_2"), like(CUSTOMER, id="cus_3")
    await event(connection, same, 1000)
    await event(connection, other, 1000)
    effect = await mirror.apply_page(connection, [new, like(other, name="Grace"), same], marker=2000)
    assert (effect.inserted, effect.differing) == (1, 1)
    assert (await row(connection, other))["name"] == "Ada"
    found = await row(connection, new)
    assert (found["marker"], found["serial"]) == (2000, 1)
    assert [await notifications(connection, one) for one in (same, other, new)] == [0, 1, 0]
    again = await mirror.apply_page(connection, [new, other, same], marker=2000)
    assert (again.inserted, again.differing) == (0, 0)
    assert (await mirror.apply_page(connection, [], marker=2000)).inserted == 0


@pytest.mark.parametrize("snapshot", KINDS)
async def test_a_page_sees_a_difference_in_every_field(connection: Connection, snapshot: Snapshot) -> None:
    await event(connection, snapshot, 1000)
    assert (await mirror.apply_page(connection, [snapshot], marker=1000)).differing == 0
    columns = tables.metadata.tables[mirror.mirror_of(snapshot).table].columns
    changes: list[tuple[str, object]] = []
    for name, value in stored(snapshot).items():
        if name == "id":
            continue
        changed: object = None
        if not columns[name].nullable:
            changed = (
                not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else "other"
            )
            changed = [] if isinstance(value, list) else {} if isinstance(value, dict) else changed
        changes.append((name, changed))
    for name, changed in changes:
        effect = await mirror.apply_page(connection, [like(snapshot, **{name: changed})], marker=1000)
        assert effect.differing == 1, name


async def test_a_payload_is_noted_when_it_names_a_discount_that_the_row_does_not_know(
    connection: Connection,
) -> None:
    """M25: webhooks carry a discount's id alone; what it gives is read once, and kept while it is named."""
    spring = {"id": "di_1", "promotion_code": "SPRING"}
    summer = {"id": "di_2", "promotion_code": "SUMMER"}
    unknown = like(SUBSCRIPTION, discounts=["di_1"], discount_details=None)
    assert await event(connection, unknown, 1000) == "noted"
    assert await connection.fetchval("select count(*) from subscriptions") == 0
    both = like(SUBSCRIPTION, discounts=["di_1", "di_2"], discount_details=[spring, summer])
    assert await event(connection, both, 1010) == "applied"
    left = like(SUBSCRIPTION, discounts=["di_2"], discount_details=None)
    assert await event(connection, left, 1020) == "applied"
    found = await row(connection, SUBSCRIPTION)
    assert (found["discounts"], found["discount_details"]) == (["di_2"], [summer])
    assert await event(connection, like(unknown, discounts=["di_2", "di_3"]), 1030) == "noted"
    assert (await row(connection, SUBSCRIPTION))["marker"] == 1020
    assert await event(connection, like(unknown, discounts=[]), 1040) == "applied"
    found = await row(connection, SUBSCRIPTION)
    assert (found["discounts"], found["discount_details"]) == ([], None)
    kept = await connection.fetch("select outcome from webhook_events order by created")
    assert [entry["outcome"] for entry in kept] == ["noted", "applied", "applied", "noted", "applied"]


async def test_events_in_any_order_end_at_the_newest(database: Database) -> None:
    """All orders of five events, one of them twice: the row never goes back, and ends at the newest."""
    news: Sequence[tuple[str, int]] = [("a", 1000), ("b", 1001), ("c", 1004), ("d", 1004), ("e", 1010)]
    async with database.connection() as connection:
        for number, order in enumerate(itertools.permutations(news)):
            customer = like(CUSTOMER, id=f"cus_{number}")
            found: dict[str, Any] = {}
            marker = 0
            for name, created in (*order, order[0]):
                await event(connection, like(customer, name=name), created, id=f"evt_{number}_{name}")
                found = await row(connection, customer)
                assert found["marker"] >= marker
                marker = found["marker"]
            assert (found["name"], found["marker"]) == ("e", 1010)


async def test_hints_are_coalesced_to_one_row(connection: Connection) -> None:
    await event(connection, CUSTOMER, 1000)
    for _ in range(30):
        await event(connection, CUSTOMER, 1000)
    rows = await connection.fetch("select notifications, notified_at from refreshes")
    assert [tuple(one) for one in rows] == [(30, 1000)]


async def test_an_event_about_something_else_notes_its_objects_once(connection: Connection) -> None:
    async def claim() -> bool:
        return await inbox.claim(
            connection,
            event_id="evt_other",
            event_type="customer.discount.created",
            object_id="di_1",
            created=1000,
            outcome="noted: related",
            notifications=[("customer", "cus_1"), ("subscription", "sub_1"), ("customer", "cus_1")],
        )

    assert await claim()
    assert not await claim()
    rows = await connection.fetch("select id, kind, notifications, notified_at from refreshes order by id")
    assert [tuple(one) for one in rows] == [
        ("cus_1", "customer", 1, 1000),
        ("sub_1", "subscription", 1, 1000),
    ]


def test_a_row_says_whether_it_may_still_change() -> None:
    for snapshot in EVERY_KIND:
        one = mirror.mirror_of(snapshot)
        assert not one.row(snapshot, 5)["terminal"]
        assert one.row(like(snapshot, deleted=True), 5)["terminal"]
    for status in ("active", "past_due", "unpaid", "canceled", "incomplete_expired"):
        subscription: Subscription = like(SUBSCRIPTION, status=status)
        assert MIRRORS["subscription"].row(subscription, 5)["terminal"] is (status in ENDED)
    assert not MIRRORS["invoice"].row(like(INVOICE, status="void"), 5)["terminal"]
    assert MIRRORS["product"].row(PRODUCT, 5)["marker"] == 5
