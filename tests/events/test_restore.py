"""Events after the database was restored from a backup that does not know the last ones."""

import httpx

from app.events import restoring
from app.events.delivering import Deliverer, Patience
from app.events.secrets import EndpointSecrets
from app.events.sending import WebhookSender
from app.mirror import reconcile
from app.sharing.invitation_tokens import InvitationTokens
from app.sharing.sent_invitations import renderer
from testkit.company import Service, new_email
from testkit.event_fold import folded, truth
from testkit.receiver import receiving
from testkit.service import ENCRYPTION_KEY, INVITATION_SECRET, as_service
from tests.events.test_feed import filled, read_all, read_snapshot
from tests.events.test_webhooks import deliver, endpoint

PATIENCE = Patience(timeout=2.0, retry_max=3600.0, disable_after=432_000.0)


async def back_up(service: Service) -> None:
    await service.fetch("create schema backup")
    for row in await service.fetch("select tablename from pg_tables where schemaname = 'public'"):
        await service.fetch(f"create table backup.{row['tablename']} as table public.{row['tablename']}")


async def restore(service: Service) -> None:
    """Put every table back as it was, without triggers, as `pg_restore` does."""
    tables = [
        row["tablename"]
        for row in await service.fetch("select tablename from pg_tables where schemaname = 'backup'")
    ]
    async with service.context.database.transaction() as connection:
        await connection.execute("set local session_replication_role = replica")
        await connection.execute(f"truncate {', '.join(f'public.{table}' for table in tables)}")
        for table in tables:
            await connection.execute(
                f"insert into public.{table} overriding system value table backup.{table}"
            )


async def test_consumers_begin_again_when_the_database_was_restored(service: Service) -> None:
    """Numbers are above those that were delivered, old places are refused, and the fold is the truth at rest."""
    await filled(service)
    render = renderer(service.context, InvitationTokens([INVITATION_SECRET]))
    async with receiving() as receiver, WebhookSender(live=False, seconds=PATIENCE.timeout) as sender:
        worker = Deliverer(service.context, sender, EndpointSecrets([ENCRYPTION_KEY]), PATIENCE, render)
        await endpoint(service, receiver)
        company = await service.company(users=2)
        await deliver(service, worker)
        await back_up(service)
        for _ in range(3):
            await company.change(company.owner.headers, add=[new_email()])
        await deliver(service, worker)
        lost = list(receiver.events)
        page = await service.get("/v1/events", as_service("read"), limit=100)
        await restore(service)

        jumped = await restoring.jump(service.context)
        expired = await service.get("/v1/events", as_service("read"), after=page.json()["next_cursor"])
        assert (expired.status_code, expired.json()["code"]) == (410, "cursor_expired")
        rows, after = await read_snapshot(service)
        assert after == jumped.place
        await reconcile.reconcile(service.context, dry_run=False, allow_removals=None, report=lambda _: None)
        await deliver(service, worker)
        fresh = receiver.events[len(lost) :]

    # It has a queue of its own, so the first events of the subscription may overtake it.
    assert [event["id"] for event in fresh if event["type"] == "sync.completed"] == [jumped.event_id]
    assert {event["id"] for event in fresh}.isdisjoint({event["id"] for event in lost})
    own = [event for event in fresh if event["subscription_id"] == company.subscription_id]
    delivered = [event for event in lost if event["subscription_id"] == company.subscription_id]
    assert own[0]["previous_sequence"] < delivered[-1]["sequence"] < own[0]["sequence"]
    assert [event["sequence"] for event in own] == list(
        range(own[0]["sequence"], own[0]["sequence"] + len(own))
    )
    revisions = [max(e["data"].get("revision", 0) for e in events) for events in (lost, fresh)]
    assert 0 < revisions[0] < revisions[1]
    state = folded([*rows, *await read_all(service, after)])
    async with service.context.database.connection() as connection:
        assert state.state() == await truth(connection)
    assert len(await company.members()) == 5


async def test_events_go_on_when_the_log_jumps_twice(service: Service) -> None:
    await filled(service)
    first, second = [await restoring.jump(service.context) for _ in range(2)]
    assert first.sequence_floor < second.sequence_floor and first.event_id != second.event_id
    company = await service.company()
    await service.announce()
    found = await read_all(service)
    assert found[0]["id"] == second.event_id
    own = [event["sequence"] for event in found if event["subscription_id"] == company.subscription_id]
    assert own == list(range(second.sequence_floor + 1, second.sequence_floor + 1 + len(own)))


async def test_log_is_opened_above_the_floor_when_the_backup_is_older_than_the_first_fill(
    service: Service,
) -> None:
    jumped = await restoring.jump(service.context)
    assert jumped.event_id is None
    expired = await service.get("/v1/events", as_service("read"), after="pl_3")
    assert expired.status_code == httpx.codes.GONE
    await filled(service)
    [opening] = await read_all(service)
    assert opening["type"] == "sync.completed"
