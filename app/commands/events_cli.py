"""The commands `coseat events …`: look at events, send them again, and manage webhook endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from app.commands.preparing import logging_settings_for, printed_failures

if TYPE_CHECKING:
    from app.context import Context
    from app.settings import Settings

T = TypeVar("T")

events_cli = typer.Typer(help="Events: look at them, send them again.", no_args_is_help=True)
endpoints_cli = typer.Typer(help="Webhook endpoints, to which events are sent.", invoke_without_command=True)
events_cli.add_typer(endpoints_cli, name="endpoints")

AsJson = Annotated[bool, typer.Option("--json", help="Report as one JSON line.")]
EndpointId = Annotated[str, typer.Argument(metavar="ENDPOINT", help="The endpoint's id: we_…")]
EventId = Annotated[str, typer.Argument(metavar="EVENT", help="The event's id: evt_…")]
Types = Annotated[list[str] | None, typer.Option("--type", help="A type, such as seat.assigned; repeatable.")]


def _run(act: Callable[[Context, Settings], Awaitable[T]], *, as_json: bool) -> T:
    """Return what `act` returns for an open context. A failure is printed, and ends the process with exit code 1."""
    from app.commands.contexts import checked_context
    from app.mirror.first_fill import is_own_account

    async def opened() -> T:
        settings = logging_settings_for("events")
        async with checked_context(settings, writes=False) as context:
            # Events rest on the database only, so the command goes on while Stripe does not answer.
            await is_own_account(context)
            return await act(context, settings)

    with printed_failures(as_json=as_json):
        return asyncio.run(opened())


@events_cli.command("list")
def list_events(
    types: Types = None,
    subscription: Annotated[str | None, typer.Option(help="Only those of this subscription: sub_…")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest events, the newest first."""
    from app.commands import event_reports
    from app.events import history

    found = _run(
        lambda context, _: history.newest(
            context, types=types or [], subscription_id=subscription, limit=limit
        ),
        as_json=as_json,
    )
    event_reports.print_events(found, as_json=as_json)


@events_cli.command()
def show(event: EventId, as_json: AsJson = False) -> None:
    """Show an event, and each try to deliver it.

    Exit code 1: it is not kept.
    """
    from app.commands import event_reports
    from app.events import history

    found = _run(lambda context, _: history.one(context, event), as_json=as_json)
    event_reports.print_event(found, as_json=as_json)


@events_cli.command()
def redeliver(
    event: EventId,
    endpoint: Annotated[str | None, typer.Option(help="Only to this endpoint: we_…")] = None,
    as_json: AsJson = False,
) -> None:
    """Let a worker send an event again, to each endpoint that it was sent to.

    Exit code 1: it is not kept, or was never sent there.
    """
    from app.commands import event_reports
    from app.events import history

    found = _run(lambda context, _: history.redeliver(context, event, endpoint), as_json=as_json)
    report = {"event_id": event, "endpoints": found}
    event_reports.print_report(
        report, f"A worker sends {event} to {', '.join(found)} again.", as_json=as_json
    )


@events_cli.command()
def restored(as_json: AsJson = False) -> None:
    """Go on above all numbers that may have been delivered, after the database was restored from a backup.

    Run it before the processes start. Consumers are sent `sync.completed`, and begin with the snapshot.
    """
    from app.commands import event_reports
    from app.events import restoring

    found = _run(lambda context, _: restoring.jump(context), as_json=as_json)
    text = f"Events go on after {found.sequence_floor}. Places before {found.place} are refused."
    event_reports.print_report(asdict(found), text, as_json=as_json)


@endpoints_cli.callback()
def list_endpoints(context: typer.Context, as_json: AsJson = False) -> None:
    """List webhook endpoints with their oldest event that was not taken. Further commands change them."""
    if context.invoked_subcommand is not None:
        return
    from app.commands import event_reports
    from app.events import history

    found = _run(lambda opened, _: history.backlog(opened), as_json=as_json)
    event_reports.print_endpoints(found, as_json=as_json)


@endpoints_cli.command()
def create(
    url: Annotated[str, typer.Argument(help="Where events are posted.")],
    types: Types = None,
    description: Annotated[str | None, typer.Option(help="A note for people.")] = None,
    after: Annotated[str | None, typer.Option(help="Begin after this place of the log: pl_…")] = None,
    as_json: AsJson = False,
) -> None:
    """Create an endpoint, and print its signing secret, which is shown once."""
    from app.commands import event_reports

    found = _run(
        lambda context, settings: event_reports.create(context, settings, url, types, description, after),
        as_json=as_json,
    )
    event_reports.print_secret(found, as_json=as_json)


@endpoints_cli.command("rotate-secret")
def rotate_secret(
    endpoint: EndpointId,
    overlap: Annotated[
        int, typer.Option(min=0, max=604_800, help="Seconds for which the former secret signs too.")
    ] = 86_400,
    as_json: AsJson = False,
) -> None:
    """Make a new signing secret, and print it once. Exit code 1: there is no such endpoint."""
    from app.commands import event_reports

    found = _run(
        lambda context, settings: event_reports.rotate(context, settings, endpoint, overlap), as_json=as_json
    )
    event_reports.print_secret(found, as_json=as_json)


@endpoints_cli.command()
def enable(
    endpoint: EndpointId,
    after: Annotated[
        str | None, typer.Option(help="Go on after this place of the log, whatever was received: pl_…")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send events to an endpoint again, from where each subscription stood.

    Exit code 1: there is no such endpoint, or the events from there on are not kept.
    """
    _change(endpoint, "enabled", after, as_json=as_json)


@endpoints_cli.command()
def disable(endpoint: EndpointId, as_json: AsJson = False) -> None:
    """Send nothing more to an endpoint. What it misses waits. Exit code 1: there is no such endpoint."""
    _change(endpoint, "disabled", None, as_json=as_json)


def _change(
    endpoint: str, status: Literal["enabled", "disabled"], after: str | None, *, as_json: bool
) -> None:
    from app.commands import event_reports
    from app.events import endpoints

    found = _run(
        lambda context, settings: event_reports.change(context, settings, endpoint, status, after),
        as_json=as_json,
    )
    event_reports.print_report(endpoints.shown(found), f"{found.id} is {found.status}.", as_json=as_json)


@endpoints_cli.command("test")
def send_test(endpoint: EndpointId, as_json: AsJson = False) -> None:
    """Send the event `endpoint.test` at once. Exit code 1: it did not arrive, or there is no such endpoint."""
    from app.commands import event_reports

    sent = _run(
        lambda context, settings: event_reports.send_test(context, settings, endpoint), as_json=as_json
    )
    event_reports.print_report(sent.as_members(), sent.error or f"{endpoint} took it.", as_json=as_json)
    if not sent.is_success:
        raise typer.Exit(1)


@endpoints_cli.command()
def delete(endpoint: EndpointId, as_json: AsJson = False) -> None:
    """Delete an endpoint with its deliveries. Exit code 1: there is no such endpoint."""
    from app.commands import event_reports
    from app.events import endpoints

    _run(lambda context, _: endpoints.delete(context, endpoint), as_json=as_json)
    event_reports.print_report({"deleted": endpoint}, f"{endpoint} is deleted.", as_json=as_json)
