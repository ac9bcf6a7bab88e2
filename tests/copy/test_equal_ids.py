"""A customer, a product and a price may have one id: the account's owner chose them freely until 2018."""

import asyncio
import secrets

from app.domain.ids import is_id_of
from app.mirror import refreshing as sync
from app.mirror.reconcile import reconcile
from app.mirror.store import refreshes
from app.mirror.store.object_keys import id_of, key_of
from app.postgres.database import Connection
from testkit.company import Service, event_of
from testkit.problems import ok

KINDS = ("customer", "price", "product")


async def equal(service: Service) -> str:
    """A customer, a product and a price with one id, mirrored."""
    name = f"gold {secrets.token_hex(4)}"
    await service.stripe.post("/v1/products", id=name, name="Before")
    terms = {"product": name, "currency": "usd", "unit_amount": 100, "recurring": {"interval": "month"}}
    await service.stripe.control("POST", "with-id", kind="price", id=name, params=terms)
    await service.stripe.control("POST", "with-id", kind="customer", id=name, params={"name": "Before"})
    for kind in KINDS:
        await service.refresh(kind, name)
    return name


async def changed(service: Service, name: str) -> None:
    """Change all three at Stripe, without news."""
    await service.stripe.post(f"/v1/customers/{name}", name="After")
    await service.stripe.post(f"/v1/products/{name}", name="After")
    await service.stripe.post(f"/v1/prices/{name}", nickname="After")


async def names(service: Service, name: str) -> list[str]:
    rows = await service.fetch(
        """select name from customers where id = $1 union all select name from products where id = $1
        union all select nickname from prices where id = $1""",
        name,
    )
    return [row["name"] for row in rows]


def test_key_names_one_object_of_all_kinds() -> None:
    ids = ["gold", "prod_1", "price_1", "plan_1", "cus_1", "sub_1", "in_1", "pm_1", "product", "product gold"]
    kinds = (*KINDS, "subscription", "invoice", "payment_method")
    objects = [(kind, one) for kind in kinds for one in ids if is_id_of(kind, one)]
    assert len({key_of(kind, one) for kind, one in objects}) == len(objects) > len(ids)
    assert all(id_of(kind, key_of(kind, one)) == one for kind, one in objects)


async def test_notifications_are_told_apart_when_ids_are_equal(connection: Connection) -> None:
    """P11: the notification of a product counted as one of the customer, and the product was never fetched."""
    for kind in KINDS:
        await refreshes.note(connection, kind, "gold", notified_at=1000)
    leases = await refreshes.due(connection, limit=9, lease_seconds=30)
    assert sorted((lease.kind, lease.id, lease.notifications) for lease in leases) == [
        (kind, "gold", 1) for kind in KINDS
    ]
    assert await refreshes.take(connection, "product", "gold", lease_seconds=30) is None
    for lease in leases:
        assert await refreshes.still_held(connection, lease)
        await refreshes.mark_applied(connection, lease)
        left = {kind for kind, _ in await refreshes.wanted(connection, [(kind, "gold") for kind in KINDS])}
        assert left == {one.kind for one in leases[leases.index(lease) + 1 :]}
    assert await refreshes.take(connection, "product", "gold", lease_seconds=30) is not None


async def test_refresh_that_an_older_release_noted_is_done(connection: Connection) -> None:
    """Its row has the bare id, whatever the kind is."""
    await connection.execute(
        "insert into refreshes (id, kind, notifications, notified_at) values ('gold', 'product', 1, 1000)"
    )
    [lease] = await refreshes.due(connection, limit=9, lease_seconds=30)
    assert (lease.kind, lease.id) == ("product", "gold")
    await refreshes.mark_applied(connection, lease)
    row = await connection.fetchrow("select notifications, lease_token from refreshes where id = 'gold'")
    assert row is not None and (row["notifications"], row["lease_token"]) == (0, None)


async def test_dead_refreshes_are_replayed_by_the_id_of_the_object(connection: Connection) -> None:
    for kind in KINDS:
        await refreshes.note(connection, kind, "silver", notified_at=1000)
    await connection.execute(
        "update refreshes set dead_at = clock_timestamp(), last_error = 'stripe_rejected'"
    )
    assert {(one.kind, one.id) for one in await refreshes.dead(connection, limit=9)} == {
        (kind, "silver") for kind in KINDS
    }
    assert {one.kind for one in await refreshes.replay(connection, ["silver"])} == set(KINDS)


async def test_each_object_is_refreshed_when_events_name_equal_ids(service: Service) -> None:
    name = await equal(service)
    await changed(service, name)
    for event_type, path in (
        ("product.updated", "products"),
        ("price.updated", "prices"),
        ("customer.updated", "customers"),
    ):
        old = {**await service.stripe.get(f"/v1/{path}/{name}"), "name": "Stale", "nickname": "Stale"}
        ok(await service.deliver(event_of(event_type, old, created=1_000_000)))
    await service.fetch("update refreshes set not_before = now() returning id")
    async with service.context.database.connection() as connection:
        leases = [
            lease for lease in await refreshes.due(connection, limit=99, lease_seconds=30) if lease.id == name
        ]
    assert {lease.kind for lease in leases} == set(KINDS)
    assert all([await sync.refresh(service.context, lease) for lease in leases])
    assert await names(service, name) == ["After"] * 3


async def test_write_of_one_object_waits_for_no_other_when_ids_are_equal(service: Service) -> None:
    name = await equal(service)
    lease = await sync.take_lease(service.context, "customer", name)
    async with asyncio.timeout(5):
        await service.refresh("product", name)
    await sync.release(service.context, lease)


async def test_reconcile_repairs_each_object_when_ids_are_equal(service: Service) -> None:
    """The finding of the second kind was dropped, and its outcome counted for the first."""
    name = await equal(service)
    await service.fill()
    await changed(service, name)
    result = await reconcile(service.context, report=lambda _: None)
    assert {kind: (result.kinds[kind].stale, result.kinds[kind].repaired) for kind in KINDS} == dict.fromkeys(
        KINDS, (1, 1)
    )
    assert await names(service, name) == ["After"] * 3
    await service.stripe.delete(f"/v1/customers/{name}")
    await service.stripe.post(f"/v1/products/{name}", name="Again")
    result = await reconcile(service.context, report=lambda _: None)
    assert result.kinds["customer"].removed == 1 and result.kinds["product"].repaired == 1
    assert result.unrepaired == 0
