"""No statement of a request or of the worker reads a large table from end to end, whatever the statistics say.

The statistics are those of an account in which one subscription has almost all members, so that a generic plan expects
any subscription to have them all. What was really read is counted by PostgreSQL itself, triggers included.
"""

import asyncio
from collections.abc import Sequence

import asyncpg

from app.customers import emptied, seat_moves
from app.domain.ids import SubscriptionId
from app.events import endpoints
from app.events.delivering import Deliverer, Patience
from app.events.secrets import EndpointSecrets
from app.events.sending import WebhookSender
from app.events.store import feed, history
from app.events.store.deliveries import open_endpoints
from app.events.store.endpoints import deliveries
from app.mirror.store import audit, refreshes
from app.mirror.store.members import SEARCHED_MEMBERS, of_ended_subscription
from app.operating import upkeep
from app.sharing import invitation_store
from app.sharing.invitation_tokens import InvitationTokens
from app.sharing.sent_invitations import renderer
from testkit import growth
from testkit.company import Company, Service, new_email, running_service
from testkit.receiver import receiving
from testkit.service import ENCRYPTION_KEY, INVITATION_SECRET, as_service
from testkit.simulator import Simulator, new_account_key

ADMIN = as_service("admin")
MEMBERS = 20_000
OF_EVENTS = ("events", "webhook_deliveries", "webhook_queues")
OF_RETENTION = (
    "webhook_events",
    "idempotency_keys",
    "quotes",
    "reservations",
    "refreshes",
    "audit_events",
    "operations",
    "operation_steps",
)
LARGE = (
    "customers",
    "memberships",
    "member_records",
    "identities",
    "operation_steps",
    "reservations",
    "seat_customers",
    *OF_EVENTS,
)
_READ = "select sum(idx_tup_read)::bigint from pg_stat_user_indexes where relname = any($1)"
_SCANS = "select relname, seq_scan from pg_stat_user_tables where relname = any($1)"


async def scans(url: str, tables: Sequence[str] = LARGE) -> dict[str, int]:
    """Sequential scans of the tables so far, of sessions that have ended."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("select pg_stat_force_next_flush()")
        return {row["relname"]: row["seq_scan"] for row in await connection.fetch(_SCANS, list(tables))}
    finally:
        await connection.close()


async def rows_read(url: str, tables: Sequence[str] = LARGE) -> int:
    """Entries that were read from the indexes of the tables so far, by sessions that have ended."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("select pg_stat_force_next_flush()")
        return int(await connection.fetchval(_READ, list(tables)))
    finally:
        await connection.close()


async def _prepared(company: Company) -> None:
    """A team of 20,000, settled operations of them, and statistics of all that."""
    async with company.service.context.database.unhurried() as connection:
        await growth.add_members(connection, company.subscription_id, "plans", MEMBERS)
        await connection.execute(
            """insert into operations (id, subscription_id, kind, state, principal, source, request, settled_at)
            select 'op_plans' || n, $1, 'member_change', 'settled', 'service:plans', 'api', '{}', clock_timestamp()
            from generate_series(1, $2::int) n""",
            company.subscription_id,
            MEMBERS,
        )
        await connection.execute(
            """insert into operation_steps (operation_id, position, subscription_id, action, customer_id, role, state,
                details, settled_at)
            select 'op_plans' || n, 0, $1, 'add', 'cus_plans' || n, 'user', 'applied', '{}', clock_timestamp()
            from generate_series(1, $2::int) n""",
            company.subscription_id,
            MEMBERS,
        )
        await connection.execute(
            """insert into reservations (operation_id, position, subscription_id, customer_id, released_at)
            select operation_id, 0, subscription_id, customer_id, clock_timestamp() from operation_steps
            where operation_id like 'op_plans%'"""
        )
        await connection.execute(
            """insert into seat_customers (customer_id, email, operation_id)
            select customer_id, typed_email, 'op_plans' from member_records where typed_email is not null"""
        )
        await connection.execute("analyze")


