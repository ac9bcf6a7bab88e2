"""Bad input: each with its code, and nothing changed by any of it."""

import base64
import gzip
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import jwt
import pytest

from testkit.company import Company, Service, event_of, new_email, signed
from testkit.problems import pointers, problem
from testkit.service import AUDIENCE, ISSUER, JWT_SECRET, as_service, as_user, user_token


@pytest.fixture(scope="module")
async def company(service: Service) -> Company:
    """Everybody has been seen once, so that nothing here is the first sight of a login."""
    made = await service.company()
    for person in (made.owner, made.manager, made.user, made.stranger):
        assert (await service.get("/v1/customers/me", person.headers)).status_code == 200
    return made


@pytest.fixture
async def unchanged(service: Service, company: Company) -> AsyncIterator[None]:
    """Fails a test that left a row, or a request at the stand-in."""
    before, members = await service.row_counts(), await company.members()
    yield
    assert await service.row_counts() == before
    assert await company.members() == members


pytestmark = pytest.mark.usefixtures("unchanged")

CHANGE = {"add": [{"email": "someone@example.com"}]}
IDS = [
    "%7F",
    "a%C2%85b",
    "x" * 256,
    "%00",
    "cus_a%00",
    "cus_a%0A",
]


@pytest.mark.parametrize("wrong", IDS)
async def test_malformed_ids_in_paths(service: Service, company: Company, wrong: str) -> None:
    for path in ("/v1/customers/{}", "/v1/customers/{}/invoices", "/v1/customers/{}/subscriptions"):
        response = await service.get(path.format(wrong), company.owner.headers)
        if "/" in wrong:
            problem(response, 404, "not_found")
        else:
            document = problem(response, 422, "invalid_request")
            assert pointers(document) == ["path/customer_id"]
    for path, pointer in (
        ("/v1/subscriptions/{}", "path/subscription_id"),
        ("/v1/shared-subscriptions/{}/users", "path/subscription_id"),
        ("/v1/invoices/{}", "path/invoice_id"),
        ("/v1/operations/{}", "path/operation_id"),
    ):
        if wrong == "sub_demo" and pointer == "path/subscription_id":
            continue
        response = await service.get(path.format(wrong.replace("cus", "xyz")), company.owner.headers)
        if "/" in wrong:
            problem(response, 404, "not_found")
        else:
            assert pointers(problem(response, 422, "invalid_request")) == [pointer]


@pytest.mark.parametrize(
    ("path", "query", "pointer"),
    [
        ("/v1/customers/me/subscriptions", {"status": "Active"}, "query/status/0"),
        ("/v1/customers/me/subscriptions", {"status": ["a"] * 11}, "query/status"),
        ("/v1/customers/me/subscriptions", {"role": "admin"}, "query/role"),
        ("/v1/customers/me/invoices", {"status": "x\x00"}, "query/status"),
        ("/v1/customers/me/invoices", {"subscription_id": "in_1"}, "query/subscription_id"),
        ("/v1/customers/me/payment-methods", {"type": "CARD"}, "query/type"),
        ("/v1/products", {"currency": "€uro"}, "query/currency"),
        ("/v1/products", {"ids": ["ok", "a\x00b"]}, "query/ids/1"),
    ],
)
async def test_malformed_queries(
    service: Service, company: Company, path: str, query: dict[str, Any], pointer: str
) -> None:
    document = problem(await service.get(path, company.owner.headers, **query), 422, "invalid_request")
    assert pointers(document) == [pointer]


async def test_a_search_may_be_100_characters(service: Service, company: Company) -> None:
    path = f"{company.path}/users"
    assert (await service.get(path, company.owner.headers, search="x" * 100)).status_code == 200
    document = problem(
        await service.get(path, company.owner.headers, search="x" * 101), 422, "invalid_request"
    )
    assert pointers(document) == ["query/search"]
    odd = await service.client.get(f"{path}?search=%ED%A0%80%00%FF", headers=dict(company.owner.headers))
    assert odd.status_code == 200


