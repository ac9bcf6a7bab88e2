"""Send calls by the client that openapi-python-client generates: one JSON line in, one out.

A typed answer is sent back as the fields of its own class, so that a field that the class does not have is missed.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import sys
import typing
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "generated" / "python"))

import coseat_client.api
from coseat_client import AuthenticatedClient, Client
from coseat_client.types import Response


def modules() -> dict[str, ModuleType]:
    """Return the module of each operation by its name in snake case."""
    found = pkgutil.walk_packages(coseat_client.api.__path__, "coseat_client.api.")
    return {
        name.rpartition(".")[2]: importlib.import_module(name)
        for _, name, is_package in found
        if not is_package
    }


def model(module: ModuleType) -> Any:
    """Return the class of an operation's body."""
    annotation = typing.get_type_hints(module.sync_detailed)["body"]
    return next(one for one in (annotation, *typing.get_args(annotation)) if hasattr(one, "from_dict"))


def snake(name: str) -> str:
    """Return an operationId as openapi-python-client names its module."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def arguments(module: ModuleType, call: dict[str, Any]) -> dict[str, Any]:
    """Return a call's arguments, its enumerations as their classes."""
    given = {**call.get("path", {}), **call.get("query", {})}
    given |= {name.lower().replace("-", "_"): value for name, value in call.get("headers", {}).items()}
    hints = typing.get_type_hints(module.sync_detailed)
    for name, value in given.items():
        for kind in typing.get_args(hints[name]):
            if inspect.isclass(kind) and issubclass(kind, str) and kind is not str:
                given[name] = kind(value)
    if "body" in call:
        given["body"] = model(module).from_dict(call["body"])
    return given


def send(module: ModuleType, call: dict[str, Any]) -> Response[Any]:
    """Send one call with the caller's token, or without any."""
    token = call.get("token")
    client = (
        Client(base_url=call["api"])
        if token is None
        else AuthenticatedClient(base_url=call["api"], token=token)
    )
    return module.sync_detailed(client=client, **arguments(module, call))


def main() -> None:
    """Answer calls until standard input ends."""
    known = modules()
    for line in sys.stdin:
        call = json.loads(line)
        response = send(known[snake(call["call"])], call)
        parsed = response.parsed
        answer = {
            "status": int(response.status_code),
            "type": type(parsed).__name__,
            "body": parsed.to_dict() if parsed is not None else None,
            "headers": dict(response.headers),
        }
        print(json.dumps(answer), flush=True)


main()
