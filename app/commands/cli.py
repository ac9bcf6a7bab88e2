"""All commands with their options.

A command imports its modules itself, so that `--help` is fast.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from app.commands.events_cli import events_cli
from app.commands.operations_cli import operations_cli
from app.commands.preparing import (
    MISCONFIGURED,
    checked_email,
    checked_id,
    checked_ids,
    logging_settings_for,
    printed_failures,
    settings_for,
)
from app.commands.service_key_command import service_key
from app.settings import SettingsError

cli = typer.Typer(
    name="coseat",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(asked: bool) -> None:
    """Print the version and end. The options of a command group are read before its commands."""
    if asked:
        from app import __version__
        from app.postgres import schema

        typer.echo(f"coseat {__version__}, schema {schema.HEAD}")
        raise typer.Exit


@cli.callback()
def root(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end."),
    ] = False,
) -> None:
    """Stripe Billing as shared, per-seat subscriptions behind a typed JSON API."""


cli.command("service-key")(service_key)
cli.add_typer(operations_cli, name="operations")
cli.add_typer(events_cli, name="events")


@cli.command()
def serve() -> None:
    """Run the API.

    It is configured by the environment, and does not start if a variable is missing or wrong.
    """
    from app.commands.running import serve_api

    with printed_failures(as_json=False):
        serve_api(settings_for("serve"))


@cli.command()
def worker() -> None:
    """Refresh noted objects and finish interrupted operations.

    Any number of workers may run, on any machine.
    """
    from app.commands.running import run_worker

    with printed_failures(as_json=False):
        run_worker(settings_for("worker"))


@cli.command()
def migrate(
    as_json: Annotated[bool, typer.Option("--json", help="Report as one JSON line.")] = False,
) -> None:
    """Migrate the database to this release's schema. A newer schema is not changed."""
    from app.commands.migrations import upgrade

    with printed_failures(as_json=as_json):
        migrated = upgrade(logging_settings_for("migrate"))
    if as_json:
        typer.echo(json.dumps({"revision": migrated.revision}))
    elif migrated.is_newer:
        typer.echo(f"The schema is at {migrated.revision}, newer than this release. Nothing was changed.")
    else:
        typer.echo(f"The schema is at {migrated.revision}.")


@cli.command()
def sync(
    as_json: Annotated[bool, typer.Option("--json", help="Report as one JSON line.")] = False,
) -> None:
    """Fill the copy from Stripe, also while webhooks arrive.

    An interrupted run continues where it stopped. Exit code 1: some objects cannot be read. The others are filled in.
    """
    from dataclasses import asdict

    from app.commands.filling import fill_cache
    from app.commands.reports import print_filled, print_json

    with printed_failures(as_json=as_json):
        filled = asyncio.run(fill_cache(logging_settings_for("sync"), quiet=as_json))
    if as_json:
        print_json(asdict(filled))
    else:
        print_filled(filled)
    if filled.unrepaired:
        raise typer.Exit(1)


@cli.command()
def reconcile(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compare only; change nothing.")] = False,
    allow_removals: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Rows of each kind that may be removed. Without it: 20, or 1 % of the kind's rows if that is more.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Report as one JSON line.")] = False,
) -> None:
    """Compare the copy with Stripe and repair each object that differs.

    An interrupted run continues. Exit code 1: objects are left unrepaired, or the run stopped because it would have
    removed too many.
    """
    from app.commands.filling import reconcile_cache
    from app.commands.reports import print_json, print_reconciled
    from app.mirror.reconcile import as_json as reconciled_as_json

    with printed_failures(as_json=as_json):
        result = asyncio.run(
            reconcile_cache(
                logging_settings_for("reconcile"),
                dry_run=dry_run,
                allow_removals=allow_removals,
                quiet=as_json,
            )
        )
    if as_json:
        print_json(reconciled_as_json(result))
    else:
        print_reconciled(result)
    if result.reason is not None or result.unrepaired:
        raise typer.Exit(1)


@cli.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Report as one JSON line.")] = False,
) -> None:
    """Find problems that an operator should solve, each with a fix.

    It checks metadata, seats, the catalogue, the webhook and the sync. Exit code 1: there are problems to fix. Notices
    do not count.
    """
    from dataclasses import asdict

    from app.commands.reports import examine, print_findings, print_json

    with printed_failures(as_json=as_json):
        findings = asyncio.run(examine(logging_settings_for("doctor")))
    to_fix = sum(finding.severity == "fix" for finding in findings)
    if as_json:
        print_json({"to_fix": to_fix, "findings": [asdict(finding) for finding in findings]})
    else:
        print_findings(findings)
    if to_fix:
        raise typer.Exit(1)


