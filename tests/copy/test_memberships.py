"""The projection of memberships: rows and counts follow each customer's row in the statement that applies it."""

import asyncio
import random
from typing import Any

import pytest

from app.domain import metadata as keys
from app.domain.ids import CustomerId, SubscriptionId
from app.domain.snapshots import Customer
from app.identity import store as identities
from app.mirror.store import members
from app.mirror.store import rows as mirror
from app.mirror.store.members import MemberQuery
from app.mirror.store.rows import EventRecord
from app.postgres.database import Connection, Database
from app.stripe.parsing import PARSERS
from testkit.memberships import membership_mismatches

SUBSCRIPTIONS = tuple(f"sub_{name}" for name in "ABCDE")


def customer(number: int, metadata: dict[str, str], *, deleted: bool = False) -> Customer:
    source = {"id": f"cus_{number}", "created": 100, "email": f"{number}@example.com", "metadata": metadata}
    parsed = PARSERS["customer"]({**source, "deleted": True} if deleted else source)
    assert isinstance(parsed, Customer)
    return parsed


def guide(subscription_id: str, role: str = "user") -> dict[str, str]:
    return keys.membership_values(SubscriptionId(subscription_id), role)


async def event(connection: Connection, *snapshots: Customer, at: int) -> None:
    records = [
        EventRecord(f"evt_{one.id}_{at}", "customer.updated", one.id, at, True, "applied")
        for one in snapshots
    ]
    await mirror.apply_events(connection, list(zip(records, snapshots, strict=True)), margin=2)


async def rows(connection: Connection) -> set[tuple[str, str, str]]:
    found = await connection.fetch("select subscription_id, customer_id, role from memberships")
    return {(row["subscription_id"], row["customer_id"], row["role"]) for row in found}


async def count(connection: Connection, subscription_id: str, role: str | None = None) -> int | None:
    return await members.count(connection, MemberQuery(SubscriptionId(subscription_id), None, role, None))


async def test_every_key_is_a_row_and_one_seat_when_both_forms_name_one_subscription(
    connection: Connection,
) -> None:
    both = {**guide("sub_A", "user"), "billing_sub_A": "manager", "billing_sub_B": " Manager "}
    await event(connection, customer(1, both), at=1000)
    assert await rows(connection) == {("sub_A", "cus_1", "user"), ("sub_B", "cus_1", "manager")}
    assert (await count(connection, "sub_A"), await count(connection, "sub_B", "manager")) == (1, 1)
    # Without the guide's form the further key counts.
    await event(connection, customer(1, {"billing_sub_A": "manager"}), at=1010)
    assert await rows(connection) == {("sub_A", "cus_1", "manager")}
    assert await count(connection, "sub_B") == 0


@pytest.mark.parametrize("how", ["deleted", "absent"])
async def test_seats_are_free_when_the_customer_is_gone(connection: Connection, how: str) -> None:
    both = {**guide("sub_A"), "billing_sub_B": "user"}
    await event(connection, customer(1, both), customer(2, guide("sub_A")), at=1000)
    if how == "deleted":
        await event(connection, customer(1, {}, deleted=True), at=1010)
    else:
        serial = await mirror.serial_of(connection, "customer", "cus_1")
        assert await mirror.mark_absent(connection, "customer", "cus_1", serial=serial, marker=1010)
    assert await rows(connection) == {("sub_A", "cus_2", "user")}
    assert (await count(connection, "sub_A"), await count(connection, "sub_B")) == (1, 0)


def metadata_of(chance: random.Random) -> dict[str, str]:
    values = ("user", "manager", " Manager\n", "owner", "", "us\x00er")
    found = guide(chance.choice(SUBSCRIPTIONS), chance.choice(values)) if chance.random() < 0.5 else {}
    for name in SUBSCRIPTIONS:
        if chance.random() < 0.3:
            found[f"billing_{name}"] = chance.choice(values)
    return found


async def typed(connection: Connection, chance: random.Random) -> None:
    """Members are given seats by an address, act, or leave, each in a transaction without an event."""
    for subscription_id, customer_id, _ in sorted(await rows(connection)):
        how, names = chance.random(), (SubscriptionId(subscription_id), CustomerId(customer_id))
        if how < 0.4:
            await members.record_joined(connection, *names, f"{customer_id}@example.com")
        elif how < 0.5:
            await members.record_left(connection, *names)
        elif how < 0.6:
            await connection.execute(
                "update member_records set typed_email = null where customer_id = $1", customer_id
            )
        elif how < 0.65:
            await connection.execute("delete from member_records where customer_id = $1", customer_id)


