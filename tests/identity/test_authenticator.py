"""Headers to principals: service keys, acting customers and everything malformed."""

import hashlib
import json
import re

import pytest

from app.errors import InvalidRequest, Unauthenticated
from app.identity.authenticator import Authenticator
from app.identity.development_tokens import sign_development_token
from app.identity.principals import Anonymous, EndUser, ServiceKey
from app.identity.service_keys import ServiceKeyRing, generate_service_key
from app.settings import SettingsError, load_settings
from testkit.issuing import HS256, RS256, PrivateKey, public_pem, settings

pytestmark = pytest.mark.anyio

KEY, KEY_SHA256 = generate_service_key()
NEXT_KEY, NEXT_KEY_SHA256 = generate_service_key()
SERVICE_KEYS = json.dumps(
    [
        {"name": "backend", "sha256": KEY_SHA256, "scopes": ["read", "write"]},
        {"name": "backend-next", "sha256": NEXT_KEY_SHA256.upper(), "scopes": ["admin"]},
    ]
)


@pytest.fixture
def authenticator() -> Authenticator:
    return Authenticator(settings(SERVICE_KEYS=SERVICE_KEYS))


async def test_no_credential_is_anonymous(authenticator: Authenticator) -> None:
    assert await authenticator.authenticate(None, None) == Anonymous()
    assert Anonymous().key == "anonymous"


async def test_service_key(authenticator: Authenticator) -> None:
    principal = await authenticator.authenticate(f"Bearer {KEY}", None)
    assert principal == ServiceKey("backend", frozenset({"read", "write"}))
    assert principal.key == "service:backend"


async def test_service_key_acting_for_a_customer(authenticator: Authenticator) -> None:
    principal = await authenticator.authenticate(f"bearer {NEXT_KEY}", "cus_Ann1")
    assert principal == ServiceKey("backend-next", frozenset({"admin"}), "cus_Ann1")  # type: ignore[arg-type]
    assert principal.key == "service:backend-next:cus_Ann1"


def test_generated_keys_differ_and_are_configured_by_their_hash() -> None:
    keys = {generate_service_key()[0] for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"csk_[A-Za-z0-9_-]{43}", key) for key in keys)
    assert hashlib.sha256(KEY.encode()).hexdigest() == KEY_SHA256


def test_ring_finds_each_key_and_nothing_else() -> None:
    ring = ServiceKeyRing(settings(SERVICE_KEYS=SERVICE_KEYS).service_keys)
    assert [key.name for key in (ring.find(KEY), ring.find(NEXT_KEY)) if key] == ["backend", "backend-next"]
    for wrong in (
        "",
        "csk_",
        KEY[:-1],
        KEY + "x",
        KEY.lower(),
        KEY_SHA256,
        "csk_" + KEY_SHA256,
        "csk_é",
        KEY * 9,
    ):
        assert ring.find(wrong) is None
    assert ServiceKeyRing([]).find(KEY) is None


TOKEN = HS256.token()


BAD_AUTHORIZATIONS = [
    "",
    " ",
    "Bearer",
    "Bearer ",
    "Bearer  ",
    "Bearer\t" + TOKEN,
    "Bearer:" + TOKEN,
    "Bearer " + TOKEN + " " + TOKEN,
    "Bearer " + TOKEN + ", Basic YTpi",
    "Bearer " + TOKEN + "\n",
    "Bearer " + TOKEN + "\x00",
    "Bearer " + TOKEN + "\u00a0",
    'Bearer "' + TOKEN + '"',
    "Bearer token=" + TOKEN,
    "Basic " + TOKEN,
    "Token " + TOKEN,
    "Bearer\u017f " + TOKEN,
    TOKEN,
    KEY,
    "Bearer " + KEY[:-1],
    "Bearer " + KEY + "x",
    "Bearer csk_",
    "Bearer csk_" + KEY_SHA256,
    "Bearer " + KEY_SHA256,
    "Bearer csk_" + "x" * 5000,
    "Bearer CSK_" + KEY[4:],
    "Bearer sk_test_123",
]


@pytest.mark.parametrize("authorization", BAD_AUTHORIZATIONS, ids=range(len(BAD_AUTHORIZATIONS)))
async def test_malformed_or_unknown_credential(authenticator: Authenticator, authorization: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await authenticator.authenticate(authorization, None)
    assert refused.value.detail == (
        "The bearer credential is not valid here, or has expired. Send a new token or a service key."
    )


@pytest.mark.parametrize(
    "customer",
    ["", "cus_1\n", "a\x00b", "a\x7fb", "a\x85b", "x" * 256],
)
async def test_acting_customer_must_be_a_customer_id(authenticator: Authenticator, customer: str) -> None:
    with pytest.raises(InvalidRequest):
        await authenticator.authenticate(f"Bearer {KEY}", customer)


async def test_acting_customer_is_for_service_keys_alone(authenticator: Authenticator) -> None:
    with pytest.raises(InvalidRequest):
        await authenticator.authenticate(f"Bearer {TOKEN}", "cus_1")
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(None, "cus_1")
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate("Bearer bad", "cus_1")


async def test_without_configuration_nobody_is_let_in() -> None:
    authenticator = Authenticator(load_settings({}, process="test"))
    for credential in (TOKEN, KEY):
        with pytest.raises(Unauthenticated):
            await authenticator.authenticate(f"Bearer {credential}", None)
    await authenticator.aclose()


async def test_development_token() -> None:
    chosen = settings(AUTH_CUSTOMER_CLAIM="app_metadata.billing.customer")
    token = sign_development_token(chosen, subject="ann", email="Ann@example.com", customer_id="cus_1")
    principal = await Authenticator(chosen).authenticate(f"Bearer {token}", None)
    assert isinstance(principal, EndUser)
    assert (principal.subject, principal.email, principal.email_verified) == ("ann", "ann@example.com", True)
    assert principal.customer_claim == "cus_1"


def test_development_token_is_not_signed_beside_a_live_key_or_without_a_secret() -> None:
    with pytest.raises(SettingsError, match="STRIPE_API_KEY"):
        sign_development_token(settings(STRIPE_API_KEY="sk_live_1"), subject="ann")
    key = RS256.key
    assert isinstance(key, PrivateKey)
    with pytest.raises(SettingsError, match="AUTH_JWT_SECRET"):
        sign_development_token(settings(AUTH_JWT_PUBLIC_KEY=public_pem(key)), subject="ann")