CUS, EMAIL = "cus_someone", "someone@example.com"
BODIES: list[tuple[Any, list[str]]] = [
    ({}, ["/"]),
    ({"add": [], "remove": [], "update": []}, ["/"]),
    ([], ["/"]),
    (None, ["/"]),
    ("add", ["/"]),
    (7, ["/"]),
    ({**CHANGE, "quantity": 9}, ["/quantity"]),
    ({**CHANGE, "metadata": {"billing_shared_subscription_owner": CUS}}, ["/metadata"]),
    ({**CHANGE, "__proto__": {}}, ["/__proto__"]),
    ({"add": [{"email": EMAIL, "metadata": {}}]}, ["/add/0/metadata"]),
    ({"add": [{"email": EMAIL, "role": "owner"}]}, ["/add/0/role"]),
    ({"add": [{"email": EMAIL, "role": "Manager"}]}, ["/add/0/role"]),
    ({"add": [{"email": EMAIL, "role": None}]}, ["/add/0/role"]),
    ({"add": [{"email": EMAIL, "role": 1}]}, ["/add/0/role"]),
    ({"add": {"email": EMAIL}}, ["/add"]),
    ({"add": EMAIL}, ["/add"]),
    ({"add": [EMAIL]}, ["/add/0"]),
    ({"add": [{}]}, ["/add/0"]),
    ({"add": [{"email": EMAIL, "customer_id": CUS}]}, ["/add/0"]),
    ({"add": [{"email": 5}]}, ["/add/0/email"]),
    ({"add": [{"email": True}]}, ["/add/0/email"]),
    ({"add": [{"email": "nobody"}]}, ["/add/0/email"]),
    ({"add": [{"email": "@example.com"}]}, ["/add/0/email"]),
    ({"add": [{"email": "a b@example.com"}]}, ["/add/0/email"]),
    ({"add": [{"email": "a\u0000@example.com"}]}, ["/add/0/email"]),
    ({"add": [{"email": "a\n@example.com"}]}, ["/add/0/email"]),
    ({"add": [{"email": "x" * 250 + "@example.com"}]}, ["/add/0/email"]),
    ({"add": [{"customer_id": ""}]}, ["/add/0/customer_id"]),
    ({"add": [{"customer_id": "x" * 256}]}, ["/add/0/customer_id"]),
    ({"add": [{"customer_id": "cus_1\u0000"}]}, ["/add/0/customer_id"]),
    ({"add": [{"customer_id": "cus_1\n"}]}, ["/add/0/customer_id"]),
    ({"remove": [1]}, ["/remove/0"]),
    ({"remove": [True]}, ["/remove/0"]),
    ({"remove": [None]}, ["/remove/0"]),
    ({"remove": ["cus_ok", "cus_\u0085"]}, ["/remove/1"]),
    ({"remove": [{"customer_id": CUS}]}, ["/remove/0"]),
    ({"remove": CUS}, ["/remove"]),
    ({"update": [{"customer_id": CUS}]}, ["/update/0/role"]),
    ({"update": [{"role": "user"}]}, ["/update/0/customer_id"]),
    ({"update": [{"customer_id": CUS, "role": "payer"}]}, ["/update/0/role"]),
    ({"remove": [f"cus_{n}" for n in range(101)]}, ["/remove"]),
    (
        {
            "add": [{"email": f"p{n}@example.com"} for n in range(60)],
            "remove": [f"cus_{n}" for n in range(41)],
        },
        ["/"],
    ),
    ({**CHANGE, "proration_behavior": "free"}, ["/proration_behavior"]),
    ({**CHANGE, "\u0000": 1}, ["/\u0000"]),
]


@pytest.mark.parametrize(("body", "expected"), BODIES)
async def test_malformed_bodies(service: Service, company: Company, body: Any, expected: list[str]) -> None:
    path = f"{company.path}/users"
    for who in (company.owner.headers, as_service("admin")):
        response = await service.client.patch(
            path,
            content=json.dumps(body).encode(),
            headers={**who, "Content-Type": "application/json"},
        )
        document = problem(response, 422, "invalid_request")
        assert pointers(document) == expected, document
        assert EMAIL not in response.text


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"user_id": "u", "name": 5}, ["/name"]),
        ({"user_id": "u", "name": ""}, ["/name"]),
        ({"user_id": "u", "name": "x" * 257}, ["/name"]),
        ({"user_id": "u", "name": "nul\u0000"}, ["/name"]),
        ({"user_id": "u", "name": "lines\nof it"}, ["/name"]),
        ({"metadata": {}}, ["/metadata"]),
        ({"user_id": "u", "email": "nobody"}, ["/email"]),
        ({"user_id": True}, ["/user_id"]),
        ({"user_id": "x" * 256}, ["/user_id"]),
        ({"user_id": "nul\u0000"}, ["/user_id"]),
        ({"user_id": " spaces around "}, ["/user_id"]),
        ({"user_id": "line\nbreak"}, ["/user_id"]),
        ({}, ["/user_id"]),
    ],
)
async def test_malformed_new_customers(service: Service, body: Any, expected: list[str]) -> None:
    response = await service.send("POST", "/v1/customers", as_service("write"), body)
    assert pointers(problem(response, 422, "invalid_request")) == expected


