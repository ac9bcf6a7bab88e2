"""What the worker keeps up: old rows forgotten, dead refreshes replayed, outages survived, figures told."""

import asyncio
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest

from app import worker
from app.mirror import refreshing as sync
from app.mirror.reconcile import reconcile
from app.mirror.store import refreshes
from app.operating import upkeep
from app.postgres import retention
from testkit.company import Service, running_service
from testkit.plans import new_customer
from testkit.simulator import Simulator
from testkit.truth import cached_rows


@pytest.fixture
async def service(stripe_account: Simulator, database_url: str) -> AsyncIterator[Service]:
    async with running_service(stripe_account, database_url) as service:
        yield service


async def refreshed(service: Service, customer: str) -> dict[str, object]:
    """One leased refresh as the worker makes it; the refresh row afterwards."""
    lease = await sync.take_lease(service.context, "customer", customer)
    await sync.refresh(service.context, lease)
    [row] = await service.fetch("select * from refreshes where id = $1", customer)
    return dict(row)


async def test_what_is_past_its_time_is_forgotten_and_nothing_younger(service: Service) -> None:
    await service.fetch(
        f"""insert into webhook_events (id, type, outcome, received_at)
        select 'evt_' || n, 't', 'applied', now() - interval '36 days' from generate_series(1, {retention.BATCH + 5}) n
        union all select 'evt_new', 't', 'applied', now() - interval '34 days' returning id"""
    )
    await service.fetch(
        """insert into idempotency_keys (principal, route, key, request_hash, created_at)
        values ('p', 'r', 'old', '', now() - interval '25 hours'), ('p', 'r', 'new', '', now()) returning key"""
    )
    await service.fetch(
        """insert into refreshes (id, kind, notifications, notified_at, not_before, dead_at) values
        ('done', 'customer', 0, 0, now() - interval '2 hours', null),
        ('spaced', 'customer', 0, 0, now(), null),
        ('wanted', 'customer', 1, 0, now() - interval '2 hours', null),
        ('dead', 'customer', 0, 0, now() - interval '2 hours', now()) returning id"""
    )
    await service.fetch(
        """insert into reservations (operation_id, position, subscription_id, customer_id, released_at) values
        ('op_1', 0, 'sub_1', 'cus_1', now() - interval '8 days'), ('op_1', 1, 'sub_1', 'cus_2', now()),
        ('op_1', 2, 'sub_1', 'cus_3', null)
        returning id"""
    )
    await service.fetch(
        """insert into request_rates (name, full_at) values
        ('full', now() - interval '1 second'), ('not yet', now() + interval '1 minute') returning name"""
    )
    await service.fetch(
        """insert into operations (id, subscription_id, kind, state, principal, source, request, settled_at) values
        ('op_old', 'sub_1', 'leave', 'settled', 'p', 'api', '{}', now() - interval '401 days'),
        ('op_young', 'sub_1', 'leave', 'settled', 'p', 'api', '{}', now() - interval '399 days') returning id"""
    )
    await service.fetch(
        """insert into operation_steps (operation_id, position, subscription_id, action, customer_id, state, details,
            settled_at)
        select o.id, 0, 'sub_1', 'remove', 'cus_1', 'applied', '{}', o.settled_at from operations o
        where o.id in ('op_old', 'op_young') returning operation_id"""
    )
    await service.fetch(
        """insert into audit_events (subscription_id, at, source, action, before, after) values
        ('sub_1', now() - interval '401 days', 'api', 'old', '{}', '{}'),
        ('sub_1', now() - interval '399 days', 'api', 'young', '{}', '{}') returning id"""
    )
    await service.fetch(
        """insert into workers (id, host, reported_at) values (gen_random_uuid(), 'old', now() - interval '25 hours'),
            (gen_random_uuid(), 'young', now() - interval '23 hours') returning id"""
    )
    deleted = await upkeep.purge(service.context)
    assert deleted == {
        "webhook_events": retention.BATCH + 5,
        "idempotency_keys": 1,
        "quotes": 0,
        "reservations": 1,
        "refreshes": 1,
        "request_rates": 1,
        "workers": 1,
        "audit_events": 1,
        "operation_steps": 1,
        "operations": 1,
        "events": 0,
    }
    assert {row["id"] for row in await service.fetch("select id from operations")} == {"op_young"}
    assert [row["name"] for row in await service.fetch("select name from request_rates")] == ["not yet"]
    assert {row["id"] for row in await service.fetch("select id from refreshes")} == {
        "spaced",
        "wanted",
        "dead",
    }
    assert set((await upkeep.purge(service.context)).values()) == {0}


async def test_a_poison_object_dies_with_its_reason_and_lives_again_by_replay(service: Service) -> None:
    customer = await new_customer(service.stripe, card=None, name="Ada")
    await service.stripe.add_fault(method="GET", path="/v1/customers/{id}", status=500, times=0)
    await service.fetch(
        "insert into refreshes (id, kind, notifications, notified_at, attempts)"
        " values ($1, 'customer', 1, 0, $2) returning id",
        customer,
        refreshes.MAX_ATTEMPTS - 1,
    )
    row = await refreshed(service, customer)
    assert row["dead_at"] is not None and row["last_error"] == "stripe_unavailable"
    async with service.context.database.connection() as connection:
        assert [one.id for one in await refreshes.dead(connection, limit=10)] == [customer]
        assert await refreshes.replay(connection, ["cus_other"]) == []
        [replayed] = await refreshes.replay(connection, None)
        assert (replayed.id, replayed.reason, replayed.attempts) == (customer, "stripe_unavailable", 8)
        assert await refreshes.replay(connection, None) == []
        assert [one.id for one in await refreshes.due(connection, limit=5, lease_seconds=0)] == [customer]
    await service.stripe.clear_faults()
    row = await refreshed(service, customer)
    assert (row["notifications"], row["dead_at"], row["attempts"]) == (0, None, 0)
    assert (await cached_rows(service.database_url, "customer"))[customer]["name"] == "Ada"


