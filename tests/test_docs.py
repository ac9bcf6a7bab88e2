"""What the documents say of the interface: routes exist, fields exist, and the examples work as they are printed."""

import re
import shlex
from collections.abc import AsyncIterator, Iterator
from string import Template
from typing import Any

import httpx
import pytest

from tests.contract.declared import document
from tests.contract.recording import PEOPLE, demonstration
from tests.support import databases
from tests.support.company import Service

GUIDE = databases.CHECKOUT / "docs" / "billing-js.md"
DOCUMENTS = [databases.CHECKOUT / "README.md", *sorted((databases.CHECKOUT / "docs").glob("*.md"))]

ROUTE = re.compile(r"`(GET|POST|PUT|PATCH|DELETE) (/[^\s`?]*)")
NOT_IN_THE_DOCUMENT = {("POST", "/webhooks/stripe"), ("GET", "/metrics")}
COMMAND = re.compile(r"^curl (?:.*\\\n)*.*$", re.MULTILINE)
SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
FIELD = re.compile(r"`((?:[a-z_0-9]+(?:\[\])?\.)*[a-z_0-9]+)(?:: [^`]*)?`")
API = "http://127.0.0.1:8000/v1"


def shape(path: str) -> str:
    """A path whatever its parameters are called."""
    return re.sub(
        r"\{[^}]*\}|/me(?=/|$)", lambda found: "/{}" if found[0] == "/me" else "{}", path.rstrip("/")
    )


def test_every_route_that_a_document_names_exists() -> None:
    known = {(method, shape(path)) for method, path in NOT_IN_THE_DOCUMENT} | {
        (method.upper(), shape(path)) for path, methods in document()["paths"].items() for method in methods
    }
    named = {
        (source.name, method, path)
        for source in DOCUMENTS
        for method, path in ROUTE.findall(source.read_text(encoding="utf-8"))
    }
    assert {name for name, _, _ in named} >= {"README.md", "billing-js.md"}
    assert {entry for entry in named if (entry[1], shape(entry[2])) not in known} == set()


def sections() -> dict[str, str]:
    """The guide's methods, each with its text."""
    parts = re.split(r"^### (\w+)\n", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: text.partition("\n## ")[0] for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def operation(name: str) -> dict[str, Any]:
    [found] = [
        {"path": path, "method": method.upper(), **stated}
        for path, methods in document()["paths"].items()
        for method, stated in methods.items()
        if stated["operationId"] == name
    ]
    return found


def test_every_method_stands_beside_its_own_route() -> None:
    assert len(sections()) == 13
    for name, text in sections().items():
        stated, first = operation(name), ROUTE.findall(text)[0]
        assert (first[0], shape(first[1])) == (stated["method"], shape(stated["path"])), name


def _fields(schema: Any, found: set[str], seen: set[str]) -> set[str]:
    """Every member's name that can be reached from a schema of the document."""
    if isinstance(schema, list):
        for part in schema:
            _fields(part, found, seen)
    elif isinstance(schema, dict):
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference not in seen:
            seen.add(reference)
            _fields(document()["components"]["schemas"][reference.rpartition("/")[2]], found, seen)
        found |= set(schema.get("properties", {}))
        for part in schema.values():
            _fields(part, found, seen)
    return found


def test_every_field_of_ours_in_the_tables_is_one_of_the_method() -> None:
    for name, text in sections().items():
        stated = operation(name)
        known = {parameter["name"] for parameter in stated.get("parameters", [])}
        _fields([stated.get("requestBody", {}), list(stated["responses"].values())], known, set())
        ours = [row.split("|")[2] for row in text.splitlines() if row.startswith("|")][2:]
        # Codes follow their status and routes their method; what is left names fields.
        named = {
            part.rstrip("[]")
            for cell in ours
            if not re.match(r" (?:\d{3}|header) ", cell)
            for field in FIELD.findall(re.sub(r"header `[^`]*`|`admin`", "", cell))
            for part in field.split(".")
        }
        assert named - known == set(), name


def commands() -> list[str]:
    text = "".join(SHELL.findall(GUIDE.read_text(encoding="utf-8")))
    return COMMAND.findall(text)


@pytest.fixture(scope="module")
def guide_database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    url = databases.clone(postgres_url, template_database)
    yield url
    databases.drop(postgres_url, url)


@pytest.fixture(scope="module")
async def demo(guide_database_url: str) -> AsyncIterator[Service]:
    async with demonstration(guide_database_url) as service:
        yield service


async def test_the_guides_commands_work_as_printed(demo: Service) -> None:
    """In their order, with the variables that `make run` prints."""
    variables = {"API": API, "SERVICE_KEY": _token("service")}
    variables |= {name.upper(): _token(name) for name in ("owner", "manager", "user", "stranger")}
    assert len(commands()) >= 5
    for command in commands():
        request = as_request(Template(command).substitute(variables))
        response = await demo.client.send(request)
        assert response.is_success, f"{command}\n{response.status_code} {response.text}"


def _token(name: str) -> str:
    return PEOPLE[name]["Authorization"].removeprefix("Bearer ")


def as_request(command: str) -> httpx.Request:
    """What curl would send; AssertionError for an option that no example has used before."""
    words = iter(shlex.split(command.replace("\\\n", " "))[1:])
    method, url, body = None, "", None
    headers: dict[str, str] = {}
    for word in words:
        match word:
            case "-s":
                continue
            case "-X":
                method = next(words)
            case "-d":
                body = next(words).encode()
                headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
            case "-H":
                name, _, value = next(words).partition(": ")
                headers[name] = value
            case _:
                assert not word.startswith("-") and not url, word
                url = word
    return httpx.Request(method or ("GET" if body is None else "POST"), url, headers=headers, content=body)
