"""The OpenAPI document: the committed one is the code's, and it states every answer that a caller may get."""

import json
import re
from typing import Any

import pytest

from app.commands.openapi import document
from app.settings import load_settings
from testkit.databases import CHECKOUT
from tests.contract.declared import resolved

GOLDEN = CHECKOUT / "openapi" / "openapi.json"
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


def test_every_failure_is_a_problem_with_its_codes(operations: list[tuple[str, str, dict[str, Any]]]) -> None:
    for method, path, operation in operations:
        failures = {status: r for status, r in operation["responses"].items() if status >= "400"}
        if path in PROBES:
            assert "422" not in failures
            continue
        assert failures, (method, path)
        for status, response in failures.items():
            [(media_type, content)] = resolved(response)["content"].items()
            assert media_type == "application/problem+json", (method, path, status)
            if status == "default":
                assert content["schema"] == {"$ref": "#/components/schemas/AnyProblem"}
            else:
                assert resolved(content["schema"])["discriminator"]["propertyName"] == "code"
            assert resolved(response)["description"]


def test_every_problem_schema_has_the_members_of_rfc_9457(stated: dict[str, Any]) -> None:
    schemas = stated["components"]["schemas"]
    problems = {
        name for name, schema in schemas.items() if name.endswith("Problem") and "oneOf" not in schema
    }
    assert len(problems) >= 12
    for name in problems:
        members = {"type", "title", "status", "code", "detail", "request_id"}
        assert set(schemas[name]["required"]) >= members, name
    assert set(schemas["ProblemError"]["required"]) == {"pointer", "code", "detail"}


def test_every_code_is_in_the_discriminator_and_in_the_reference(stated: dict[str, Any]) -> None:
    """O16: codes were free strings, and the figures of seat_limit_reached had no type."""
    schemas = stated["components"]["schemas"]
    mapping = schemas["AnyProblem"]["discriminator"]["mapping"]
    plain = [code for code, reference in mapping.items() if reference == "#/components/schemas/Problem"]
    assert sorted(plain) == schemas["Problem"]["properties"]["code"]["enum"]
    for code, reference in mapping.items():
        if code not in plain:
            assert schemas[reference.rpartition("/")[2]]["properties"]["code"]["const"] == code
    shown = set(re.findall(r"\| `([a-z_]+)` \|", (CHECKOUT / "docs/reference/errors.md").read_text("utf-8")))
    assert mapping.keys() ^ shown == set()
    figures = schemas["SeatLimitReachedProblem"]
    assert {"total", "used", "required"} <= set(figures["required"])
    assert {figures["properties"][name]["type"] for name in ("total", "used", "required")} == {"integer"}


def test_an_operation_names_the_codes_that_it_can_answer(stated: dict[str, Any]) -> None:
    """O16: the codes of adding people are not those of reading an invoice."""
    people = stated["paths"]["/v1/shared-subscriptions/{subscription_id}/users"]["patch"]["responses"]
    codes = people["409"]["content"]["application/problem+json"]["schema"]["discriminator"]["mapping"]
    assert {"seat_limit_reached", "already_member", "operation_in_progress"} <= codes.keys()
    assert {"already_subscribed", "payment_method_in_use", "invitation_ended"}.isdisjoint(codes)


def test_every_operation_states_its_credentials(operations: list[tuple[str, str, dict[str, Any]]]) -> None:
    """O16: the document had no security schemes."""
    anonymous = []
    for _, path, operation in operations:
        if path in PROBES:
            assert operation["security"] == []
        else:
            assert operation["security"][:2] == [{"endUser": []}, {"serviceKey": []}]
            anonymous += [operation["operationId"]] if {} in operation["security"] else []
    assert sorted(anonymous) == ["declineInvitation", "getProducts", "lookUpInvitation"]


