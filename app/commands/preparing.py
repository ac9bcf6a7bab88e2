"""What every command does first and last: settings, logs, ids that were given, and failures in one sentence."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from app.domain.emails import is_address
from app.domain.ids import is_free_id
from app.errors import BillingError, StartRefused
from app.setting_needs import Process
from app.settings import Settings, SettingsError, load_settings

MISCONFIGURED = 2


def settings_for(process: Process) -> Settings:
    """Return the settings of the environment for `process`.

    If a variable is missing or wrong, it prints all such variables and ends the process with exit code 2.
    """
    try:
        return load_settings(process=process)
    except SettingsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(MISCONFIGURED) from None


def logging_settings_for(process: Process) -> Settings:
    """Return the settings, and send logs to standard error.

    So standard output has only the report. Errors are handled as in `settings_for`.
    """
    from app.commands.logs import configure_logs

    settings = settings_for(process)
    configure_logs(settings.log_level)
    return settings


def checked_ids(given: list[str] | None) -> list[str] | None:
    """Return ids of objects as they were given. Such an id is any text that Stripe may have as one.

    Raises:
        typer.BadParameter: a text that no object can have as its id.
    """
    if not all(is_free_id(one) for one in given or ()):
        raise typer.BadParameter("An id has 1 to 255 characters, and no control characters among them.")
    return given


def checked_id(given: str | None) -> str | None:
    """Return the id of an object as it was given, None without one. Raises what `checked_ids` raises."""
    checked_ids(None if given is None else [given])
    return given


def checked_email(given: str | None) -> str | None:
    """Return an address as it was given, None without one.

    Raises:
        typer.BadParameter: a text that is no address.
    """
    if given is not None and not is_address(given):
        raise typer.BadParameter("An address has one @, and text on both sides of it.")
    return given


@contextmanager
def printed_failures(*, as_json: bool) -> Iterator[None]:
    """Print a named error and end the process with exit code 1, without a traceback.

    If the database cannot be reached, or refuses the role a right, the text says why. An error that has no name is
    raised again.
    """
    try:
        yield
    except StartRefused as error:
        code, detail = error.code, str(error)
    except BillingError as error:
        code, detail = error.code, error.detail
        if code == "database_unavailable":
            detail = _database_problem() or detail
    except Exception as error:
        from app.postgres.diagnosis import is_of_database

        problem = _database_problem(error) if is_of_database(error) else None
        if problem is None:
            raise
        code, detail = "database_unavailable", problem
    else:
        return
    if as_json:
        typer.echo(json.dumps({"error": code, "detail": detail}))
    typer.echo(detail, err=True)
    raise typer.Exit(1) from None


def _database_problem(error: Exception | None = None) -> str | None:
    """Return why the database cannot be reached, or which right `error` tells of; None if it is neither."""
    from app.postgres.diagnosis import explain, lacking_right

    url = load_settings(process="openapi").dsn
    return asyncio.run(explain(url)) or (None if error is None else lacking_right(error, url))
