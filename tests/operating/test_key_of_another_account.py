"""A key of another account or mode: every command that has a Stripe key refuses it, and the copy stays as it is."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
import typer
from typer.core import TyperGroup

from app.commands.cli import cli
from testkit.company import new_email, running_service
from testkit.operator import Operator
from testkit.simulator import Simulator, new_account_key

WITHOUT_A_COPY = {
    "serve",
    "worker",
    "migrate",
    "replay",
    "operations acknowledge",
    "health",
    "token",
    "openapi",
    "service-key",
    "dev",
}
"""Processes judge the key while they run, see /readyz; the other commands ask nothing of Stripe."""
WITH_A_COPY = {
    "sync": (),
    "reconcile": (),
    "doctor": (),
    "unlink": ("cus_1",),
    "operations release": ("op_1",),
    "events list": (),
    "events show": ("evt_1",),
    "events redeliver": ("evt_1",),
    "events restored": (),
    "events endpoints": (),
    "events endpoints create": ("https://example.com/hook",),
    "events endpoints enable": ("we_1",),
    "events endpoints disable": ("we_1",),
    "events endpoints rotate-secret": ("we_1",),
    "events endpoints test": ("we_1",),
    "events endpoints delete": ("we_1",),
}
"""The commands that work on the copy, with their arguments."""


def named(command: Any, name: str = "") -> Iterator[str]:
    """Yield the names of a command and of those below it."""
    if not isinstance(command, TyperGroup) or command.invoke_without_command:
        yield name
    if isinstance(command, TyperGroup):
        for part, below in command.commands.items():
            yield from named(below, f"{name} {part}".strip())


async def rows(database_url: str, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(database_url)
    try:
        return await connection.fetch(statement)
    finally:
        await connection.close()


def test_every_command_is_known_to_judge_the_key_or_to_need_none() -> None:
    root = typer.main.get_command(cli)
    assert set(named(root)) == WITHOUT_A_COPY | set(WITH_A_COPY)


@pytest.mark.parametrize("part", range(4))
async def test_command_refuses_the_key_when_it_is_of_another_account(
    stripe_account: Simulator, database_url: str, part: int
) -> None:
    """`unlink` and `release` took a 404 of the other account for a deletion."""
    operator = Operator(stripe_account, database_url)
    assert (await operator.report("sync"))[0] == 0
    operator.environment["STRIPE_API_KEY"] = new_account_key()
    for command in list(WITH_A_COPY)[part::4]:
        code, report = await operator.report(*command.split(), *WITH_A_COPY[command])
        assert (code, report.get("error")) == (1, "wrong_account"), (command, report)


async def test_command_refuses_the_key_when_it_is_of_the_other_mode_and_stripe_is_away(
    stripe_account: Simulator, database_url: str
) -> None:
    operator = Operator(stripe_account, database_url)
    assert (await operator.report("sync"))[0] == 0
    await rows(database_url, "update account set livemode = true")
    operator.environment["STRIPE_API_BASE"] = "http://127.0.0.1:9"
    for command in ("events list", "operations release op_1"):
        code, report = await operator.report(*command.split())
        assert (code, report.get("error")) == (1, "wrong_account"), (command, report)
        assert "test mode" in report["detail"] and "live mode" in report["detail"]


async def test_customer_and_link_stay_when_unlink_has_a_key_of_another_account(
    stripe_account: Simulator, database_url: str
) -> None:
    operator = Operator(stripe_account, database_url)
    made = await stripe_account.post("/v1/customers", metadata={"billing_user_id": "ann"})
    assert (await operator.report("sync"))[0] == 0
    await rows(
        database_url,
        f"insert into identities (issuer, subject, customer_id) values ('issuer', 'ann', '{made['id']}')",
    )
    operator.environment["STRIPE_API_KEY"] = new_account_key()
    code, report = await operator.report("unlink", made["id"])
    assert (code, report.get("error")) == (1, "wrong_account")
    [link] = await rows(database_url, "select customer_id from identities")
    [customer] = await rows(database_url, "select existence from customers")
    assert (link["customer_id"], customer["existence"]) == (made["id"], "present")


async def test_operation_stays_when_release_has_a_key_of_another_account(
    stripe_account: Simulator, database_url: str
) -> None:
    """What was sent is read at Stripe: another account shows nothing of it."""
    creates = {"method": "POST", "path": "/v1/customers"}
    async with running_service(
        stripe_account, database_url, OPERATION_DEADLINE="1", OPERATION_LEASE="2"
    ) as service:
        await service.fill()
        company = await service.company()
        await stripe_account.add_fault(**creates, timeout=True, effect="after", times=0)
        answer = await company.change(company.owner.headers, add=[new_email()])
        await stripe_account.clear_faults()
        assert answer.status_code == 202, answer.text
    await rows(database_url, "update operation_steps set unanswered_at = now() - interval '1 hour'")
    operator = Operator(stripe_account, database_url)
    own = operator.environment["STRIPE_API_KEY"]
    operator.environment["STRIPE_API_KEY"] = new_account_key()
    operation_id = answer.json()["operation_id"]
    code, report = await operator.report("operations", "release", operation_id)
    assert (code, report.get("error")) == (1, "wrong_account")
    [step] = await rows(database_url, "select settled_at from operation_steps")
    assert step["settled_at"] is None
    operator.environment["STRIPE_API_KEY"] = own
    code, report = await operator.report("operations", "release", operation_id)
    assert (code, [one["state"] for one in report["results"]]) == (0, ["applied"])


async def test_endpoints_are_listed_when_stripe_does_not_answer(
    stripe_account: Simulator, database_url: str
) -> None:
    operator = Operator(stripe_account, database_url)
    assert (await operator.report("sync"))[0] == 0
    operator.environment["STRIPE_API_BASE"] = "http://127.0.0.1:9"
    async with asyncio.timeout(30):
        code, out, err = await operator.run("events", "endpoints", "--json")
    assert (code, json.loads(out)) == (0, {"endpoints": []}), err