NOT_JSON = {
    "empty": b"",
    "truncated": b'{"add": [{"email": "a@exam',
    "not UTF-8": b'{"add": [{"email": "\xff\xfe@example.com"}]}',
    "deep lists": b"[" * 30_000 + b"]" * 30_000,
    "deep in a field": b'{"add": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "deep objects": b'{"a":' * 9_000 + b"1" + b"}" * 9_000,
    "a lone surrogate": b'{"add": [{"email": "\\ud800@example.com"}]}',
    "a lone surrogate's name": b'{"\\udfff": 1, "add": [{"email": "a@example.com"}]}',
    "a lone surrogate's name inside": b'{"add": [{"email": "a@example.com", "\\ud83d": 1}]}',
    "a lone surrogate in an id": b'{"remove": ["cus_\\ud800"]}',
    "a number without end": b'{"add": ' + b"9" * 60_000 + b"}",
    "an exponent without end": b'{"remove": [1e999999]}',
    "NaN": b'{"remove": [NaN]}',
    "two values": b'{"remove": ["cus_a"]} {"remove": ["cus_b"]}',
    "form": b"remove=cus_a",
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
@pytest.mark.parametrize("key", [False, True], ids=["without key", "with key"])
async def test_bodies_that_are_not_json_or_not_text(
    service: Service, company: Company, body: bytes, key: bool
) -> None:
    for method, path in (("PATCH", f"{company.path}/users"), ("PATCH", "/v1/customers/me")):
        headers = {**company.stranger.headers, "Content-Type": "application/json"}
        if key:
            headers = {**headers, "Authorization": "Bearer nonsense", "Idempotency-Key": "k"}
            expected = (401, "unauthenticated")
        else:
            expected = (422, "invalid_request")
        response = await service.client.request(method, path, content=body, headers=headers)
        problem(response, *expected)


@pytest.mark.parametrize(
    "media_type",
    [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp", ""],
)
async def test_other_media_types_are_refused(
    service: Service, company: Company, media_type: str | None
) -> None:
    headers = {**company.owner.headers, **({} if media_type is None else {"Content-Type": media_type})}
    response = await service.client.patch(
        f"{company.path}/users", content=json.dumps(CHANGE).encode(), headers=headers
    )
    problem(response, 415, "unsupported_media_type")


async def test_a_character_set_beside_json_is_taken(service: Service, company: Company) -> None:
    response = await service.client.patch(
        f"{company.path}/users",
        content=b'{"remove": 1}',
        headers={**company.owner.headers, "Content-Type": "Application/JSON; charset=utf-8"},
    )
    problem(response, 422, "invalid_request")


LIMIT = 64 * 1024


async def in_pieces(size: int) -> AsyncIterator[bytes]:
    start = b'{"add": "'
    yield start
    left = size - len(start) - 2
    while left > 0:
        piece = min(left, 8192)
        yield b"x" * piece
        left -= piece
    yield b'"}'


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "large"}], ids=["without key", "with key"])
@pytest.mark.parametrize("who", ["owner", "anonymous"])
async def test_bodies_over_64_kib(service: Service, company: Company, key: dict[str, str], who: str) -> None:
    headers = {"Content-Type": "application/json", **key}
    if who == "owner":
        headers |= company.owner.headers
    path = f"{company.path}/users"
    declared = await service.client.patch(path, content=b"x" * (LIMIT + 1), headers=headers)
    problem(declared, 413, "payload_too_large")
    pieces = await service.client.patch(path, content=in_pieces(LIMIT + 1), headers=headers)
    problem(pieces, 413, "payload_too_large")
    if not key:
        within = await service.client.patch(path, content=in_pieces(LIMIT), headers=headers)
        expected = (422, "invalid_request") if who == "owner" else (401, "unauthenticated")
        problem(within, *expected)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/products", "GET"),
        ("PUT", "/v1/customers", "POST"),
        ("POST", "/v1/operations/op_000000000000000000000000", "GET"),
        ("POST", "/healthz", "GET"),
        ("GET", "/webhooks/stripe", "POST"),
    ],
)
async def test_other_methods_are_not_allowed(
    service: Service, company: Company, method: str, path: str, allowed: str
) -> None:
    response = await service.client.request(method, path, headers=dict(company.owner.headers))
    problem(response, 405, "method_not_allowed")
    assert allowed in response.headers["allow"]


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v2/products", "/v1/customers/me/nothing", "/v1/%2e%2e/metrics"]
)
async def test_unknown_paths_are_not_found(service: Service, company: Company, path: str) -> None:
    problem(await service.get(path, company.owner.headers), 404, "not_found")


