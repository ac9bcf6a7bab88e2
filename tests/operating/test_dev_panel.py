"""The application around the API in `coseat dev`: who may use it, and what it answers."""

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from standardwebhooks.webhooks import Webhook
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from app.commands.development_environment import kept_secrets
from app.identity.authenticator import Authenticator
from app.identity.principals import EndUser
from app.main import create_app
from app.operating.dev import ENDPOINT_FILE, RECEIVED_FILE
from app.operating.dev.application import develop
from app.settings import Settings, load_settings
from testkit.databases import CHECKOUT
from testkit.service import AUDIENCE, ISSUER, JWT_SECRET

STRIPE = {"STRIPE_API_KEY": "sk_test_panel", "STRIPE_API_BASE": "http://127.0.0.1:1"}
TOKENS = {"AUTH_JWT_SECRET": JWT_SECRET, "AUTH_ISSUER": ISSUER, "AUTH_AUDIENCE": AUDIENCE}
SETTINGS = load_settings({**TOKENS, **STRIPE}, process="token")
HERE = "http://127.0.0.1:8000"


async def service(scope: Scope, receive: Receive, send: Send) -> None:
    """An API that answers every request with its path."""
    await PlainTextResponse(f"API {Request(scope).url.path}", 404)(scope, receive, send)


def client(
    directory: Path, *, settings: Settings = SETTINGS, base: str = HERE, address: str = "127.0.0.1"
) -> httpx.AsyncClient:
    """The process whose state and built portal are in `directory`."""
    app = develop(service, settings, directory=directory, portal=directory / "dist")
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app, client=(address, 40_000)), base_url=base)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client(tmp_path) as made:
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
    tmp_path: Path, path: str, base: str, address: str, headers: dict[str, str]
) -> None:
    async with client(tmp_path, base=base, address=address) as foreign:
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
    unknown = await here.get("/dev/token")
    assert (unknown.status_code, unknown.headers["allow"]) == (405, "POST")
    assert (await here.post("/dev/token", content=b" " * 70_000)).status_code == 413


async def test_panel_says_why_when_tokens_cannot_be_signed(tmp_path: Path) -> None:
    keys = {"AUTH_JWKS_URL": "https://issuer.example/keys", "AUTH_ISSUER": ISSUER, "AUTH_AUDIENCE": AUDIENCE}
    async with client(tmp_path, settings=load_settings({**keys, **STRIPE}, process="openapi")) as here:
        answer = await here.get("/dev/people")
    assert answer.status_code == 404 and "identity provider" in answer.json()["detail"]


async def test_panel_says_so_when_the_stand_in_does_not_answer(here: httpx.AsyncClient) -> None:
    answer = await here.get("/dev/clock")
    assert answer.status_code == 503 and "stand-in" in answer.json()["detail"]


SECRET = "whsec_" + base64.b64encode(b"only for tests of the panel").decode()


def signed(event: dict[str, object], *, secret: str = SECRET) -> tuple[bytes, dict[str, str]]:
    body, now = json.dumps(event), datetime.now(UTC)
    return body.encode(), {
        "webhook-id": str(event["id"]),
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(str(event["id"]), now, body),
    }


def invitation(number: int) -> dict[str, object]:
    data = {"email": "kim@example.com", "token": f"inv_{number}", "role": "user", "invitation_id": "inv_1"}
    return {"id": f"evt_{number}", "type": "invitation.created", "subscription_id": "sub_1", "data": data}


async def test_what_was_received_is_read_when_a_process_ended_as_it_wrote(tmp_path: Path) -> None:
    """A torn line ended `coseat dev` at every start."""
    whole = {**invitation(1), "received_at": "2026-01-01T00:00:00.000+00:00"}
    received = tmp_path / RECEIVED_FILE
    received.write_text(json.dumps(whole) + '\n{"id": "evt_2", "ty')
    (tmp_path / ENDPOINT_FILE).write_text('{"id": "we_1", "sec')
    async with client(tmp_path) as here:
        assert [mail["event_id"] for mail in (await here.get("/dev/mailbox")).json()["data"]] == ["evt_1"]
        body, headers = signed(invitation(3))
        assert (await here.post("/dev/webhook", content=body, headers=headers)).status_code == 401
    assert received.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("options", [(), ("--token", "owner@example.com")])
def test_no_token_is_signed_when_the_environment_has_a_live_key(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """The secret beside a live key signs what production accepts."""
    (tmp_path / "dev").mkdir()
    kept_secrets(tmp_path / "dev" / "secrets.json")
    names = {"AUTH_JWT_SECRET": "s" * 48, "AUTH_ISSUER": ISSUER, "AUTH_AUDIENCE": AUDIENCE}
    command = [sys.executable, "-m", "app", "dev", "--state", str(tmp_path), *options]
    ran = subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], "STRIPE_API_KEY": "sk_live_" + "x" * 24, **names},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 2 and "STRIPE_API_KEY" in ran.stderr and "live" in ran.stderr
    assert "eyJ" not in ran.stdout


