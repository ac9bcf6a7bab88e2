"""Reconcile against the stand-in: every sort of drift healed, nothing else touched, and no cache emptied by mistake."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.errors import Conflict
from app.mirror import first_fill, scans
from app.mirror import refreshing as sync
from app.mirror.reconcile import Reconciled, reconcile
from app.mirror.store import refreshes
from app.mirror.store import scans as scan_rows
from app.operating import upkeep
from testkit.company import Service, running_service
from testkit.plans import new_customer, new_plan, new_subscription
from testkit.simulator import Simulator, new_account_key
from testkit.truth import cached_rows, differences
from tests.copy.test_first_fill import environment_of, fetch

CUSTOMERS = 450
DAY = 86_400


async def spread(account: Simulator, customers: int = CUSTOMERS) -> list[str]:
    """Customers who came on several days, some dozens within a second; their ids, oldest first."""
    ids: list[str] = []
    for first in range(0, customers, 50):
        await account.advance(DAY)
        made = await account.control(
            "POST", "bulk", customers=min(50, customers - first), start=first, ids=True
        )
        ids += made["ids"]
    return ids


@pytest.fixture
async def service(stripe_account: Simulator, database_url: str) -> AsyncIterator[Service]:
    async with running_service(stripe_account, database_url) as service:
        yield service


async def run(service: Service, **options: Any) -> Reconciled:
    return await reconcile(service.context, report=lambda _: None, **options)


async def differing(service: Service) -> list[str]:
    found = await differences(service.stripe, service.database_url)
    return [line for line in found if not line.startswith("payment_method")]


async def calls(service: Service, path: str = "/v1") -> list[Any]:
    return [entry for entry in await service.stripe.requests(path=path) if entry["actor"] == "api"]


async def drift(service: Service, ids: list[str]) -> set[str]:
    """Nine drifts of three sorts, of which no event tells; the ids."""
    lost, renamed, deleted = ids[0:3], ids[100:103], [ids[200], ids[-1], ids[3]]
    await service.fetch("delete from customers where id = any($1) returning id", lost)
    for customer in renamed:
        await service.stripe.post(f"/v1/customers/{customer}", name="Renamed")
    for customer in deleted:
        await service.stripe.delete(f"/v1/customers/{customer}")
    return {*lost, *renamed, *deleted}


async def test_the_fill_reads_every_list_once_in_parallel(service: Service) -> None:
    await spread(service.stripe)
    await service.stripe.add_fault(method="GET", path="/v1/customers", latency_s=0.2, times=0)
    await service.fill()
    await service.stripe.clear_faults()
    assert await differing(service) == []
    pages = await calls(service, "/v1/customers")
    assert len({json.dumps(entry["params"], sort_keys=True) for entry in pages}) == len(pages)
    assert len(pages) <= CUSTOMERS / 100 + 8
    starts, ends = zip(*((entry["started"], entry["ended"]) for entry in pages), strict=True)
    assert any(start < end for start, end in zip(sorted(starts)[1:], sorted(ends), strict=False))
    await service.fill()
    assert len(await calls(service, "/v1/customers")) == len(pages), "what is filled is not read again"


async def test_every_sort_of_drift_is_healed_and_nothing_else_is_touched(service: Service) -> None:
    ids = await spread(service.stripe)
    await service.fill()
    planted = await drift(service, ids)
    await service.stripe.post("/v1/customers", name="New")
    before = len(await calls(service))
    [(since,)] = await service.fetch("select clock_timestamp()")
    result = await run(service)
    assert await differing(service) == []
    touched = {
        row["id"] for row in await service.fetch("select id from customers where synced_at > $1", since)
    }
    assert len(touched) == len(planted) + 1 and planted < touched
    found = result.kinds["customer"]
    assert (found.missing, found.stale, found.orphaned, found.repaired, found.removed) == (4, 3, 3, 10, 3)
    assert (result.outcome, result.drift, result.unrepaired) == ("finished", 10, 0)
    made = len(await calls(service)) - before
    assert made == result.requests <= CUSTOMERS / 100 + 4 + 10 + 12
    again = await run(service)
    assert again.drift == 0 and await differing(service) == []


async def test_other_kinds_and_facts_that_stay(service: Service) -> None:
    plan = await new_plan(service.stripe)
    payer = await new_customer(service.stripe)
    live = await new_subscription(service.stripe, payer, [{"price": plan.price}])
    ended = await new_subscription(service.stripe, payer, [{"price": plan.price}])
    unused = await service.stripe.post("/v1/products", name="Unused")
    await service.fill()
    await service.stripe.delete(f"/v1/subscriptions/{ended['id']}")
    await service.stripe.post(f"/v1/products/{plan.product}", name="Renamed")
    await service.stripe.delete(f"/v1/products/{unused['id']}")
    await service.fetch(
        "update subscriptions set existence = 'absent' where id = $1 returning id", live["id"]
    )
    result = await run(service)
    assert await differing(service) == []
    assert result.kinds["product"].stale == 1 and result.kinds["product"].removed == 1
    assert result.kinds["subscription"].stale == 2
    rows = await cached_rows(service.database_url, "product", [unused["id"]])
    assert rows[unused["id"]]["existence"] == "absent"


async def test_a_worker_that_is_faster_costs_no_second_read(service: Service) -> None:
    ids = await spread(service.stripe, 5)
    await service.fill()
    await service.stripe.post(f"/v1/customers/{ids[0]}", name="Renamed")
    await service.stripe.add_fault(method="GET", path="/v1/invoices", latency_s=1.5, times=1)
    running = asyncio.create_task(run(service))
    leases: list[refreshes.Lease] = []
    while not leases:
        await asyncio.sleep(0.02)
        async with service.context.database.connection() as connection:
            leases = await refreshes.due(connection, limit=5, lease_seconds=30)
    assert await sync.refresh(service.context, leases[0])
    result = await running
    assert result.kinds["customer"].repaired == 1
    assert len(await calls(service, f"/v1/customers/{ids[0]}")) == 1


async def test_a_dry_run_finds_the_same_and_changes_nothing(service: Service) -> None:
    ids = await spread(service.stripe)
    await service.fill()
    await drift(service, ids)
    before = await cached_rows(service.database_url, "customer")
    result = await run(service, dry_run=True)
    found = result.kinds["customer"]
    assert (found.missing, found.stale, found.orphaned, found.repaired) == (3, 3, 3, 0)
    assert await cached_rows(service.database_url, "customer") == before
    assert await service.fetch("select id from refreshes where notifications > 0") == []
    assert [one for one in await calls(service, "/v1/customers/") if one["method"] == "GET"] == []


async def list_calls(service: Service) -> list[Any]:
    """The reads of pages of lists."""
    return [one for one in await calls(service) if one["params"].get("limit")]


class Interrupted(Exception):
    """A run was killed."""


async def interrupted(service: Service, *, dry_run: bool, pages: int) -> None:
    """A run that ends after so many pages."""
    seen: list[object] = []

    def report(progress: object) -> None:
        seen.append(progress)
        if len(seen) == pages:
            raise Interrupted

    with pytest.raises(Interrupted):
        await reconcile(service.context, dry_run=dry_run, report=report)


async def pages_read(service: Service, *, dry_run: bool) -> int:
    """Pages of the unfinished scans of that sort."""
    [row] = await service.fetch(
        """select coalesce(sum(r.pages), 0)::int as number from list_scan_ranges r join list_scans s on s.id = r.scan_id
        where s.purpose = 'reconcile' and s.dry_run = $1 and s.finished_at is null""",
        dry_run,
    )
    return int(row["number"])


async def test_an_interrupted_run_goes_on_after_a_dry_run(service: Service) -> None:
    """A dry run abandoned it, and deleted what it had read and found."""
    ids = await spread(service.stripe)
    await service.fill()
    await drift(service, ids)
    await interrupted(service, dry_run=False, pages=8)
    read = await pages_read(service, dry_run=False)
    waiting = "select object_id from list_scan_findings where outcome is null order by 1"
    found = [row["object_id"] for row in await service.fetch(waiting)]
    assert read and found
    before = len(await list_calls(service))
    dry = (await run(service, dry_run=True)).kinds["customer"]
    assert dry.orphaned == 3
    whole = len(await list_calls(service)) - before
    assert await pages_read(service, dry_run=False) == read
    source = "select source_of_change(null, $1) as source"
    assert {(await service.fetch(source, one))[0]["source"] for one in found} == {"reconcile"}
    async with service.context.database.connection() as connection:
        assert await scan_rows.is_reconcile_due(connection, interval_hours=24)
    seen = len(await list_calls(service))
    result = await run(service)
    customers = result.kinds["customer"]
    assert (customers.missing, customers.stale, customers.orphaned, customers.repaired) == (3, 3, 3, 9)
    assert len(await list_calls(service)) - seen <= whole - read + scans.RUNNERS_A_KIND
    assert await differing(service) == []
    async with service.context.database.connection() as connection:
        last = await scan_rows.last_reconcile(connection)
        assert last is not None and not last["dry_run"], "the doctor shows the one that ended last"
        assert not await scan_rows.is_reconcile_due(connection, interval_hours=24)


async def shown_drift(service: Service) -> float | None:
    """Return what /metrics shows of the last reconcile, None if it shows nothing."""
    text = (await service.get("/metrics")).text
    found = re.search(r"^coseat_reconcile_drift (\S+)$", text, re.MULTILINE)
    assert (found is None) == ("coseat_reconcile_age_seconds " not in text)
    return None if found is None else float(found[1])


async def test_figures_show_no_dry_run(service: Service) -> None:
    """A comparison beside the nightly run made its drift vanish, and its age with it."""
    ids = await spread(service.stripe)
    await service.fill()
    await drift(service, ids)
    assert (await run(service, dry_run=True)).drift == 9
    assert await shown_drift(service) is None
    assert (await run(service)).drift == 9
    assert (await run(service, dry_run=True)).drift == 0
    assert await shown_drift(service) == 9


async def test_an_interrupted_dry_run_goes_on_unless_a_run_has_repaired_what_it_found(
    service: Service,
) -> None:
    ids = await spread(service.stripe)
    await service.fill()
    await drift(service, ids)
    await interrupted(service, dry_run=True, pages=5)
    assert (read := await pages_read(service, dry_run=True))
    await interrupted(service, dry_run=True, pages=2)
    assert await pages_read(service, dry_run=True) > read
    assert (await run(service)).drift == 9
    result = await run(service, dry_run=True)
    assert result.drift == 0
    assert await service.fetch("select 1 from list_scans where finished_at is null") == []


async def test_it_stops_before_it_removes_too_many(service: Service) -> None:
    ids = await spread(service.stripe, 60)
    await service.fill()
    for customer in ids[:21]:
        await service.stripe.delete(f"/v1/customers/{customer}")
    await service.stripe.post(f"/v1/customers/{ids[30]}", name="Renamed")
    stopped = await run(service)
    assert stopped.outcome == "stopped" and "--allow-removals" in str(stopped.reason)
    rows = await cached_rows(service.database_url, "customer")
    assert {row["existence"] for row in rows.values()} == {"present"}
    assert rows[ids[30]]["name"] == "Renamed", "what differs is repaired all the same"
    assert (await run(service, allow_removals=20)).outcome == "stopped"
    allowed = await run(service, allow_removals=21)
    assert allowed.kinds["customer"].removed == 21
    assert await differing(service) == []


async def test_an_account_that_shows_nothing_empties_no_cache(service: Service) -> None:
    await spread(service.stripe, 120)
    await service.fill()
    before = await cached_rows(service.database_url, "customer")
    await service.stripe.control("POST", "reset")
    result = await run(service)
    assert result.outcome == "stopped" and result.kinds["customer"].removed == 0
    assert await cached_rows(service.database_url, "customer") == before
    assert len(await calls(service)) < 60, "a few candidates are enough to know"


async def test_rows_that_exist_after_all_are_kept(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that leaves out objects is no proof that they are gone."""
    ids = await spread(service.stripe, 40)
    await service.fill()
    orphaned = scan_rows.orphaned_rows

    async def suspects(*given: Any, **named: Any) -> list[str]:
        return [*await orphaned(*given, **named), *(ids[:30] if given[1] == "customer" else [])]

    monkeypatch.setattr(scan_rows, "orphaned_rows", suspects)
    result = await run(service)
    assert (result.outcome, result.drift) == ("finished", 0)
    assert await differing(service) == []


