"""The reason of a refused credential: in the record of the request, and in the answer beside a test key only."""

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import structlog
from structlog.testing import capture_logs

from app.identity.authenticator import Authenticator
from app.identity.service_keys import generate_service_key
from app.main import create_app
from testkit.issuing import SECRET, handmade, settings, well_formed
from testkit.problems import problem

pytestmark = pytest.mark.anyio

CANARY = "canaryQ7wZ"
HEADER = {"alg": "HS256", "typ": "JWT", "kid": CANARY}
NOW = int(time.time())
KEY, KEY_SHA256 = generate_service_key()


def refused(**claims: Any) -> str:
    """Return a token with the canary in everything that a log must not hold."""
    return handmade(HEADER, well_formed(**{"sub": CANARY, "email": f"{CANARY}@acme.example"} | claims))


CREDENTIALS = {
    "malformed": f"{CANARY}.{CANARY}",
    "algorithm": handmade(HEADER | {"alg": "RS256"}, well_formed(sub=CANARY)),
    "signature": handmade(HEADER, well_formed(sub=CANARY), secret=SECRET + "x"),
    "expired": refused(exp=NOW - 60),
    "not_yet_valid": refused(nbf=NOW + 86_400),
    "issuer": refused(iss=f"https://{CANARY}.example"),
    "audience": refused(aud=[CANARY, "another"]),
    "claim_missing": refused(aud=None),
    "unknown_service_key": f"csk_{CANARY}",
}


@pytest.fixture(autouse=True)
def info() -> Iterator[None]:
    """Let records of requests through, which other tests leave out."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    yield
    structlog.configure(**before)


async def answered(credential: str, stripe_key: str) -> tuple[httpx.Response, list[Any]]:
    """Return the answer of a service that only authenticates, and what it logged."""
    configured = settings(
        STRIPE_API_KEY=stripe_key,
        SERVICE_KEYS=json.dumps([{"name": "shop", "sha256": KEY_SHA256, "scopes": ["read"]}]),
    )
    app = create_app(configured)
    app.state.authenticator, app.state.context = Authenticator(configured), None
    transport = httpx.ASGITransport(app)
    with capture_logs() as logged:
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            response = await client.get("/v1/customers/me", headers={"Authorization": f"Bearer {credential}"})
    return response, logged


@pytest.mark.parametrize("reason", CREDENTIALS)
@pytest.mark.parametrize("key", ["sk_test_1", "sk_live_1"])
async def test_reason_is_logged_and_shown_only_when_the_key_is_a_test_key(key: str, reason: str) -> None:
    """P2: the reason is in the log with any key, in the answer beside a test key, and says nothing else."""
    response, logged = await answered(CREDENTIALS[reason], key)
    shown = problem(response, 401, "unauthenticated")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert shown.get("reason") == (reason if key == "sk_test_1" else None)
    [record] = [entry for entry in logged if entry["event"] == "request"]
    assert (record["reason"], record["status"]) == (reason, 401)
    assert record["request_id"] == shown["request_id"]
    assert CANARY not in json.dumps(logged) + response.text
    assert CREDENTIALS[reason] not in json.dumps(logged) + response.text


async def test_refusals_look_alike_when_the_key_is_live() -> None:
    """P2: beside a live key a caller learns nothing from what is refused."""
    seen = []
    for credential in CREDENTIALS.values():
        response, _ = await answered(credential, "sk_live_1")
        seen.append({name: value for name, value in response.json().items() if name != "request_id"})
    assert seen == [seen[0]] * len(seen)


@pytest.mark.parametrize("key", ["sk_test_1", "sk_live_1"])
async def test_claim_at_fault_is_logged_by_its_name(key: str) -> None:
    """P2: the log names the claim, so that an operator knows which setting to check."""
    for claims, claim in (({"aud": None}, "aud"), ({"iss": "x"}, "iss"), ({"sub": 7}, "sub")):
        _, logged = await answered(handmade(HEADER, well_formed(**claims)), key)
        [record] = [entry for entry in logged if entry["event"] == "request"]
        assert record["claim"] == claim


async def test_request_without_credential_has_no_reason() -> None:
    """P2: a missing credential is not a refused one."""
    configured = settings(STRIPE_API_KEY="sk_test_1")
    app = create_app(configured)
    app.state.authenticator, app.state.context = Authenticator(configured), None
    with capture_logs() as logged:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            response = await client.get("/v1/customers/me", headers={"X-Acting-Customer": "cus_1"})
    assert "reason" not in problem(response, 401, "unauthenticated")
    assert "reason" not in next(entry for entry in logged if entry["event"] == "request")