async def test_large_tables_are_never_read_whole_when_one_team_has_almost_all_members(
    stripe_simulator: str, database_url: str
) -> None:
    """Section "Memberships as rows": reads, pages, search, access, changes, events and the worker use indexes."""
    async with Simulator(stripe_simulator, new_account_key()) as stripe:
        async with running_service(stripe, database_url) as service:
            company, small = await service.company(seats=MEMBERS + 10), await service.company(seats=9)
            await _prepared(company)
        before = await scans(database_url)
        async with running_service(stripe, database_url) as service:
            for team in (company, small):
                team.service = service
                await _used(team)
            await service.work_off()
            await emptied.delete_emptied(service.context)
        assert await scans(database_url) == before


async def test_clean_up_reads_no_large_table_whole_when_thousands_of_its_members_are_paused(
    stripe_simulator: str, database_url: str
) -> None:
    """A member whose clean-up has failed is left out for a while, and there may be as many as members."""
    async with Simulator(stripe_simulator, new_account_key()) as stripe:
        async with running_service(stripe, database_url) as service:
            company = await service.company(seats=MEMBERS + 10)
            await _prepared(company)
            await service.fetch(
                "update subscriptions set status = 'canceled' where id = $1", company.subscription_id
            )
            await service.fetch(
                """with settled as (
                    insert into operations (id, subscription_id, kind, state, principal, source, request, settled_at)
                    select 'op_cleanup' || n, $1, 'cleanup', 'settled', 'system:cleanup', 'api', '{}', clock_timestamp()
                    from generate_series(0, 499) n returning id)
                insert into operation_steps (operation_id, position, subscription_id, action, customer_id, state, code,
                    details, settled_at)
                select 'op_cleanup' || n / 20, n % 20, $1, 'remove', 'cus_plans' || to_char(n, 'FM0000000'), 'failed',
                    'stripe_rejected', '{}', clock_timestamp()
                from generate_series(0, 9999) n""",
                company.subscription_id,
            )
            await service.fetch("analyze")
        before = await scans(database_url)
        async with (
            running_service(stripe, database_url) as service,
            service.context.database.connection() as connection,
            asyncio.timeout(2),
        ):
            found = await of_ended_subscription(connection, ended=["canceled"], limit=20, pause=600.0)
        assert found is not None
        # Two more people are members of every company, and may come first.
        assert next(one for one in found[1] if one.startswith("cus_plans")) == growth.member_id(
            "plans", 10_000
        )
        assert await scans(database_url) == before


async def _logged(service: Service, endpoint_id: str) -> None:
    """20,000 events, a tenth of them past their retention, which one endpoint has received, and statistics of that."""
    async with service.context.database.unhurried() as connection:
        await connection.execute(
            """insert into events (position, id, type, created, subscription_id, sequence, data)
            select 1000000 + n, 'evt_plans' || n, 'owner.changed',
                now() - case when n <= 2000 then interval '40 days' else interval '1 day' end, 'sub_plans' || n, 1,
                '{"owner_id": null, "previous_owner_id": null, "source": "api", "operation_id": null}'
            from generate_series(1, $1::int) n""",
            MEMBERS,
        )
        await connection.execute(
            """insert into webhook_deliveries (id, endpoint_id, position, event_id, state, attempts)
            select 'dl_' || lpad(n::text, 24, '0'), $2, 1000000 + n, 'evt_plans' || n, 'delivered', '[]'
            from generate_series(1, $1::int) n""",
            MEMBERS,
            endpoint_id,
        )
        await connection.execute(
            """insert into webhook_queues (endpoint_id, subscription_id, delivered_to, due_at, failures)
            select $2, 'sub_plans' || n, 1000000 + n, now(), 0 from generate_series(1, $1::int) n""",
            MEMBERS,
            endpoint_id,
        )
        await connection.execute("delete from events where position < 1000000")
        await connection.execute("update event_log set position = 1000000 + $1::int", MEMBERS)
        await connection.execute("update webhook_endpoints set queued_to = 1000000 + $1::int", MEMBERS)
        await connection.execute("analyze")