async def test_an_object_deleted_between_two_pages_loses_no_other(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.stripe.control("POST", "bulk", customers=250)
    monkeypatch.setattr(scans, "RUNNERS", 1)
    advance = scan_rows.advance
    gone: list[str] = []

    async def deleted_meanwhile(*given: Any, **named: Any) -> bool:
        done = await advance(*given, **named)
        after = given[3]
        if after.kind == "customer" and after.pages == 1:
            gone.append(after.last_id)
            await service.stripe.delete(f"/v1/customers/{after.last_id}")
        return done

    monkeypatch.setattr(scan_rows, "advance", deleted_meanwhile)
    await service.fill()
    monkeypatch.undo()
    rows = await cached_rows(service.database_url, "customer")
    assert len(rows) == 250
    assert (await run(service)).kinds["customer"].removed == len(gone) == 1


async def test_one_at_a_time_and_only_for_its_account(
    service: Service, stripe_account: Simulator, database_url: str
) -> None:
    await spread(stripe_account, 3)
    await service.fill()
    await stripe_account.add_fault(method="GET", path="/v1/customers", latency_s=1.0, times=1)
    first = asyncio.create_task(run(service))
    await asyncio.sleep(0.5)
    with pytest.raises(Conflict) as second:
        await run(service)
    assert second.value.code == "already_running"
    assert (await first).outcome == "finished"
    async with Simulator(stripe_account.base_url, new_account_key()) as other:
        await new_customer(other, card=None)
        async with running_service(other, database_url) as stranger:
            with pytest.raises(Conflict) as refused:
                await run(stranger)
    assert refused.value.code == "wrong_account"


async def test_a_process_that_lost_its_scan_writes_no_more(service: Service) -> None:
    await spread(service.stripe, 250)
    account = await first_fill.check_account(service.context)
    scan = await scans.open_scan(service.context, "reconcile", account)
    async with service.context.database.connection() as connection:
        taken = await scan_rows.resume(connection, "reconcile", dry_run=False)
    assert taken is not None and taken.fence == scan.fence + 1
    wrote: list[str] = []

    async def handle(*_: Any) -> None:
        wrote.append("page")

    with pytest.raises(Conflict):
        await scans.read(service.context, scan, account, handle, lambda _: None)
    assert wrote and await service.fetch("select 1 from list_scan_ranges where pages > 0") == []


async def test_a_killed_run_repeats_at_most_a_page_of_each_range(
    stripe_account: Simulator, database_url: str, service: Service
) -> None:
    ids = await spread(stripe_account, 900)
    await service.fill()
    planted = await drift(service, ids)
    environment = {**environment_of(stripe_account, database_url), "STRIPE_RATE_LIMIT": "20"}
    command = [sys.executable, "-m", "app", "reconcile", "--json"]
    seen = len(await calls(service))
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=subprocess.DEVNULL)
    deadline = asyncio.get_running_loop().time() + 30
    begun = "select 1 from list_scan_ranges where pages > 0 and kind = 'customer'"
    while len(await fetch(database_url, begun)) < 2:
        assert asyncio.get_running_loop().time() < deadline, "it never began"
        await asyncio.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
    environment["STRIPE_RATE_LIMIT"] = "1000"
    again = await asyncio.create_subprocess_exec(*command, env=environment, stdout=subprocess.PIPE)
    out, _ = await again.communicate()
    assert again.returncode == 0
    report = json.loads(out)
    assert report["kinds"]["customer"]["repaired"] == len(planted)
    assert await differing(service) == []
    pages = [entry for entry in (await calls(service))[seen:] if entry["params"].get("limit")]
    asked = Counter(entry["path"] + json.dumps(entry["params"], sort_keys=True) for entry in pages)
    assert max(asked.values()) <= 2
    assert sum(number > 1 for number in asked.values()) <= scans.RUNNERS_A_KIND


