"""`sync`, `reconcile`, `doctor`, `replay` and `unlink` as an operator runs them: exit codes, tables and JSON."""

import json

import asyncpg

from app.operating.doctor import EVENTS
from app.stripe.client import API_VERSION
from testkit.operator import Operator
from testkit.simulator import Simulator


async def execute(database_url: str, statement: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def test_an_operators_day(stripe_account: Simulator, database_url: str) -> None:
    operator = Operator(stripe_account, database_url)
    await stripe_account.post(
        "/v1/webhook_endpoints",
        url="https://api.example.com/webhooks/stripe",
        enabled_events=sorted(EVENTS),
        api_version=API_VERSION,
    )
    await stripe_account.control("POST", "bulk", customers=130)
    code, report = await operator.report("doctor")
    assert code == 1 and [one["check"] for one in report["findings"] if one["severity"] == "fix"] == ["sync"]
    assert await operator.report("sync") == (0, {"objects": 130, "unrepaired": 0})
    assert (await operator.report("doctor"))[0] == 0

    await execute(database_url, "delete from customers where id in (select id from customers limit 30)")
    code, report = await operator.report("reconcile", "--dry-run")
    assert (code, report["drift"], report["kinds"]["customer"]["repaired"]) == (0, 30, 0)
    code, out, _ = await operator.run("reconcile")
    assert code == 0 and "customer" in out and "30 rows differed" in out
    await stripe_account.control("POST", "reset")
    code, report = await operator.report("reconcile")
    assert (code, report["outcome"], report["kinds"]["customer"]["removed"]) == (1, "stopped", 0)
    code, out, _ = await operator.run("doctor")
    assert code == 1 and "reconcile" in out

    assert await operator.report("replay") == (0, {"replayed": [], "not_dead": []})
    await execute(
        database_url,
        """insert into refreshes (id, kind, notifications, notified_at, attempts, last_error, dead_at)
        values ('cus_1', 'customer', 1, 0, 8, 'name is not a string', now())""",
    )
    code, report = await operator.report("replay", "cus_1", "cus_2")
    assert code == 1 and report["not_dead"] == ["cus_2"]
    assert report["replayed"] == [
        {"id": "cus_1", "kind": "customer", "reason": "name is not a string", "attempts": 8}
    ]


async def test_unlink_ends_a_link_of_a_known_customer_only(
    stripe_account: Simulator, database_url: str
) -> None:
    """P3: a wrong link could not be ended."""
    operator = Operator(stripe_account, database_url)
    made = await stripe_account.post("/v1/customers", metadata={"billing_user_id": "ann"})
    assert await operator.report("sync") == (0, {"objects": 1, "unrepaired": 0})
    await execute(
        database_url,
        f"insert into identities (issuer, subject, customer_id) values ('issuer', 'ann', '{made['id']}')",
    )
    assert await operator.report("unlink", made["id"]) == (0, {"unlinked": made["id"]})
    assert (await stripe_account.get(f"/v1/customers/{made['id']}"))["metadata"] == {}
    code, out, _ = await operator.run("unlink", made["id"])
    assert (code, out) == (0, f"{made['id']} is linked to no login.\n")
    code, report = await operator.report("unlink", "cus_absent")
    assert (code, report["error"]) == (1, "not_found")


async def test_commands_take_ids_that_were_chosen_before_2018(
    stripe_account: Simulator, database_url: str
) -> None:
    """P11: the account's owner chose ids freely, and may have given one id to a customer and a product."""
    operator = Operator(stripe_account, database_url)
    customer = "Kundë 42/user@example.com?"
    await stripe_account.control("POST", "with-id", kind="customer", id=customer, params={})
    await stripe_account.post("/v1/products", id=customer, name="Gold")
    code, report = await operator.report("sync")
    assert (code, report["objects"]) == (0, 2)
    await execute(
        database_url,
        f"insert into identities (issuer, subject, customer_id) values ('issuer', 'ann', '{customer}')",
    )
    assert await operator.report("unlink", customer) == (0, {"unlinked": customer})
    await execute(
        database_url,
        f"""insert into refreshes (id, kind, notifications, notified_at, attempts, last_error, dead_at)
        values ('{customer}', 'customer', 1, 0, 8, 'x', now()),
            ('product' || chr(31) || '{customer}', 'product', 1, 0, 8, 'x', now())
        on conflict (id) do update set dead_at = now(), last_error = 'x'""",
    )
    code, report = await operator.report("replay", customer)
    assert code == 0 and {(one["kind"], one["id"]) for one in report["replayed"]} == {
        ("customer", customer),
        ("product", customer),
    }


async def test_commands_refuse_an_id_that_no_object_can_have(
    stripe_account: Simulator, database_url: str
) -> None:
    """P11: bytes that are no text ended with a traceback."""
    operator = Operator(stripe_account, database_url)
    for command in ("unlink", "replay"):
        for bad in ("a\x07b", "x" * 256, "\udcff"):
            code, _, err = await operator.run(command, bad)
            assert code == 2 and "An id has 1 to 255 characters" in " ".join(err.split()), err


async def test_a_part_that_is_away_is_named_without_a_traceback(
    stripe_account: Simulator, database_url: str
) -> None:
    operator = Operator(stripe_account, database_url)
    operator.environment["DATABASE_URL"] = "postgresql://nobody@127.0.0.1:9/nothing"
    for command in ("reconcile", "doctor", "replay"):
        code, out, err = await operator.run(command, "--json")
        assert (code, json.loads(out)["error"]) == (1, "database_unavailable")
        assert "Traceback" not in err
