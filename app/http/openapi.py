"""Complete the OpenAPI document that FastAPI makes from the routes.

FastAPI knows paths, parameters and bodies. Credentials, headers and problems hold for many routes at once, so they are
stated here once. Source: https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from fastapi import FastAPI

from app.http import links, problem_schemas, problems
from app.http.problem_codes import COMMON, PHRASES, codes_of

Json = dict[str, Any]

CONTACT: Final = {"name": "The operator of this deployment"}
LICENCE: Final = {"name": "Apache License 2.0", "identifier": "Apache-2.0"}
SERVERS: Final = (
    {"url": "/", "description": "The host that serves this document"},
    {"url": "http://127.0.0.1:8000", "description": "What `make run` starts"},
)
MACHINES: Final = "machines"
TAGS: Final = (
    {"name": "products", "description": "What is on sale, with its prices."},
    {
        "name": "customers",
        "description": "A customer: profile, payment methods, invoices, and access to products.",
    },
    {
        "name": "subscriptions",
        "description": "Buying, changing, quoting, cancelling and resuming subscriptions.",
    },
    {
        "name": "shared subscriptions",
        "description": "The people and seats of a subscription, its owner, and its audit trail.",
    },
    {"name": "invitations", "description": "Seats that a person accepts, whatever customer they are."},
    {"name": "events", "description": "Every change of seats and access in order, for other back ends."},
    {
        "name": "webhook endpoints",
        "description": "URLs of the application that the service sends events to, signed and in order.",
    },
    {"name": "operations", "description": "Changes that were accepted, and what became of them."},
    {"name": MACHINES, "description": "Probes of the process, for balancers. They take no credential."},
)

_SCHEMES: Final = {
    "endUser": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "An end user's token from the identity provider.",
    },
    "serviceKey": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "csk_…",
        "description": "A back end's key. Its scopes limit it: `admin` includes `write`, and `write` includes `read`. "
        "With `X-Acting-Customer` it has the rights of that customer.",
    },
}
_CREDENTIALS: Final[tuple[Json, ...]] = ({"endUser": []}, {"serviceKey": []})
ANONYMOUS: Final = frozenset({"getProducts", "lookUpInvitation", "declineInvitation"})
"""The operations that also answer callers without a credential."""

_PARAMETERS: Final[Mapping[str, Json]] = {
    "ActingCustomer": {
        "name": "X-Acting-Customer",
        "in": "header",
        "description": "A service key acts for this customer, with the rights of that customer. Not beside a token.",
        "schema": {"type": "string", "maxLength": 255, "examples": ["cus_demoowner"]},
    },
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The write is made once under one key: sent again within 24 hours, it is answered as at first.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    },
    "IfNoneMatch": {
        "name": "If-None-Match",
        "in": "header",
        "description": "The ETag of an earlier answer: 304 if this one would be the same.",
        "schema": {"type": "string"},
    },
    "IfMatch": {
        "name": "If-Match",
        "in": "header",
        "description": "The ETag of the object as the caller saw it: 412 if it has changed.",
        "schema": {"type": "string"},
    },
}
_HEADERS: Final[Mapping[str, Json]] = {
    "RequestId": {
        "description": "The id of the request in the log: the caller's own if it is 8 to 64 harmless characters.",
        "required": True,
        "schema": {"type": "string"},
    },
    "ETag": {
        "description": "Names this answer, for If-None-Match and If-Match. It does not depend on `synced_at`.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Location": {
        "description": "Where the operation is read.",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "RetryAfter": {
        "description": "Seconds after which the request may be sent again.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "IdempotencyReplayed": {
        "description": "The answer is that of an earlier request with this Idempotency-Key.",
        "schema": {"type": "string", "const": "true"},
    },
    "Authenticate": {"description": "Always `Bearer`.", "required": True, "schema": {"type": "string"}},
}
_RETRIED: Final = frozenset({"202", "409", "429", "503"})
_SERVER_ERROR: Final = "500"


def install(app: FastAPI) -> None:
    """Complete the document of `app`, which is made at the first request for it and kept."""
    generate: Callable[[], Json] = app.openapi
    made: list[Json] = []

    def openapi() -> Json:
        if not made:
            made.append(_complete(generate()))
        return made[0]

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's way to extend the document


def _complete(document: Json) -> Json:
    components = document["components"]
    components["schemas"].update(problem_schemas.components())
    components["securitySchemes"] = _SCHEMES
    components["parameters"] = dict(_PARAMETERS)
    components["headers"] = dict(_HEADERS)
    for operation, method in _operations(document):
        _add_credentials(operation)
        _add_parameters(operation, method)
        for status, response in operation["responses"].items():
            _add_headers(operation["responses"], method, status, response)
        if MACHINES not in operation["tags"]:
            operation["responses"]["default"] = {"$ref": "#/components/responses/Problem"}
    for sent in document["webhooks"].values():
        # We send it, without a credential: its signature proves whose it is.
        sent["post"]["security"] = []
    _share_problems(document)
    links.add_to(document)
    _tidy(components["schemas"])
    for operation, _ in _operations(document):
        for parameter in operation.get("parameters", []):
            parameter.get("schema", {}).pop("title", None)
    # A generator that reads the schemas first takes the discriminator with every code as the one of `Problem`.
    first = ("openapi", "info", "servers", "tags", "components")
    return {name: document[name] for name in (*first, *(document.keys() - set(first)))}


def _share_problems(document: Json) -> None:
    """Move the problems that many operations answer alike to `components`."""
    components, responses = document["components"], dict(_shared_responses())
    schemas = {repr(schema): name for name, schema in _shared_schemas()}
    by_content = {repr(response): name for name, response in responses.items()}
    components["responses"] = {"Problem": responses["Problem"]}
    for operation, _ in _operations(document):
        for status, response in operation["responses"].items():
            for content in response.get("content", {}).values():
                if (schema := schemas.get(repr(content.get("schema")))) is not None:
                    components["schemas"][schema] = content["schema"]
                    content["schema"] = {"$ref": f"#/components/schemas/{schema}"}
            if (name := by_content.get(repr(response))) is not None:
                components["responses"][name] = responses[name]
                operation["responses"][status] = {"$ref": f"#/components/responses/{name}"}


def _operations(document: Json) -> Iterator[tuple[Json, str]]:
    for methods in document["paths"].values():
        for method, operation in methods.items():
            yield operation, method


def _add_credentials(operation: Json) -> None:
    if MACHINES in operation["tags"]:
        operation["security"] = []
    else:
        anonymous: list[Json] = [{}] if operation["operationId"] in ANONYMOUS else []
        operation["security"] = [*_CREDENTIALS, *anonymous]


def _add_parameters(operation: Json, method: str) -> None:
    if MACHINES in operation["tags"]:
        return
    names = ["ActingCustomer"]
    if method != "get":
        names.append("IdempotencyKey")
    if "304" in operation["responses"]:
        names.append("IfNoneMatch")
    if "412" in operation["responses"]:
        names.append("IfMatch")
    operation.setdefault("parameters", []).extend(
        {"$ref": f"#/components/parameters/{name}"} for name in names
    )


def _add_headers(responses: Json, method: str, status: str, response: Json) -> None:
    found = {"X-Request-Id": "RequestId"}
    if status in ("200", "304") and "304" in responses:
        found["ETag"] = "ETag"
    if status == "202" and "content" in response:
        found["Location"] = "Location"
    if status == "401":
        found["WWW-Authenticate"] = "Authenticate"
    if status in _RETRIED and (method != "get" or status != "409"):
        found["Retry-After"] = "RetryAfter"
    if method != "get" and status < _SERVER_ERROR and status not in ("400", "401", "408", "413", "429"):
        found["Idempotency-Replayed"] = "IdempotencyReplayed"
    response["headers"] = {name: {"$ref": f"#/components/headers/{kind}"} for name, kind in found.items()}


def _shared_schemas() -> Iterator[tuple[str, Json]]:
    """Yield the schemas of problems that many operations answer alike, each with a name made from its status."""
    for status in COMMON:
        name = PHRASES[status].replace(" ", "")
        read, write = codes_of(status, write=False), codes_of(status, write=True)
        yield f"{name}Problem", problem_schemas.schema_of(read)
        if write != read:
            yield f"{name}WriteProblem", problem_schemas.schema_of(write)


def _shared_responses() -> Iterator[tuple[str, Json]]:
    """Yield the answers with those schemas. Those to writes have other headers."""
    yield "Problem", _problem("default", problem_schemas.ANY_PROBLEM, "get")
    for status in COMMON:
        name = PHRASES[status].replace(" ", "")
        same = codes_of(status, write=False) == codes_of(status, write=True)
        read = _problem(str(status), f"{name}Problem", "get")
        write = _problem(str(status), f"{name}Problem" if same else f"{name}WriteProblem", "post")
        if read == write:
            yield name, read
        else:
            yield f"{name}ToRead", read
            yield f"{name}ToWrite", write


def _problem(status: str, schema: str, method: str) -> Json:
    reference = {"$ref": f"#/components/schemas/{schema}"}
    response: Json = {
        "description": "Any other failure" if status == "default" else PHRASES[int(status)],
        "content": {problems.MEDIA_TYPE: {"schema": reference}},
    }
    _add_headers({}, method, status, response)
    return response


def _tidy(part: Any) -> None:
    """Take titles and defaults out of schemas, and say a default in the description.

    A title repeats the name of its field. Some generators take a field with a default as one that a request must have.
    """
    if isinstance(part, list):
        for one in part:
            _tidy(one)
    elif isinstance(part, dict):
        for stated in part.get("properties", {}).values():
            stated.pop("title", None)
            default = stated.pop("default", None)
            if isinstance(default, bool | str) and default != "":
                told = (
                    f"`{str(default).lower() if isinstance(default, bool) else default}` if it is left out."
                )
                stated["description"] = f"{stated.get('description', '')} {told}".strip()
        for one in part.values():
            _tidy(one)
