"""Every command with its options. What only one command needs is imported by it, so that help is fast."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from app.settings import Process, Settings, SettingsError, load_settings

cli = typer.Typer(
    name="coseat",
    help="Stripe Billing as shared, per-seat subscriptions behind a typed JSON API.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

MISCONFIGURED = 2


def settings_for(process: Process) -> Settings:
    """Ends the process with exit code 2, naming all that is missing or wrong, where the environment is not enough."""
    try:
        return load_settings(process=process)
    except SettingsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(MISCONFIGURED) from None


@cli.command()
def serve() -> None:
    """Run the API. Configured by the environment alone; refuses to start when anything is missing."""
    from app.commands.running import serve_api

    serve_api(settings_for("serve"))


@cli.command()
def worker() -> None:
    """Refresh noted objects and finish interrupted operations. Start as many as you like, on any machine."""
    from app.commands.running import run_worker

    run_worker(settings_for("worker"))


@cli.command()
def migrate(
    as_json: Annotated[bool, typer.Option("--json", help="Report as one JSON line.")] = False,
) -> None:
    """Bring the database to this version's schema."""
    from app.commands.migrations import upgrade

    revision = upgrade(settings_for("migrate"))
    typer.echo(json.dumps({"revision": revision}) if as_json else f"The schema is at {revision}.")


@cli.command()
def sync(
    as_json: Annotated[bool, typer.Option("--json", help="Report as one JSON line.")] = False,
) -> None:
    """Fill the cache from Stripe. A run that was interrupted goes on where it stopped; safe beside live webhooks."""
    from app.commands.filling import fill_cache

    seen = asyncio.run(fill_cache(settings_for("sync"), quiet=as_json))
    typer.echo(json.dumps({"objects": seen}) if as_json else f"{seen} objects read.")


@cli.command()
def token(
    subject: Annotated[str, typer.Argument(help="The `sub` claim: the application's id of the person.")],
    email: Annotated[str | None, typer.Option(help="The `email` claim.")] = None,
    unverified: Annotated[bool, typer.Option(help="Leave the e-mail unverified.")] = False,
    customer: Annotated[str | None, typer.Option(help="The customer claim: cus_…")] = None,
    hours: Annotated[int, typer.Option(min=1, max=24 * 30, help="How long it lasts.")] = 12,
) -> None:
    """Sign a development token with AUTH_JWT_SECRET. Refused beside a live Stripe key."""
    from app.identity.development_tokens import sign_development_token

    try:
        signed = sign_development_token(
            settings_for("token"),
            subject=subject,
            email=email,
            email_verified=not unverified,
            customer_id=customer,
            lifetime=hours * 3600,
        )
    except SettingsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(MISCONFIGURED) from None
    typer.echo(signed)


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
        int, typer.Option(min=0, max=65_535, help="The API's port; 0 takes any free one.")
    ] = 8000,
    reset: Annotated[bool, typer.Option("--reset", help="Throw the demo's state away first.")] = False,
    state: Annotated[Path | None, typer.Option(help="Keep the state in this directory.")] = None,
) -> None:
    """Start everything on embedded defaults: PostgreSQL, the Stripe stand-in with demo data, API and worker."""
    from app.commands.development import run_everything

    raise typer.Exit(run_everything(port=port, reset=reset, state=state))


def main() -> None:
    cli()