def test_every_operation_states_its_headers(operations: list[tuple[str, str, dict[str, Any]]]) -> None:
    """O16: the document had no headers."""
    for method, path, operation in operations:
        responses = {status: resolved(response) for status, response in operation["responses"].items()}
        assert all("X-Request-Id" in response["headers"] for response in responses.values()), path
        if path in PROBES:
            continue
        named = {resolved(parameter)["name"] for parameter in operation["parameters"]}
        assert "X-Acting-Customer" in named
        assert ("Idempotency-Key" in named) == (method != "GET"), path
        assert ("If-None-Match" in named) == ("304" in responses), path
        assert ("If-Match" in named) == ("412" in responses), path
        for status, response in responses.items():
            headers = response["headers"]
            assert ("ETag" in headers) == (status in ("200", "304") and "304" in responses), (path, status)
            assert ("Location" in headers) == (status == "202" and "content" in response), (path, status)
            assert "Retry-After" in headers or status not in ("429", "503"), (path, status)
            assert "Idempotency-Replayed" in headers or method == "GET" or status[0] != "2", (path, status)


def test_every_tag_is_described(stated: dict[str, Any]) -> None:
    used = {
        tag
        for methods in stated["paths"].values()
        for operation in methods.values()
        for tag in operation["tags"]
    }
    assert used == {tag["name"] for tag in stated["tags"]}
    assert all(tag["description"] for tag in stated["tags"])
    assert stated["servers"] and stated["info"]["license"]["identifier"] == "Apache-2.0"


def test_one_constant_tells_a_finished_change_from_an_accepted_one(
    stated: dict[str, Any], operations: list[tuple[str, str, dict[str, Any]]]
) -> None:
    """O16: 200 and 202 shared no tag."""
    schemas, told = stated["components"]["schemas"], 0
    for _, path, operation in operations:
        if "202" in operation["responses"]:
            told += 1
            for status, expected in (("200", False), ("201", False), ("202", True)):
                for content in operation["responses"].get(status, {}).get("content", {}).values():
                    schema = schemas[content["schema"]["$ref"].rpartition("/")[2]]
                    assert schema["properties"]["pending"]["const"] is expected, (path, status)
                    assert "pending" in schema["required"]
    assert told >= 11


def test_request_fields_with_a_default_are_not_required(stated: dict[str, Any]) -> None:
    """O16: a generator made them required, because they had a default."""
    requests = [schema for schema in stated["components"]["schemas"].values() if _is_request(schema)]
    assert len(requests) > 15
    for schema in requests:
        assert all("default" not in field for field in schema["properties"].values()), schema
    bought = stated["components"]["schemas"]["NewSubscriptionRequest"]
    assert bought["required"] == ["items"]
    assert "`false` if it is left out" in bought["properties"]["allow_duplicate"]["description"]


def _is_request(schema: dict[str, Any]) -> bool:
    return schema.get("additionalProperties") is False and "properties" in schema


STATED_ONE_BY_ONE = {"status", "state", "outcome", "code", "invoice_status", "billing_reason"}
FREE = {("ProblemError", "code"), ("PromotionCode", "code")}
"""Codes of fields' rules, and the text of a promotion code."""


def test_statuses_states_outcomes_and_codes_are_enumerations(stated: dict[str, Any]) -> None:
    """O16: `status` was a free string."""
    free = []
    for name, schema in stated["components"]["schemas"].items():
        for field, found in schema.get("properties", {}).items():
            if field in STATED_ONE_BY_ONE and (name, field) not in FREE and not name.endswith("Problem"):
                branches = [resolved(branch) for branch in (found, *found.get("anyOf", []))]
                texts = [branch for branch in branches if branch.get("type") == "string"]
                if texts and not any("enum" in branch or "const" in branch for branch in texts):
                    free.append((name, field))
    assert free == []


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
NAMES_NOTHING = {"/v1/webhook-endpoints"}
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
        if path in NAMES_NOTHING:
            expected = expected - {"404"}
        if "{" in path:
            expected = expected | {"403", "404"}
        assert statuses >= expected, (method, path, expected - statuses)


def test_every_successful_answer_has_a_schema(operations: list[tuple[str, str, dict[str, Any]]]) -> None:
    for method, path, operation in operations:
        for status, response in operation["responses"].items():
            if status.startswith("2") and "content" in response:
                [(media_type, content)] = response["content"].items()
                is_stream = operation["operationId"] == "streamEvents"
                assert media_type == ("text/event-stream" if is_stream else "application/json") and (
                    content["schema"] or path in PROBES
                ), (
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
                assert set(link.get("parameters", {})) <= {resolved(p)["name"] for p in target["parameters"]}
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