async def test_event_tables_are_never_read_whole_when_one_endpoint_has_received_all(
    stripe_simulator: str, database_url: str
) -> None:
    """Retention and the deletion of an endpoint read all deliveries, and ended at the limit of a statement."""
    async with Simulator(stripe_simulator, new_account_key()) as stripe, receiving() as receiver:
        body = {"url": receiver.url, "types": ["owner.changed"]}
        async with running_service(stripe, database_url) as service:
            await service.fill()
            company = await service.company(seats=9)
            await service.announce()
            made = [await service.send("POST", "/v1/webhook-endpoints", ADMIN, body) for _ in range(2)]
            first, second = (one.json()["webhook_endpoint"]["id"] for one in made)
            await _logged(service, first)
        before = await scans(database_url)
        async with running_service(stripe, database_url) as service:
            company.service = service
            path = f"/v1/webhook-endpoints/{first}"
            page = (await service.get(f"{path}/deliveries", ADMIN)).json()
            await service.get(f"{path}/deliveries", ADMIN, cursor=page["next_cursor"])
            again = await service.send("POST", f"{path}/deliveries/dl_{MEMBERS:024}/redeliver", ADMIN)
            assert again.status_code == 202, again.text
            changed = await company.change(company.owner.headers, add=[new_email()])
            assert changed.status_code == 200, changed.text
            await service.announce()
            assert (await service.get("/v1/events", as_service("read"), limit=5)).status_code == 200
            await _delivered(service)
            await endpoints.forget_deleted(service.context)
            async with service.context.database.connection() as connection:
                while await feed.purge(connection, days=35):
                    pass
            for endpoint_id in (first, second):
                gone = await service.send("DELETE", f"/v1/webhook-endpoints/{endpoint_id}", ADMIN)
                assert gone.status_code == 204, gone.text
            await endpoints.forget_deleted(service.context)
        after = await scans(database_url)
        assert {table: after[table] - before[table] for table in OF_EVENTS} == dict.fromkeys(OF_EVENTS, 0)
        assert [event["id"] for event in receiver.events] == [f"evt_plans{MEMBERS}"]
        async with running_service(stripe, database_url) as service:
            [left] = await service.fetch(
                """select (select count(*) from webhook_deliveries) as deliveries,
                    (select count(*) from webhook_queues) as queues,
                    (select min(position) from events where id like 'evt_plans%') as first"""
            )
        assert (left["deliveries"], left["queues"], left["first"]) == (0, 0, 1_002_001)


async def _kept_and_expired(service: Service) -> None:
    """20,000 rows in each table that retention shortens, a tenth of them past it, and statistics of that."""
    aged = "clock_timestamp() - case when n % 10 = 0 then interval '401 days' else interval '1 minute' end"
    rows = f"(select n, {aged} as at from generate_series(1, {MEMBERS}) n) aged"
    async with service.context.database.unhurried() as connection:
        for statement in (
            f"""insert into webhook_events (id, type, outcome, received_at)
            select 'evt_aged' || n, 't', 'applied', at from {rows}""",
            f"""insert into idempotency_keys (principal, route, key, request_hash, created_at)
            select 'p', 'r', n, '', at from {rows}""",
            f"""insert into quotes (id, subscription_id, principal, change_hash, state_hash, proration_date, expires_at,
                quoted_at, currency, amount_due, credit, credit_forgone, tax, crediting)
            select 'quote_aged' || n, 'sub_aged', 'p', '', '', 0, at, 0, 'usd', 0, 0, 0, 0, false from {rows}""",
            f"""insert into reservations (operation_id, position, subscription_id, customer_id, released_at)
            select 'op_aged' || n, 0, 'sub_aged', 'cus_aged', at from {rows}""",
            f"""insert into refreshes (id, kind, notifications, notified_at, not_before)
            select 'cus_aged' || n, 'customer', 0, 0, at from {rows}""",
            f"""insert into audit_events (subscription_id, at, source, action, before, after)
            select 'sub_aged', at, 'api', 'aged', '{{}}', '{{}}' from {rows} order by at""",
            f"""insert into operations (id, subscription_id, kind, state, principal, source, request, settled_at)
            select 'op_aged' || n, 'sub_aged', 'leave', 'settled', 'p', 'api', '{{}}', at from {rows}""",
            f"""insert into operation_steps (operation_id, position, subscription_id, action, customer_id, state,
                details, settled_at)
            select 'op_aged' || n, position, 'sub_aged', 'remove', 'cus_aged', 'applied', '{{}}', at
            from {rows}, generate_series(0, 1) position""",
        ):
            await connection.execute(statement)
        await connection.execute("analyze")