@pytest.mark.parametrize("seed", range(8))
async def test_projection_equals_the_parser_when_customers_change_at_random(
    connection: Connection, seed: int
) -> None:
    chance = random.Random(seed)
    at, expected = 1000, dict[int, dict[SubscriptionId, str]]()
    for _ in range(40):
        at += 10
        numbers = sorted(chance.sample(range(6), chance.randint(1, 4)))
        changed = [customer(number, metadata_of(chance)) for number in numbers]
        how = chance.random()
        if how < 0.5:
            await event(connection, *changed, at=at)
        elif how < 0.6:
            new = [one for one in changed if int(one.id[4:]) not in expected]
            await mirror.apply_page(connection, new, marker=at)
            changed = new
        elif how < 0.9:
            for one in changed:
                serial = await mirror.serial_of(connection, "customer", one.id)
                await mirror.apply_fetched(connection, one, serial=serial, marker=at)
        else:
            for one in changed:
                serial = await mirror.serial_of(connection, "customer", one.id)
                await mirror.mark_absent(connection, "customer", one.id, serial=serial, marker=at)
            changed = [customer(int(one.id[4:]), {}) for one in changed]
        expected.update({int(one.id[4:]): one.memberships for one in changed})
        await typed(connection, chance)
        assert await membership_mismatches(connection) == []
    assert await rows(connection) == {
        (subscription_id, f"cus_{number}", role)
        for number, found in expected.items()
        for subscription_id, role in found.items()
    }


async def test_counts_never_wait_when_transactions_change_them_in_different_orders(
    database: Database,
) -> None:
    """Two transactions that hold the counts of two subscriptions, each in the other's order, would deadlock."""

    async def join(number: int, *subscription_ids: str) -> None:
        async with database.transaction() as connection:
            for position, name in enumerate(subscription_ids):
                await event(connection, customer(10 * number + position, guide(name)), at=1000)
                await asyncio.sleep(0.05)

    async with asyncio.timeout(5):
        await asyncio.gather(
            *(join(n, *(SUBSCRIPTIONS if n % 2 else SUBSCRIPTIONS[::-1])) for n in range(1, 7))
        )
    async with database.connection() as connection:
        assert await membership_mismatches(connection) == []
        assert [await count(connection, name) for name in SUBSCRIPTIONS] == [6] * len(SUBSCRIPTIONS)
        # The next change replaces the rows that were written side by side.
        await event(connection, customer(1, guide("sub_A")), at=1010)
        number: Any = await connection.fetchval(
            "select count(*) from membership_counts where subscription_id = 'sub_A'"
        )
        assert number == 1


async def test_unclaimed_members_are_counted_once_when_acts_meet_removals(database: Database) -> None:
    """An act and an event lock the same rows; in different orders they would wait for each other."""
    async with database.connection() as connection:
        everywhere = {f"billing_{name}": "user" for name in SUBSCRIPTIONS}
        for number in range(30):
            await event(connection, customer(number, everywhere), at=1000)
            for name in SUBSCRIPTIONS:
                await members.record_joined(
                    connection, SubscriptionId(name), CustomerId(f"cus_{number}"), f"{number}@example.com"
                )
            await connection.execute(
                "insert into identities (issuer, subject, customer_id) values ('here', $1, $1)",
                f"cus_{number}",
            )

    async def act(number: int) -> None:
        async with database.connection() as connection:
            await identities.record_act(connection, "here", f"cus_{number}")

    async def leave(number: int) -> None:
        async with database.transaction() as connection:
            await event(connection, customer(number, {"billing_sub_C": "manager"}), at=1010)

    async with asyncio.timeout(20):
        await asyncio.gather(*(work(number) for number in range(30) for work in (act, leave)))
    async with database.connection() as connection:
        assert await membership_mismatches(connection) == []
        assert await count(connection, "sub_C") == 30


async def test_projection_names_the_member_by_any_customer_id(connection: Connection) -> None:
    odd = PARSERS["customer"](
        {"id": "user-42@example.com", "created": 100, "metadata": {"billing_sub_A": "user"}}
    )
    assert isinstance(odd, Customer)
    await event(connection, odd, at=1000)
    assert await members.is_member(connection, SubscriptionId("sub_A"), CustomerId("user-42@example.com"))