async def test_mailbox_shows_the_link_when_the_event_is_signed(tmp_path: Path) -> None:
    (tmp_path / ENDPOINT_FILE).write_text(json.dumps({"id": "we_1", "secret": SECRET}))
    async with client(tmp_path) as here:
        for event in (invitation(1), invitation(2), invitation(1)):
            body, headers = signed(event)
            assert (await here.post("/dev/webhook", content=body, headers=headers)).status_code == 204
        forged, headers = signed(invitation(3), secret="whsec_" + base64.b64encode(b"another").decode())
        assert (await here.post("/dev/webhook", content=forged, headers=headers)).status_code == 401
        assert (await here.post("/dev/webhook", content=b"{}")).status_code == 401
        body, headers = signed({"id": "evt_9", "type": "endpoint.test", "data": {}})
        assert (await here.post("/dev/webhook", content=body, headers=headers)).status_code == 204
    async with client(tmp_path) as restarted:
        mails = (await restarted.get("/dev/mailbox")).json()["data"]
        assert [(mail["to"], mail["link"]) for mail in mails] == [
            ("kim@example.com", "/#/invitations/inv_2"),
            ("kim@example.com", "/#/invitations/inv_1"),
        ]
        assert [event["id"] for event in (await restarted.get("/dev/events?limit=1")).json()["data"]] == [
            "evt_2"
        ]
        assert (await restarted.get("/dev/events?limit=x")).status_code == 422


async def test_requests_are_shown_without_their_query_when_the_api_has_answered(
    here: httpx.AsyncClient,
) -> None:
    await here.get("/v1/customers?search=anna%40example.com")
    await here.get("/dev/people")
    [shown] = (await here.get("/dev/requests")).json()["data"]
    assert (shown["method"], shown["path"], shown["status"]) == ("GET", "/v1/customers", 404)


async def test_page_says_what_is_here_when_the_portal_is_not_built(here: httpx.AsyncClient) -> None:
    page = await here.get("/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assert "make portal" in page.text and 'href="/docs"' in page.text
    for file in re.findall(r'(?:src|href)="(/dev/panel/[^"]+)"', page.text):
        assert (await here.get(file)).status_code == 200, file
    assert (await here.get("/dev")).text == page.text


async def test_portal_is_served_when_it_is_built(tmp_path: Path) -> None:
    (tmp_path / "dist" / "assets").mkdir(parents=True)
    (tmp_path / "dist" / "index.html").write_text("<!doctype html><title>Portal</title>")
    (tmp_path / "dist" / "assets" / "index-1a2b.js").write_text("export {};" * 200)
    (tmp_path / "secrets.json").write_text("secret")
    async with client(tmp_path) as here:
        page = await here.get("/")
        assert "Portal" in page.text and page.headers["cache-control"] == "no-cache"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        script = await here.get("/assets/index-1a2b.js", headers={"Accept-Encoding": "gzip"})
        assert script.headers["content-encoding"] == "gzip" and "immutable" in script.headers["cache-control"]
        for path in (
            "/../secrets.json",
            "/%2e%2e/secrets.json",
            "/assets/",
            "/nothing",
            "/%00",
            "//etc/passwd",
        ):
            assert (await here.get(path)).text.startswith("API "), path
        assert (await here.post("/")).text == "API /"
        assert "make portal" not in (await here.get("/")).text


async def test_serve_answers_404_at_the_top_when_the_portal_is_built() -> None:
    """The portal belongs to `coseat dev`. The API of `coseat serve` knows no file of it."""
    built = CHECKOUT / "portal" / "dist"
    app = create_app(
        load_settings(
            {**TOKENS, **STRIPE, "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}, process="openapi"
        )
    )
    transport = httpx.ASGITransport(app=app)
    paths = [
        "/",
        "/index.html",
        *(f"/{path.relative_to(built)}" for path in built.rglob("*") if path.is_file()),
    ]
    async with httpx.AsyncClient(transport=transport, base_url=HERE) as serve:
        for path in (*paths, "/dev", "/dev/people", "/dev/panel/panel.js"):
            assert (await serve.get(path)).status_code == 404, path


async def test_api_answers_when_a_path_is_not_of_the_panel(here: httpx.AsyncClient) -> None:
    for path in ("/v1/products", "/development", "/healthz"):
        assert (await here.get(path)).text == f"API {path}"
