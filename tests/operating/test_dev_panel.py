"""The application around the API in `coseat dev`: who may use it, and what it answers."""

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from app.identity.authenticator import Authenticator
from app.identity.principals import EndUser
from app.operating.dev.application import develop
from app.settings import load_settings
from testkit.service import AUDIENCE, ISSUER, JWT_SECRET

SETTINGS = load_settings(
    {"AUTH_JWT_SECRET": JWT_SECRET, "AUTH_ISSUER": ISSUER, "AUTH_AUDIENCE": AUDIENCE}, process="token"
)
HERE = "http://127.0.0.1:8000"


async def service(scope: Scope, receive: Receive, send: Send) -> None:
    """An API that answers every request with its path."""
    await PlainTextResponse(f"API {Request(scope).url.path}", 404)(scope, receive, send)


def client(*, base: str = HERE, address: str = "127.0.0.1") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=develop(service, SETTINGS), client=(address, 40_000))
    return httpx.AsyncClient(transport=transport, base_url=base)


@pytest.fixture
async def here() -> AsyncIterator[httpx.AsyncClient]:
    async with client() as made:
        yield made


async def subject_of(token: str) -> tuple[str, str | None]:
    authenticator = Authenticator(SETTINGS)
    try:
        found = await authenticator.authenticate(f"Bearer {token}")
    finally:
        await authenticator.aclose()
    assert isinstance(found, EndUser)
    return found.subject, found.email


async def test_people_have_tokens_that_the_api_accepts_when_a_page_from_here_asks(
    here: httpx.AsyncClient,
) -> None:
    answer = await here.get("/dev/people", headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"
    people = answer.json()["data"]
    assert [person["subject"] for person in people] == [
        "demo-owner",
        "demo-manager",
        "demo-user",
        "demo-stranger",
    ]
    for person in people:
        assert await subject_of(person["token"]) == (person["subject"], person["email"])


async def test_token_names_the_same_person_again_when_somebody_new_comes_back(
    here: httpx.AsyncClient,
) -> None:
    """O8: a new person gets a token."""
    first, again = [
        (await here.post("/dev/token", json={"email": email}, headers={"Origin": HERE})).json()
        for email in ("anna@example.com", "Anna@example.com")
    ]
    assert first["subject"] == again["subject"] == (await subject_of(first["token"]))[0]
    known = (await here.post("/dev/token", json={"email": "user@example.com"})).json()
    assert known["subject"] == "demo-user" != first["subject"]


@pytest.mark.parametrize("path", ["/dev/people", "/dev/token", "/dev", "/dev/anything"])
@pytest.mark.parametrize(
    ("base", "address", "headers"),
    [
        ("http://attacker.example:8000", "127.0.0.1", {}),
        ("http://127.0.0.1.attacker.example", "127.0.0.1", {}),
        ("http://localhost.:8000", "127.0.0.1", {}),
        ("http://10.0.0.7:8000", "127.0.0.1", {}),
        (HERE, "10.0.0.9", {}),
        (HERE, "127.0.0.1", {"Origin": "https://attacker.example"}),
        (HERE, "127.0.0.1", {"Origin": "http://localhost:8000"}),
        (HERE, "127.0.0.1", {"Origin": "http://127.0.0.1:3000"}),
        (HERE, "127.0.0.1", {"Origin": "https://127.0.0.1:8000"}),
        (HERE, "127.0.0.1", {"Origin": "null"}),
        (HERE, "127.0.0.1", {"Sec-Fetch-Site": "cross-site"}),
        (HERE, "127.0.0.1", {"Sec-Fetch-Site": "same-site"}),
    ],
)
async def test_panel_answers_nothing_when_host_or_origin_are_foreign(
    path: str, base: str, address: str, headers: dict[str, str]
) -> None:
    async with client(base=base, address=address) as foreign:
        answers = [
            await foreign.get(path, headers=headers),
            await foreign.post(path, headers=headers, json={"email": "owner@example.com"}),
            await foreign.options(path, headers={**headers, "Access-Control-Request-Method": "POST"}),
        ]
    for answer in answers:
        assert answer.status_code == 404 and answer.json()["code"] == "not_found"
        assert "token" not in answer.json() and "eyJ" not in answer.text
        assert "access-control-allow-origin" not in answer.headers


async def test_panel_names_the_field_when_a_body_is_wrong(here: httpx.AsyncClient) -> None:
    for body, named in ((b"{}", "/email"), (b'{"email": 3}', "/email"), (b"[", "no JSON object"), (b"", "")):
        answer = await here.post("/dev/token", content=body)
        assert answer.status_code == 422 and named in answer.json()["detail"]
    assert (await here.get("/dev/token")).status_code == 405
    assert (await here.post("/dev/token", content=b" " * 70_000)).status_code == 413


async def test_panel_says_why_when_tokens_cannot_be_signed() -> None:
    provided = load_settings(
        {
            "AUTH_JWKS_URL": "https://issuer.example/keys",
            "AUTH_ISSUER": ISSUER,
            "AUTH_AUDIENCE": AUDIENCE,
        },
        process="openapi",
    )
    transport = httpx.ASGITransport(app=develop(service, provided), client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url=HERE) as here:
        answer = await here.get("/dev/people")
    assert answer.status_code == 404 and "identity provider" in answer.json()["detail"]


async def test_api_answers_when_a_path_is_not_of_the_panel(here: httpx.AsyncClient) -> None:
    for path in ("/v1/products", "/development", "/healthz"):
        assert (await here.get(path)).text == f"API {path}"