async def test_retention_reads_no_table_whole_when_a_tenth_has_expired(
    stripe_simulator: str, database_url: str
) -> None:
    """Each table was read from end to end every ten minutes, until that took longer than a statement may."""
    async with Simulator(stripe_simulator, new_account_key()) as stripe:
        async with running_service(stripe, database_url) as service:
            await _kept_and_expired(service)
        before = await scans(database_url, OF_RETENTION)
        async with running_service(stripe, database_url) as service:
            deleted = await upkeep.purge(service.context)
            again = await upkeep.purge(service.context)
        assert await scans(database_url, OF_RETENTION) == before
    expected = dict.fromkeys(OF_RETENTION, MEMBERS // 10) | {"operation_steps": MEMBERS // 5}
    assert {table: deleted[table] for table in OF_RETENTION} == expected
    assert set(again.values()) == {0}


async def _invited(company: Company) -> None:
    """20,000 open invitations to a team, as many that ended yesterday, and statistics of that."""
    async with company.service.context.database.unhurried() as connection:
        await connection.execute(
            """insert into invitations (id, subscription_id, email, role, state, reason, expires_at, ended_at)
            select 'inv_' || state || n, $1, 'invited.' || n || '@example.com', 'user', state,
                case state when 'revoked' then 'added' end, clock_timestamp() + interval '13 days',
                case state when 'revoked' then clock_timestamp() - interval '1 day' end
            from generate_series(1, $2::int) n, unnest(array['open', 'revoked']) state""",
            company.subscription_id,
            MEMBERS,
        )
        await connection.execute(
            """insert into reservations (subscription_id, invitation_id)
            select subscription_id, id from invitations where state = 'open'"""
        )
        await connection.execute("analyze")


async def test_few_invitations_are_read_when_another_team_has_thousands_open(
    stripe_simulator: str, database_url: str
) -> None:
    """An addition read all open invitations of the installation under the subscription's lock, to find those due."""
    async with Simulator(stripe_simulator, new_account_key()) as stripe:
        async with running_service(stripe, database_url) as service:
            large, small = await service.company(seats=2 * MEMBERS), await service.company(seats=9)
            await _invited(large)
        before = await rows_read(database_url, ["invitations"])
        before_scans = await scans(database_url, ["invitations"])
        async with running_service(stripe, database_url) as service:
            small.service = service
            added = await small.change(small.owner.headers, add=[new_email()])
            assert added.status_code == 200, added.text
            assert (await small.invite(small.owner.headers)).status_code == 201
            assert await service.end_invitations() == 0
        assert await scans(database_url, ["invitations"]) == before_scans
        assert await rows_read(database_url, ["invitations"]) - before < 100


async def _waiting(company: Company) -> None:
    """20,000 rows in each of the worker's queues that are due in an hour, old clean-ups, and statistics of that."""
    later = "clock_timestamp() + interval '1 hour'"
    rows = f"generate_series(1, {MEMBERS}) n"
    async with company.service.context.database.unhurried() as connection:
        await connection.execute("update event_log set position = 1000")
        for statement in (
            f"""insert into refreshes (id, kind, notifications, notified_at, not_before)
            select 'cus_later' || n, 'customer', 1, 0, {later} from {rows}""",
            f"""insert into identities (issuer, subject, customer_id, seats_due)
            select 'https://later.example', n, 'cus_later' || n, {later} from {rows}""",
            f"""insert into webhook_queues (endpoint_id, subscription_id, delivered_to, next_position, due_at, failures)
            select 'we_later', 'sub_later' || n, 0, 1, {later}, 1 from {rows}""",
            """insert into webhook_endpoints (id, url, status, secret, queued_to)
            values ('we_later', 'https://later.example', 'enabled', '', 1000)""",
            f"""insert into operations (id, subscription_id, kind, state, principal, source, request, created_at,
                settled_at)
            select 'op_later' || n, '{company.subscription_id}', 'cleanup', 'settled', 'p', 'api', '{{}}',
                clock_timestamp() - interval '10 days', clock_timestamp() - interval '10 days' from {rows}""",
            f"update subscriptions set status = 'canceled' where id = '{company.subscription_id}'",
            "analyze",
        ):
            await connection.execute(statement)


async def test_worker_reads_few_rows_when_thousands_wait_for_later(
    stripe_simulator: str, database_url: str
) -> None:
    """A worker that looks for what is due, five times a second, read everything that waits for a later time."""
    queues = ("refreshes", "identities", "webhook_queues", "operations")
    async with Simulator(stripe_simulator, new_account_key()) as stripe:
        async with running_service(stripe, database_url) as service:
            await _waiting(await service.company(seats=9))
        before = {table: await rows_read(database_url, [table]) for table in queues}
        before_scans = await scans(database_url, queues)
        async with running_service(stripe, database_url) as service:
            async with service.context.database.transaction() as connection:
                assert await refreshes.due(connection, limit=8, lease_seconds=30) == []
                assert await open_endpoints(connection) == []
                found = await of_ended_subscription(connection, ended=["canceled"], limit=20, pause=600.0)
                assert found is not None
            assert await seat_moves.move_due(service.context, limit=8) == 0
        read = {table: await rows_read(database_url, [table]) - before[table] for table in queues}
        assert await scans(database_url, queues) == before_scans
        assert max(read.values()) < 100, read


async def _journals(company: Company) -> None:
    """20,000 entries of a team in each list that is read by pages, as many events, and statistics of that."""
    rows = f"generate_series(1, {MEMBERS}) n"
    async with company.service.context.database.unhurried() as connection:
        for statement in (
            f"""insert into audit_events (subscription_id, source, action, before, after)
            select '{company.subscription_id}', 'api', 'aged', '{{}}', '{{}}' from {rows}""",
            f"""insert into invitations (id, subscription_id, email, role, state, expires_at, ended_at)
            select 'inv_' || n, '{company.subscription_id}', n || '@example.com', 'user', 'declined',
                clock_timestamp(), clock_timestamp() from {rows}""",
            f"""insert into webhook_deliveries (id, endpoint_id, position, event_id, state, attempts)
            select 'dl_' || n, 'we_pages', n, 'evt_pages' || n, 'delivered', '[]' from {rows}""",
            f"""insert into events (position, id, type, created, subscription_id, sequence, data)
            select n, 'evt_pages' || n, 'seats.changed', clock_timestamp(),
                case when n < 10 then 'sub_rare' else '{company.subscription_id}' end, n, '{{}}' from {rows}""",
            "analyze",
        ):
            await connection.execute(statement)


async def test_page_reads_its_own_rows_when_thousands_are_newer(
    stripe_simulator: str, database_url: str
) -> None:
    """Each page of a list read all pages before it, and the events of one subscription were looked for in all."""
    lists = ("audit_events", "invitations", "webhook_deliveries", "events")
    async with Simulator(stripe_simulator, new_account_key()) as stripe:
        async with running_service(stripe, database_url) as service:
            company = await service.company(seats=9)
            await _journals(company)
            [oldest] = await service.fetch("select min(id) as entry from audit_events where action = 'aged'")
        before = {table: await rows_read(database_url, [table]) for table in lists}
        before_scans = await scans(database_url, lists)
        async with (
            running_service(stripe, database_url) as service,
            service.context.database.reading() as connection,
        ):
            shared = SubscriptionId(company.subscription_id)
            before_last = oldest["entry"] + 5
            assert await audit.page(connection, shared, with_members=True, before=before_last, limit=20)
            assert len(await invitation_store.page(connection, shared, states=[], before=5, limit=20)) == 4
            assert len(await deliveries(connection, "we_pages", before=5, limit=20)) == 4
            assert len(await history.newest(connection, types=[], subscription_id="sub_rare", limit=20)) == 9
            rare = "sub_rare"
            page = await feed.page(connection, after=0, types=None, subscription_id=rare, limit=20)
            assert [event["position"] for event in page] == list(range(1, 10))
            assert await feed.looked_to(connection, after=0, subscription_id=rare) is None
        read = {table: await rows_read(database_url, [table]) - before[table] for table in lists}
        assert await scans(database_url, lists) == before_scans
        assert max(read.values()) < 100, read


async def _delivered(service: Service) -> None:
    async with WebhookSender(live=False, seconds=5.0) as sender:
        render = renderer(service.context, InvitationTokens([INVITATION_SECRET]))
        patience = Patience(timeout=5.0, retry_max=3600.0, disable_after=432_000.0)
        deliverer = Deliverer(service.context, sender, EndpointSecrets([ENCRYPTION_KEY]), patience, render)
        for _ in range(3):
            await deliverer.begin_what_is_due(asyncio.Event())
            if deliverer.running:
                await asyncio.wait(set(deliverer.running))


async def test_list_by_state_reads_few_rows_when_almost_all_members_are_in_another_state(
    stripe_simulator: str, database_url: str
) -> None:
    """Readings "People" 13: a page and its count cost the same, whatever the share of the state is."""
    async with Simulator(stripe_simulator, new_account_key()) as stripe:
        async with running_service(stripe, database_url) as service:
            company = await service.company(seats=MEMBERS + 10)
            await _prepared(company)
            await service.fetch(
                "update member_records set typed_email = null where customer_id <> $1",
                growth.member_id("plans", MEMBERS - 6),
            )
            await service.fetch("vacuum analyze")
        async with running_service(stripe, database_url) as service:
            company.service = service
            (await service.get(f"{company.path}/users", company.owner.headers)).raise_for_status()
        before = await rows_read(database_url)
        async with running_service(stripe, database_url) as service:
            for query in ({}, {"role": "user"}, {"role": "manager"}):
                page = await service.get(
                    f"{company.path}/users", company.owner.headers, state="unclaimed", **query
                )
                assert (
                    page.json()["total_count"] == (query.get("role") != "manager") == len(page.json()["data"])
                )
        assert await rows_read(database_url) - before < 300


async def test_search_looks_at_a_thousand_members_when_most_teams_are_small(
    stripe_simulator: str, database_url: str
) -> None:
    """Section "Memberships as rows": a search is bounded, also where statistics make any team look like a small one."""
    async with Simulator(stripe_simulator, new_account_key()) as stripe:
        async with running_service(stripe, database_url) as service:
            company = await service.company(seats=MEMBERS + 10)
            await _prepared(company)
            await service.fetch("alter table memberships alter subscription_id set (n_distinct = 300)")
            await service.fetch("vacuum analyze")
        before = await rows_read(database_url)
        async with running_service(stripe, database_url) as service:
            company.service = service
            found = await service.get(
                f"{company.path}/users", company.owner.headers, search="member", limit=5
            )
            assert len(found.json()["data"]) == 5
            for query in (
                {},
                {"role": "user"},
                {"state": "unclaimed"},
                {"state": "unclaimed", "role": "user"},
            ):
                found = await service.get(
                    f"{company.path}/users", company.owner.headers, search="of nobody", **query
                )
                assert found.json()["data"] == [] and found.json()["next_cursor"]
        # Five times a thousand, each with its customer and its record of membership.
        assert await rows_read(database_url) - before < 5 * 3 * SEARCHED_MEMBERS + 1_000


async def _used(company: Company) -> None:
    service, owner, user = company.service, company.owner.headers, company.user
    page = await service.get(f"{company.path}/users", owner)
    if page.json()["next_cursor"]:
        await service.get(f"{company.path}/users", owner, cursor=page.json()["next_cursor"])
    for query in (
        {"role": "manager"},
        {"search": "member"},
        {"search": user.email},
        {"limit": 100},
        {"state": "unclaimed"},
        {"state": "active", "role": "user"},
        {"state": "active", "search": "member"},
    ):
        assert (await service.get(f"{company.path}/users", owner, **query)).status_code == 200
    for who in (owner, user.headers, company.manager.headers, as_service("read")):
        assert (await service.get(company.path, who)).status_code == 200
    assert (await service.get(f"{company.path}/users", user.headers)).status_code == 200
    for person in (company.owner, user):
        assert (await service.get("/v1/customers/me/subscriptions", person.headers)).status_code == 200
        access = f"/v1/customers/{person.customer_id}/access"
        assert (
            await service.get(access, as_service("read"), product_id=company.product_id)
        ).status_code == 200
    unknown = new_email()
    changed = await company.change(owner, add=[unknown, company.stranger.email])
    assert changed.status_code == 200, changed.text
    update = [{"customer_id": user.customer_id, "role": "manager"}]
    changed = await company.change(owner, update=update, remove=[company.stranger.customer_id])
    assert changed.status_code == 200, changed.text
    offer = {"to_customer_id": user.customer_id, "keep_me_as": "manager"}
    assert (await service.send("POST", f"{company.path}/transfer", owner, offer)).is_success
    accepted = await service.send("POST", f"{company.path}/transfer/accept", user.headers)
    assert accepted.status_code == 200, accepted.text
    found = await service.stripe.get(f"/v1/customers/{company.stranger.customer_id}")
    await service.deliver_state("customer", {**found, "name": "Renamed"})
    await service.refresh("customer", company.stranger.customer_id)
