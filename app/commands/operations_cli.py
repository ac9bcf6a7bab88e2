"""The commands `coseat operations …`: end what does not end by itself, and note what was made up for."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from app.commands.preparing import logging_settings_for, printed_failures

operations_cli = typer.Typer(help="Operations that need an operator.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Report as one JSON line.")]
OperationId = Annotated[str, typer.Argument(help="The operation's id: op_…")]


@operations_cli.command()
def release(operation: OperationId, as_json: AsJson = False) -> None:
    """End an operation that does not end by itself. Nothing more is sent: what was sent is read at Stripe once.

    Exit code 1: a request of it may still take effect, it waits for its payment, or Stripe cannot be read.
    """
    from app.commands.reports import print_json, release_operation

    with printed_failures(as_json=as_json):
        outcomes = asyncio.run(release_operation(logging_settings_for("operations release"), operation))
    if as_json:
        print_json({"operation_id": operation, "results": outcomes})
    else:
        for one in outcomes:
            typer.echo(f"{one['action']}: {one['state']} {one['code'] or ''}".rstrip())
    if not all(one["is_settled"] for one in outcomes):
        typer.echo("Stripe could not be read, so the operation goes on. Run the command again.", err=True)
        raise typer.Exit(1)


@operations_cli.command()
def acknowledge(operation: OperationId, as_json: AsJson = False) -> None:
    """Note that a purchase which was paid and never took effect was refunded, or its change made.

    The doctor and the alert are silent about it from then on. Exit code 1: there is no such purchase.
    """
    from app.commands.reports import acknowledge_purchase, print_json

    with printed_failures(as_json=as_json):
        asyncio.run(acknowledge_purchase(logging_settings_for("operations acknowledge"), operation))
    if as_json:
        print_json({"acknowledged": operation})
    else:
        typer.echo(f"{operation} is acknowledged.")
