"""Run the commands that report, and print their reports.

Reports are tables for people, or JSON for programs.
"""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from app.commands.contexts import checked_context, checked_database
from app.customers import links
from app.domain.ids import CustomerId
from app.errors import NotFound
from app.mirror.first_fill import Filled, check_account
from app.mirror.reconcile import Counts, Reconciled
from app.mirror.store.refreshes import Dead, replay
from app.operating import doctor
from app.operating.findings import Finding
from app.operations import releasing, waiting_store
from app.settings import Settings
from app.sharing.rulebooks import RULEBOOKS

_TABLE_COLUMNS = 120


async def examine(settings: Settings) -> list[Finding]:
    """Return the doctor's findings. Raises BillingError."""
    async with checked_context(settings) as context:
        return await doctor.examine(context)


async def replay_dead(settings: Settings, ids: list[str]) -> list[Dead]:
    """Make given-up refreshes due again and return them.

    They are those of `ids`, or all if `ids` is empty.
    """
    async with checked_database(settings) as database, database.connection() as connection:
        return await replay(connection, ids or None)


async def unlink_customer(settings: Settings, customer_id: str) -> None:
    """End the link between a customer and its login. Raises BillingError."""
    async with checked_context(settings) as context:
        # Another account has no such customer, and the copy would take that for a deletion.
        await check_account(context)
        await links.unlink(context, CustomerId(customer_id), principal="operator")


async def release_operation(settings: Settings, operation_id: str) -> list[dict[str, Any]]:
    """End an operation for an operator, and return the state of each of its steps. Raises BillingError."""
    async with checked_context(settings, RULEBOOKS, writes=False) as context:
        steps = await releasing.release(context, operation_id)
    return [
        {"action": step.action, "state": step.state.value, "code": step.code, "is_settled": step.is_settled}
        for step in steps
    ]


async def acknowledge_purchase(settings: Settings, operation_id: str) -> None:
    """Note that what was paid without effect was made up for. Raises BillingError."""
    async with checked_database(settings) as database, database.transaction() as connection:
        if not await waiting_store.acknowledge(connection, operation_id):
            raise NotFound(
                f"{operation_id} is no operation that was paid without effect. `coseat doctor` lists those."
            )


def print_json(document: Any) -> None:
    """Print a document as one line of JSON."""
    print(json.dumps(document))


def print_findings(findings: list[Finding]) -> None:
    """Print the doctor's findings: what each is about, the problem, and what to do."""
    if not findings:
        print("No problems found.")
        return
    # No table: it would cut ids at the width of the terminal.
    console = Console(highlight=False, soft_wrap=True)
    for finding in sorted(findings, key=lambda one: one.severity):
        colour = "red" if finding.severity == "fix" else "yellow"
        console.print(f"[{colour}]{finding.severity}[/] {finding.check} {_plain(finding.object)}")
        console.print(f"    {_plain(finding.problem)}")
        console.print(f"    -> {_plain(finding.fix)}")


def print_filled(filled: Filled) -> None:
    """Print the result of a first fill."""
    print(f"{filled.objects} objects read.")
    if filled.unrepaired:
        print(f"{filled.unrepaired} cannot be read: `coseat doctor` names them.")


def print_reconciled(result: Reconciled) -> None:
    """Print the counts of a reconcile as a table, and its outcome."""
    names = Counts.__slots__
    table = Table("kind", *names)
    for kind, counts in result.kinds.items():
        table.add_row(kind, *(f"{getattr(counts, name):,}" for name in names))
    # In a log the console takes 80 columns, which would cut the words.
    Console(width=max(Console().width, _TABLE_COLUMNS)).print(table)
    done = "A dry run: nothing was changed." if result.dry_run else f"{result.drift} rows differed."
    print(result.reason or done, f"{result.requests} requests.")
    if unreadable := sum(kind.unreadable for kind in result.kinds.values()):
        print(f"{unreadable} objects cannot be read: `coseat doctor` names them.")


def print_replayed(dead: list[Dead]) -> None:
    """Print the refreshes that are due again, and why each was given up."""
    if not dead:
        print("No refresh was given up.")
        return
    for row in dead:
        print(f"{row.kind} {row.id}: {row.attempts} attempts, {row.reason or 'no reason'}")
    print(f"{len(dead)} refreshes are due again.")


def _plain(text: str) -> str:
    """Escape square brackets, which are markup for rich."""
    return text.replace("[", r"\[")