async def test_in_an_outage_nothing_dies(service: Service) -> None:
    customer = await new_customer(service.stripe, card=None)
    await service.stripe.add_fault(method="GET", status=500, times=0)
    await service.fetch(
        "insert into refreshes (id, kind, notifications, notified_at, attempts)"
        " values ($1, 'customer', 1, 0, $2) returning id",
        customer,
        refreshes.MAX_ATTEMPTS - 1,
    )
    row = await refreshed(service, customer)
    assert row["dead_at"] is None and row["attempts"] == refreshes.MAX_ATTEMPTS - 1
    assert row["notifications"] == 1 and row["lease_token"] is None


async def test_a_spent_budget_is_no_attempt(service: Service) -> None:
    customer = await new_customer(service.stripe, card=None)
    taken = (
        "insert into rate_grants values (now(), now() + interval '1 minute', $1, '', 100000) returning number"
    )
    for work in ("interactive", "refresh", "bulk"):
        await service.fetch(taken, work)
    row = await refreshed(service, customer)
    await service.fetch("delete from rate_grants returning number")
    assert (row["attempts"], row["notifications"], row["lease_token"]) == (0, 1, None)


async def test_the_queue_is_told_by_every_process(service: Service) -> None:
    await service.fetch(
        """insert into refreshes (id, kind, notifications, notified_at, not_before, dead_at) values
        ('cus_1', 'customer', 1, 0, now() - interval '90 seconds', null),
        ('cus_2', 'customer', 1, 0, now() + interval '90 seconds', null),
        ('cus_3', 'customer', 1, 0, now(), now()) returning id"""
    )
    text = (await service.client.get("/metrics")).text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(lines["coseat_refreshes_due"]) == 1
    assert float(lines["coseat_refreshes_wanted"]) == 2
    assert float(lines["coseat_refreshes_dead"]) == 1
    assert 89 < float(lines["coseat_refreshes_oldest_due_seconds"]) < 120
    assert float(lines["coseat_database_up"]) == 1


async def test_upkeep_does_its_other_parts_when_one_part_fails(service: Service) -> None:
    """C1: every round failed at one part, and so the parts behind it, with reconcile, were never done."""
    await service.fill()
    await service.fetch("update account set filled_at = now() - interval '30 hours' returning id")
    await service.fetch("alter table seat_customers rename column deleting_at to deleting")
    await upkeep.one_round(service.context)
    [row] = await service.fetch("select outcome from list_scans where purpose = 'reconcile'")
    assert row["outcome"] == "finished"


async def test_retention_shortens_the_other_tables_when_one_fails(service: Service) -> None:
    """The first table that failed was tried again each minute, and those behind it grew without end."""
    await service.fetch(
        """insert into webhook_events (id, type, outcome, received_at)
        values ('evt_old', 't', 'applied', now() - interval '36 days') returning id"""
    )
    await service.fetch(
        """insert into idempotency_keys (principal, route, key, request_hash, created_at)
        values ('p', 'r', 'old', '', now() - interval '25 hours') returning key"""
    )
    await service.fetch(
        """insert into installation_counts (name, label, since, number)
        select 'counted', '', date_bin('5 minutes', now() - make_interval(hours => h), 'epoch'), 1
        from generate_series(30, 39) h returning name"""
    )
    await service.fetch(
        """insert into events (position, id, type, created, data)
        values (1, 'evt_1', 'seats.changed', now() - interval '36 days', '{}') returning id"""
    )
    holding = await asyncpg.connect(service.database_url)
    try:
        async with holding.transaction():
            await holding.execute("lock table webhook_events in access exclusive mode")
            deleted = await upkeep.purge(service.context)
    finally:
        await holding.close()
    assert "webhook_events" not in deleted
    assert (deleted["idempotency_keys"], deleted["events"]) == (1, 1)
    assert len(await service.fetch("select from installation_counts where name = 'counted'")) == 1
    assert (await upkeep.purge(service.context))["webhook_events"] == 1


async def shown(service: Service) -> dict[str, float]:
    """The metrics without labels."""
    text = (await service.client.get("/metrics")).text
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


async def test_age_of_reconcile_is_absent_until_one_ran(service: Service) -> None:
    """C12: an age of 0 said that a reconcile had just ended, where none had ever run."""
    names = {"coseat_reconcile_age_seconds", "coseat_reconcile_drift"}
    assert names & set(await shown(service)) == set()
    await service.fill()
    await reconcile(service.context, report=lambda _: None)
    metrics = await shown(service)
    assert (metrics["coseat_reconcile_drift"], metrics["coseat_reconcile_age_seconds"] < 60) == (0, True)
    await service.fetch("delete from list_scans returning id")
    assert names & set(await shown(service)) == set()


def upkeep_tasks() -> set[asyncio.Task[object]]:
    return {task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__name__", "") == "keep_up"}


async def test_worker_begins_upkeep_again_when_it_ended(service: Service) -> None:
    """C1: upkeep that ended was never begun again, and nobody was told."""
    stop = asyncio.Event()
    working = asyncio.create_task(worker.work(service.context, stop))
    await until(upkeep_tasks)
    [first] = upkeep_tasks()
    first.cancel()
    await until(lambda: upkeep_tasks() - {first})
    stop.set()
    await working


async def until(condition: Callable[[], object]) -> None:
    """Wait up to 20 s for a condition of this process."""
    for _ in range(400):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("not so within 20 s")