@cli.command()
def replay(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            callback=checked_ids, help="Ids of objects. Without ids: all whose refresh was given up."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Report as one JSON line.")] = False,
) -> None:
    """Make refreshes that were given up due again, and print why they were given up.

    Exit code 1: the refresh of a given id was not given up.
    """
    from dataclasses import asdict

    from app.commands.reports import print_json, print_replayed, replay_dead

    with printed_failures(as_json=as_json):
        replayed = asyncio.run(replay_dead(logging_settings_for("replay"), ids or []))
    unknown = sorted(set(ids or ()) - {row.id for row in replayed})
    if as_json:
        print_json({"replayed": [asdict(row) for row in replayed], "not_dead": unknown})
    else:
        print_replayed(replayed)
        for object_id in unknown:
            typer.echo(f"{object_id}: its refresh was not given up.", err=True)
    if unknown:
        raise typer.Exit(1)


@cli.command()
def health() -> None:
    """Check that the process of this container lives: serve by its port, a worker by its port or its reports.

    Exit code 1: it does not.
    """
    from app.commands.health import problem

    found = problem(settings_for("health"))
    if found is not None:
        typer.echo(found, err=True)
        raise typer.Exit(1)


@cli.command()
def unlink(
    customer: Annotated[
        str,
        typer.Argument(
            callback=checked_id, help="The customer's id: cus_…, or one that was chosen before 2018."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Report as one JSON line.")] = False,
) -> None:
    """End the link between a customer and its login.

    `billing_user_id` is removed where it holds the login's subject. Exit code 1: there is no such customer.
    """
    from app.commands.reports import print_json, unlink_customer

    with printed_failures(as_json=as_json):
        asyncio.run(unlink_customer(logging_settings_for("unlink"), customer))
    if as_json:
        print_json({"unlinked": customer})
    else:
        typer.echo(f"{customer} is linked to no login.")


@cli.command()
def token(
    argument: Annotated[
        str | None,
        typer.Argument(
            metavar="SUBJECT|TOKEN",
            help="The `sub` claim: the application's id of the user. With --check: the token; without: standard input.",
        ),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Explain a token instead of signing one.")] = False,
    email: Annotated[str | None, typer.Option(help="The `email` claim.")] = None,
    unverified: Annotated[bool, typer.Option(help="Leave the e-mail unverified.")] = False,
    customer: Annotated[
        str | None, typer.Option(callback=checked_id, help="The customer claim: the customer's id.")
    ] = None,
    hours: Annotated[int, typer.Option(min=1, max=24 * 30, help="Hours for which the token is valid.")] = 12,
    as_json: Annotated[bool, typer.Option("--json", help="With --check: report as one JSON line.")] = False,
) -> None:
    """Sign a development token with AUTH_JWT_SECRET, or explain a token with --check.

    Signing is refused with a live Stripe key. With --check, exit code 1: the token is refused.
    """
    if check:
        _check_token(argument, as_json=as_json)
        return
    if argument is None:
        raise typer.BadParameter("SUBJECT is missing: the `sub` claim of the token.")
    from app.identity.development_tokens import sign_development_token

    try:
        signed = sign_development_token(
            settings_for("token"),
            subject=argument,
            email=email,
            email_verified=not unverified,
            customer_id=customer,
            lifetime=hours * 3600,
        )
    except SettingsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(MISCONFIGURED) from None
    typer.echo(signed)


def _check_token(argument: str | None, *, as_json: bool) -> None:
    """Print what the configuration says of a credential. Exit code 1: it is refused."""
    from dataclasses import asdict

    from app.commands.token_checks import check_credential, print_explanation, read_credential

    settings = logging_settings_for("token --check")
    credential = read_credential() if argument in (None, "-") else argument
    found = asyncio.run(check_credential(settings, credential or ""))
    if as_json:
        typer.echo(json.dumps(asdict(found)))
    else:
        print_explanation(found)
    if not found.accepted:
        raise typer.Exit(1)


@cli.command()
def openapi(
    output: Annotated[
        Path | None, typer.Option(help="Write to this file instead of standard output.")
    ] = None,
) -> None:
    """Print the OpenAPI document."""
    from app.commands.openapi import document

    text = document(settings_for("openapi"))
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")


@cli.command()
def dev(
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help="The API's port: PORT, or 8000; 0 takes any free one."),
    ] = None,
    stripe_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="The stand-in's port: 12111; 0 takes any free one.")
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Delete the demo's state first.")] = False,
    state: Annotated[Path | None, typer.Option(help="Keep the state in this directory.")] = None,
    token_for: Annotated[
        str | None,
        typer.Option(
            "--token",
            metavar="EMAIL",
            callback=checked_email,
            help="Print a token for this person, who may be new, and end. Another terminal runs `coseat dev`.",
        ),
    ] = None,
) -> None:
    """Start the service and all that it needs on this machine.

    These are PostgreSQL, the Stripe stand-in with demo data, the API, a worker, the portal and a development panel. The
    environment's settings replace the defaults.
    """
    from app.commands.development import print_token, run_everything

    if token_for is not None:
        raise typer.Exit(print_token(token_for, state))
    raise typer.Exit(run_everything(port=port, stripe_port=stripe_port, reset=reset, state=state))


def main() -> None:
    """Run the command line."""
    cli()