async def test_the_worker_reconciles_when_it_is_due(service: Service) -> None:
    await spread(service.stripe, 3)
    hours = service.context.rules.reconcile_interval
    assert hours == 24
    assert not await upkeep.reconcile_when_due(service.context), "nothing is filled yet"
    await service.fill()
    assert not await upkeep.reconcile_when_due(service.context)
    await service.fetch("update account set filled_at = filled_at - interval '25 hours' returning id")
    assert await upkeep.reconcile_when_due(service.context)
    assert not await upkeep.reconcile_when_due(service.context)
    await service.fetch(
        "update list_scans set finished_at = null, outcome = null where purpose = 'reconcile' returning id"
    )
    assert await upkeep.reconcile_when_due(service.context), "an interrupted run is due at once"
    await service.fetch("update list_scans set started_at = started_at - interval '25 hours' returning id")
    assert await upkeep.reconcile_when_due(service.context)


async def test_a_resumed_scan_covers_what_came_since_it_was_planned(service: Service) -> None:
    """Interrupted with its first page read, taken up an hour later."""
    await spread(service.stripe, 3)
    account = await first_fill.check_account(service.context)
    scan = await scans.open_scan(service.context, "fill", account)
    await scans.read(service.context, scan, account, _nothing, lambda _: None)
    await service.stripe.advance(3600)
    customer = await new_customer(service.stripe, card=None)
    await service.fill()
    assert customer in await cached_rows(service.database_url, "customer")


async def _nothing(*_: Any) -> None:
    return None
