"""The examples of the OpenAPI document are real answers: of the right schema, and what the service answers now."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.commands.openapi import COMMON_PROBLEM, EXAMPLES, REQUEST, document
from app.settings import load_settings
from tests.contract.declared import breaches, operations, schema_of_answer, schema_of_request
from tests.contract.recording import as_text, demonstration, record

PROBLEM = {"$ref": "#/components/schemas/AnyProblem"}
AGAIN = "run `make openapi` and look at what it changes"


@pytest.fixture(scope="module")
def examples() -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in EXAMPLES.glob("*.json")}


@pytest.fixture(scope="module")
async def recorded_now(module_database_url: str) -> AsyncIterator[dict[str, Any]]:
    async with demonstration(module_database_url) as service:
        yield await record(service)


def test_every_success_has_an_example(examples: dict[str, Any]) -> None:
    expected = {
        f"{operation.name}.{status}"
        for operation in operations().values()
        for status, response in operation.responses.items()
        if status.startswith("2") and "application/json" in response.get("content", {})
    }
    given = {name for name in examples if not name.startswith(COMMON_PROBLEM)}
    assert expected - given == set(), "record them in tests/contract/recording.py"
    assert {name.partition(".")[0] for name in given} <= operations().keys()


def test_every_example_keeps_to_its_schema(examples: dict[str, Any]) -> None:
    for name, example in examples.items():
        operation, _, status = name.partition(".")
        if operation == COMMON_PROBLEM:
            schema = PROBLEM
        elif status == REQUEST:
            schema = schema_of_request(operation)
        else:
            schema = schema_of_answer(operations()[operation], status)
        assert breaches(schema, example) == [], name


async def test_a_recording_made_now_is_what_is_committed(
    recorded_now: dict[str, Any], examples: dict[str, Any]
) -> None:
    assert recorded_now.keys() == examples.keys(), AGAIN
    for name, example in recorded_now.items():
        assert as_text(example) == as_text(examples[name]), f"{name}: {AGAIN}"


def test_the_document_names_each_of_them_once(examples: dict[str, Any]) -> None:
    """O16: the document had them inside, which made its changes unreadable."""
    named = re.findall(
        r'"externalValue": "examples/([^"]+)\.json"', document(load_settings({}, process="openapi"))
    )
    assert sorted(set(named)) == sorted(examples)
    assert {name for name in named if named.count(name) > 1 and not name.startswith(COMMON_PROBLEM)} == set()