async def test_fields_of_admins_are_refused_to_everybody_else(service: Service, company: Company) -> None:
    change = {"remove": ["cus_absent0"], "proration_behavior": "none"}
    for who in (
        company.owner.headers,
        company.manager.headers,
        as_service("write"),
        as_service("admin", acting_for=company.owner.customer_id),
    ):
        response = await service.send("PATCH", f"{company.path}/users", who, change)
        document = problem(response, 403, "field_not_allowed")
        assert pointers(document) == ["/proration_behavior"]
        assert document["errors"][0]["code"] == "field_not_allowed"


def tokens() -> Iterator[tuple[str, str]]:
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "somebody", "iat": now, "exp": now + 600}

    def sign(secret: str = JWT_SECRET, headers: dict[str, Any] | None = None, **changes: Any) -> str:
        given = {name: value for name, value in {**claims, **changes}.items() if value is not None}
        return jwt.encode(given, secret, "HS256", headers)

    def bare(header: dict[str, Any]) -> str:
        parts = [
            base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)
        ]
        return b".".join([*parts, b""]).decode()

    yield "no expiry", sign(exp=None)
    yield "expired", sign(exp=now - 120)
    yield "not yet", sign(nbf=now + 600)
    yield "no audience", sign(aud=None)
    yield "another audience", sign(aud="others")
    yield "several other audiences", sign(aud=["another", "others"])
    yield "no issuer", sign(iss=None)
    yield "another issuer", sign(iss="https://elsewhere.example")
    yield "no subject", sign(sub=None)
    yield "another secret", sign("another secret that is long enough for it")
    yield "alg none", bare({"alg": "none", "typ": "JWT"})
    yield "alg None", bare({"alg": "None"})
    yield "a key in the header", sign(headers={"jwk": {"kty": "oct", "k": "AAAA"}})
    yield "a link in the header", sign(headers={"jku": "http://127.0.0.1:1/keys"})
    yield "a claim that names no customer", sign(stripe_customer_id="a\nb")
    yield "not a token", "nonsense"
    yield "too long", sign(padding="x" * 9000)
    yield "an unknown service key", "csk_unknown"
    yield "nothing", ""


BAD_TOKENS = dict(tokens())


@pytest.mark.parametrize("token", BAD_TOKENS.values(), ids=BAD_TOKENS.keys())
async def test_bad_credentials_are_refused_everywhere(service: Service, company: Company, token: str) -> None:
    who = {"Authorization": f"Bearer {token}"}
    for method, path, body in (
        ("GET", company.path, None),
        ("GET", "/v1/products", None),
        ("PATCH", f"{company.path}/users", CHANGE),
    ):
        response = await service.send(method, path, who, body)
        problem(response, 401, "unauthenticated")
        assert response.headers["www-authenticate"] == "Bearer"


async def test_other_authorization_headers(service: Service, company: Company) -> None:
    for value in ("Basic dXNlcjpwYXNz", "Bearer", user_token(), "bearer\t" + user_token()):
        problem(await service.get(company.path, {"Authorization": value}), 401, "unauthenticated")
    lower = {"Authorization": company.owner.headers["Authorization"].replace("Bearer", "bearer")}
    assert (await service.get(company.path, lower)).status_code == 200


async def test_acting_for_somebody_is_for_service_keys(service: Service, company: Company) -> None:
    acting = {"X-Acting-Customer": company.owner.customer_id}
    problem(await service.get(company.path, {**company.user.headers, **acting}), 422, "invalid_request")
    problem(await service.get(company.path, acting), 401, "unauthenticated")
    for wrong in ("", "x" * 256):
        response = await service.get(company.path, {**as_service("read"), "X-Acting-Customer": wrong})
        assert pointers(problem(response, 422, "invalid_request")) == ["header/X-Acting-Customer"]


