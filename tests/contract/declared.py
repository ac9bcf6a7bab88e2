"""The OpenAPI document as a judge: which answers it declares, and whether a real one keeps to it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import httpx
from jsonschema import Draft202012Validator, FormatChecker  # type: ignore[import-untyped]

from app.main import create_app
from app.settings import load_settings


def _is_instant(value: object) -> bool:
    """RFC 3339 with its offset."""
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


formats = FormatChecker(formats=())
formats.checks("date-time", raises=ValueError)(_is_instant)


@dataclass(frozen=True)
class Operation:
    """One method of the document; `responses` by status, as text."""

    name: str
    method: str
    path: str
    takes_body: bool
    responses: dict[str, Any]


@cache
def document() -> dict[str, Any]:
    stated: dict[str, Any] = json.loads(
        json.dumps(create_app(load_settings({}, process="openapi")).openapi())
    )
    return stated


def resolved(stated: dict[str, Any]) -> dict[str, Any]:
    """What a reference names, or the part itself."""
    while "$ref" in stated:
        found: Any = document()
        for part in stated["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        stated = found
    return stated


def _responses(operation: dict[str, Any]) -> dict[str, Any]:
    """The responses by status. `default` stands for failures that no case can provoke."""
    return {s: resolved(response) for s, response in operation["responses"].items() if s != "default"}


@cache
def operations() -> dict[str, Operation]:
    return {
        stated["operationId"]: Operation(
            stated["operationId"], method.upper(), path, "requestBody" in stated, _responses(stated)
        )
        for path, methods in document()["paths"].items()
        for method, stated in methods.items()
    }


def pairs() -> Iterator[tuple[str, int]]:
    """Every (operation, status) of the document."""
    for operation in operations().values():
        for status in operation.responses:
            yield operation.name, int(status)


def breaches(schema: dict[str, Any], value: Any) -> list[str]:
    """Where `value` breaks a schema of the document, in words."""
    validator = Draft202012Validator(
        {**schema, "components": document()["components"]}, format_checker=formats
    )
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def check(operation: Operation, response: httpx.Response) -> None:
    """AssertionError unless status, media type and body are what the operation declares."""
    stated = operation.responses.get(str(response.status_code))
    assert stated is not None, f"{operation.name} does not declare {response.status_code}: {response.text}"
    for name, header in headers_of(stated).items():
        assert not header.get("required") or name in response.headers, f"no {name}: {response.headers}"
    content = stated.get("content")
    if content is None:
        assert response.content == b"", response.text
        return
    media_type = response.headers["content-type"].partition(";")[0]
    assert media_type in content, f"{media_type} is none of {sorted(content)}"
    schema = content[media_type]["schema"]
    body: Any = response.json() if media_type.endswith("json") else response.text
    found = breaches(schema, body)
    assert not found, "\n".join([*found, response.text])
    if "discriminator" in resolved(schema):
        codes = resolved(schema)["discriminator"]["mapping"]
        assert body["code"] in codes, f"{operation.name} declares {sorted(codes)}: {response.text}"


def headers_of(response: dict[str, Any]) -> dict[str, Any]:
    """The headers of a declared response by name."""
    return {name: resolved(stated) for name, stated in response.get("headers", {}).items()}


def schema_of_request(name: str) -> dict[str, Any]:
    """The schema of an operation's body. KeyError where it takes none."""
    for methods in document()["paths"].values():
        for stated in methods.values():
            if stated["operationId"] == name:
                return dict(stated["requestBody"]["content"]["application/json"]["schema"])
    raise KeyError(name)


def schema_of_answer(operation: Operation, status: str) -> dict[str, Any]:
    """The schema of a declared answer. KeyError where it has no body."""
    [stated] = operation.responses[status]["content"].values()
    return dict(stated["schema"])
