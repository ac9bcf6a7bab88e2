"""The command `coseat service-key`: make a key for a back end."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def service_key(
    name: Annotated[
        str, typer.Argument(help="The name of the back end, as logs and the audit trail show it.")
    ],
    scopes: Annotated[
        list[str] | None,
        typer.Option("--scope", help="`read` (the default), `write` or `admin`; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Report as one JSON line.")] = False,
) -> None:
    """Make a key for a back end. It is printed once, beside the entry of SERVICE_KEYS, which has its hash alone.

    Raises:
        typer.BadParameter: the name or a scope breaks a rule of the setting.
    """
    from pydantic import ValidationError

    from app.identity.service_keys import new_service_key

    try:
        key, made = new_service_key(name, scopes or ["read"])
    except ValidationError as error:
        broken = error.errors(include_input=False)[0]
        part = "name" if broken["loc"][0] == "name" else "scope"
        raise typer.BadParameter(f"{part}: {broken['msg']}") from None
    entry = {"name": made.name, "sha256": made.sha256, "scopes": sorted(made.scopes)}
    if as_json:
        typer.echo(json.dumps({"key": key, "entry": entry}))
    else:
        typer.echo(f"Key, shown once: {key}\nEntry of SERVICE_KEYS: {json.dumps(entry)}")
