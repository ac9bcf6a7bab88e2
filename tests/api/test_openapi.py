"""The OpenAPI document: the committed one is the code's, and it states every answer that a caller may get."""

import json
import re
from typing import Any

import pytest

from app.commands.openapi import document
from app.settings import load_settings
from testkit.databases import CHECKOUT

GOLDEN = CHECKOUT / "openapi" / "openapi.json"
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
PROBES = {"/healthz", "/readyz"}


@pytest.fixture(scope="module")
def text() -> str:
    return document(load_settings({}, process="openapi"))


@pytest.fixture(scope="module")
def stated(text: str) -> dict[str, Any]:
    return dict(json.loads(text))


@pytest.fixture(scope="module")
def operations(stated: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method.upper(), path, operation)
        for path, methods in stated["paths"].items()
        for method, operation in methods.items()
    ]


def test_the_committed_document_is_the_codes(text: str) -> None:
    assert GOLDEN.read_text(encoding="utf-8") == text, "run `make openapi` and look at what it changes"


def test_every_failure_has_the_one_schema(operations: list[tuple[str, str, dict[str, Any]]]) -> None:
    for method, path, operation in operations:
        failures = {status: r for status, r in operation["responses"].items() if status >= "400"}
        if path in PROBES:
            assert "422" not in failures
            continue
        assert failures, (method, path)
        for status, response in failures.items():
            [(media_type, content)] = response["content"].items()
            assert {media_type: {"schema": content["schema"]}} == PROBLEM, (method, path, status)
            assert response["description"]


def test_the_problem_schema_has_the_members_of_every_failure(stated: dict[str, Any]) -> None:
    schemas = stated["components"]["schemas"]
    assert set(schemas["Problem"]["required"]) == {"type", "title", "status", "code", "detail", "request_id"}
    assert set(schemas["ProblemError"]["required"]) == {"pointer", "code", "detail"}


def test_nothing_of_the_frameworks_own_errors_is_left(text: str) -> None:
    assert "HTTPValidationError" not in text
    assert '"ValidationError"' not in text


def test_every_operation_says_what_it_does(operations: list[tuple[str, str, dict[str, Any]]]) -> None:
    for method, path, operation in operations:
        assert operation.get("summary"), (method, path)
        assert len(operation.get("description", "")) > 10, (method, path)
        assert operation.get("tags"), (method, path)


READ = {"401", "422", "503"}
WRITE = READ | {"403", "404", "409", "413", "415"}
NEEDS_NO_LOGIN = {"/v1/invitations/lookup", "/v1/invitations/decline"}


def test_every_operation_states_its_possible_answers(
    operations: list[tuple[str, str, dict[str, Any]]],
) -> None:
    for method, path, operation in operations:
        statuses = set(operation["responses"])
        assert any(status.startswith("2") for status in statuses), (method, path)
        if path in PROBES:
            continue
        expected = READ if method == "GET" else WRITE
        if path in NEEDS_NO_LOGIN:
            expected = expected - {"403"}
        if "{" in path:
            expected = expected | {"403", "404"}
        assert statuses >= expected, (method, path, expected - statuses)


def test_every_successful_answer_has_a_schema(operations: list[tuple[str, str, dict[str, Any]]]) -> None:
    for method, path, operation in operations:
        for status, response in operation["responses"].items():
            if status.startswith("2") and status != "204":
                [(media_type, content)] = response["content"].items()
                assert media_type == "application/json" and (content["schema"] or path in PROBES), (
                    method,
                    path,
                )


def test_request_bodies_take_no_unknown_fields(stated: dict[str, Any]) -> None:
    schemas = stated["components"]["schemas"]
    open_ones = []
    for path, methods in stated["paths"].items():
        for method, operation in methods.items():
            if "requestBody" in operation:
                pending = [operation["requestBody"]["content"]["application/json"]["schema"]]
                while pending:
                    schema = pending.pop()
                    if isinstance(schema, list):
                        pending += schema
                    elif isinstance(schema, dict):
                        if "$ref" in schema:
                            schema = schemas[schema["$ref"].rpartition("/")[2]]
                        if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
                            open_ones.append((method, path, schema.get("title")))
                        pending += [value for value in schema.values() if isinstance(value, dict | list)]
    assert open_ones == []


def test_fields_for_admins_alone_are_marked(stated: dict[str, Any]) -> None:
    schemas = stated["components"]["schemas"]
    marked = {
        (name, field)
        for name, schema in schemas.items()
        for field, stating in schema.get("properties", {}).items()
        if stating.get("x-admin-only")
    }
    assert ("MemberChangeRequest", "proration_behavior") in marked
    terms = {
        "discounts",
        "tax_rates",
        "default_tax_rates",
        "trial_end",
        "trial_period_days",
        "billing_mode",
        "proration_behavior",
        "proration_date",
        "prorate",
    }
    found = {
        (name, field)
        for name, schema in schemas.items()
        if schema.get("additionalProperties") is False
        for field in schema.get("properties", {})
        if field in terms
    }
    assert found == marked


def test_links_name_parameters_and_values_that_exist(stated: dict[str, Any]) -> None:
    operations = {
        operation["operationId"]: operation
        for methods in stated["paths"].values()
        for operation in methods.values()
    }
    linked = 0
    for operation in operations.values():
        for status, response in operation["responses"].items():
            for name, link in response.get("links", {}).items():
                target = operations[link["operationId"]]
                linked += 1
                assert name == link["operationId"] and status.startswith("2")
                assert set(link.get("parameters", {})) <= {p["name"] for p in target["parameters"]}
                if "requestBody" in link:
                    assert link["requestBody"].keys() <= _properties(stated, target["requestBody"])
                for expression in re.findall(r"\$response\.body#(/[a-z_0-9/]+)", json.dumps(link)):
                    assert _reaches(stated, response, expression), (operation["operationId"], expression)
    assert linked >= 50


def _resolved(stated: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The schema and its alternatives, references followed."""
    if "$ref" in schema:
        schema = stated["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return [schema, *(found for branch in schema.get("anyOf", []) for found in _resolved(stated, branch))]


def _properties(stated: dict[str, Any], body: dict[str, Any]) -> set[str]:
    [schema, *_] = _resolved(stated, body["content"]["application/json"]["schema"])
    return set(schema["properties"])


def _reaches(stated: dict[str, Any], response: dict[str, Any], pointer: str) -> bool:
    """Whether the answer's schema has a value at `pointer`."""
    schemas = _resolved(stated, response["content"]["application/json"]["schema"])
    for part in pointer.strip("/").split("/"):
        inner = [
            schema["items"] if part.isdigit() else schema["properties"][part]
            for schema in schemas
            if ("items" if part.isdigit() else part)
            in (schema if part.isdigit() else schema.get("properties", {}))
        ]
        schemas = [found for schema in inner for found in _resolved(stated, schema)]
    return bool(schemas)