def customer_event() -> dict[str, Any]:
    state = {
        "id": "cus_forged0000",
        "object": "customer",
        "created": 1,
        "metadata": {},
        "email": "f@example.com",
    }
    return event_of("customer.updated", state)


async def test_webhooks_that_stripe_did_not_sign(service: Service) -> None:
    body = json.dumps(customer_event()).encode()
    now = int(time.time())
    good = signed(body)["Stripe-Signature"]
    forged: dict[str, dict[str, str]] = {
        "unsigned": {},
        "stale": signed(body, at=now - 301),
        "future": signed(body, at=now + 330),
        "another secret": signed(body, secret="whsec_another"),
        "another body": signed(body + b" "),
        "scheme v0": {"Stripe-Signature": good.replace("v1=", "v0=")},
        "no time": {"Stripe-Signature": good.partition(",")[2]},
        "empty": {"Stripe-Signature": ""},
        "a flood": {"Stripe-Signature": good + ",v1=00" * 2000},
        "cut": {"Stripe-Signature": good[:-1]},
    }
    for name, headers in forged.items():
        response = await service.client.post("/webhooks/stripe", content=body, headers=headers)
        assert response.status_code == 400, name
        problem(response, 400, "invalid_webhook")


async def test_signed_nonsense(service: Service) -> None:
    event = customer_event()
    for body in (
        b"",
        b"[]",
        b"{",
        b"null",
        b'"event"',
        b"\xff\xfe",
        json.dumps({**event, "id": 5}).encode(),
        json.dumps({**event, "id": "evt_\x00"}).encode(),
        json.dumps({**event, "created": "1"}).encode(),
        json.dumps({**event, "created": True}).encode(),
        json.dumps({**event, "created": 2**63}).encode(),
        json.dumps({**event, "data": []}).encode(),
        json.dumps({**event, "data": {"object": "cus_1"}}).encode(),
        b'{"object": "event", "id": "evt_\\ud800"}',
    ):
        response = await service.client.post("/webhooks/stripe", content=body, headers=signed(body))
        problem(response, 400, "invalid_webhook")


async def test_webhook_bodies_are_refused_when_over_1_mib(service: Service) -> None:
    event = customer_event()
    event["data"]["object"]["description"] = "x" * (4 * 1024 * 1024)
    body = json.dumps(event).encode()
    declared = await service.client.post("/webhooks/stripe", content=body, headers=signed(body))
    problem(declared, 413, "payload_too_large")
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for start in range(0, len(body), 65_536):
            sent += 65_536
            yield body[start : start + 65_536]

    streamed = await service.client.post("/webhooks/stripe", content=pieces(), headers=signed(body))
    problem(streamed, 413, "payload_too_large")
    # After the limit, 1 MiB at most is read away behind the answer; each may end within a piece.
    assert sent <= 2 * 1024 * 1024 + 2 * 65_536


async def test_absent_subscriptions_take_no_change_from_anybody(service: Service, company: Company) -> None:
    path = "/v1/shared-subscriptions/sub_absent000/users"
    body = {"add": [{"email": new_email()}]}
    for who in (company.owner.headers, as_service("admin")):
        problem(await service.send("PATCH", path, who, body), 404, "not_found")
    unlinked = as_user("without a customer")
    problem(await service.send("PATCH", path, unlinked, body), 404, "not_found")
    problem(await service.send("PATCH", path, None, body), 401, "unauthenticated")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity, gzip", "GZIP"])
async def test_compressed_bodies_are_refused_unread(service: Service, company: Company, coding: str) -> None:
    """What a few bytes unfold to is nobody's guess."""
    bomb = gzip.compress(b" " * 10_000_000)
    response = await service.client.patch(
        f"{company.path}/users",
        content=bomb,
        headers={**company.owner.headers, "Content-Type": "application/json", "Content-Encoding": coding},
    )
    problem(response, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/subscriptions/sub_x", "GET, PATCH"),
        ("OPTIONS", "/v1/shared-subscriptions/sub_x/transfer", "GET, POST"),
        ("PUT", "/v1/customers/me/payment-methods", "GET, POST"),
        ("POST", "/healthz", "GET"),
        ("GET", "/webhooks/stripe", "POST"),
    ],
)
async def test_a_405_names_every_method_of_the_path(
    service: Service, method: str, path: str, allowed: str
) -> None:
    response = await service.send(method, path, None)
    problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == allowed
