"""The tokens of identity providers, as docs/how-to/configure-sign-in.md shows them, signed by keys of a key set."""

import json
import re
import shlex
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from app.errors import Unauthenticated
from app.identity.authenticator import Authenticator
from app.identity.principals import EndUser
from app.identity.refusals import TokenRejected
from testkit.databases import CHECKOUT
from testkit.issuing import EDDSA, ES256, RS256, Signer, settings
from testkit.key_server import KeyServer, key_server
from testkit.pages import BLOCK, text_of

pytestmark = pytest.mark.anyio

PAGE = CHECKOUT / "docs" / "how-to" / "configure-sign-in.md"
ANN = "ann@acme.example"
ENCRYPTION = Signer("RS256", rsa.generate_private_key(65537, 2048))


@dataclass(frozen=True)
class Provider:
    """One section of the page: the variables that it sets, and the claims of a token."""

    variables: dict[str, str]
    claims: dict[str, Any]


def providers() -> dict[str, Provider]:
    """Return the providers of the page by their headings."""
    found = {}
    for section in re.split(r"^### ", text_of(PAGE), flags=re.MULTILINE)[1:]:
        name, _, text = section.partition("\n")
        blocks = dict(BLOCK.findall(text.partition("\n## ")[0]))
        if "json" in blocks:
            words = [word for word in shlex.split(blocks["sh"], comments=True) if word != "export"]
            found[name] = Provider(dict(word.split("=", 1) for word in words), json.loads(blocks["json"]))
    return found


PROVIDERS = providers()
ALGORITHMS = {"RS256": RS256, "ES256": ES256, "EdDSA": EDDSA}


def fresh(claims: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the claims with the times of a token that was issued now, changed by `changes`."""
    now = int(time.time())
    times = {"iat": now, "nbf": now, "exp": now + 300}
    return claims | {name: at for name, at in times.items() if name in claims} | changes


@pytest.fixture
async def keys() -> AsyncIterator[KeyServer]:
    """A key set with one key of each kind, and one for encryption, as Keycloak publishes it."""
    async with key_server() as server:
        server.keys = [
            ENCRYPTION.jwk("enc", use="enc", alg="RSA-OAEP"),
            *(signer.jwk(name) for name, signer in ALGORITHMS.items()),
        ]
        yield server


async def sign_in(
    keys: KeyServer, variables: dict[str, str], claims: dict[str, Any], algorithm: str = "RS256"
) -> EndUser:
    """Return the person of a token with these claims, under the variables of a provider."""
    authenticator = Authenticator(settings(**variables | {"AUTH_JWKS_URL": keys.url}))
    token = ALGORITHMS[algorithm].token(claims, {"kid": algorithm})
    try:
        found = await authenticator.authenticate(f"Bearer {token}", None)
    finally:
        await authenticator.aclose()
    assert isinstance(found, EndUser)
    return found


async def reason(
    keys: KeyServer, variables: dict[str, str], claims: dict[str, Any], algorithm: str = "RS256"
) -> str:
    """Return the reason for which the token is refused."""
    with pytest.raises(Unauthenticated) as refused:
        await sign_in(keys, variables, claims, algorithm)
    assert isinstance(refused.value.__cause__, TokenRejected)
    return refused.value.__cause__.reason


def test_page_shows_every_provider() -> None:
    """P2: settings and a token's claims stand on the page for each provider."""
    assert set(PROVIDERS) >= {
        "Auth0",
        "Clerk",
        "Supabase",
        "Firebase",
        "Cognito, access token",
        "Cognito, ID token",
        "Keycloak",
        "Keycloak without an audience mapper",
        "better-auth",
    }


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", PROVIDERS)
async def test_token_is_accepted_when_configured_as_the_page_shows(
    keys: KeyServer, name: str, algorithm: str
) -> None:
    """P2: each provider's token signs its person in, whatever the kind of the key."""
    provider = PROVIDERS[name]
    claims = fresh(provider.claims)
    user = await sign_in(keys, provider.variables, claims, algorithm)
    assert (user.issuer, user.subject) == (claims["iss"], claims["sub"])
    # An access token of Cognito names nobody's address.
    expected = (None, False) if name == "Cognito, access token" else (ANN, True)
    assert (user.email, user.email_verified) == expected


@pytest.mark.parametrize("name", PROVIDERS)
async def test_token_is_refused_when_it_is_for_another_application(keys: KeyServer, name: str) -> None:
    """P2: a token of the same provider for another application opens nothing."""
    provider = PROVIDERS[name]
    claim = provider.variables.get("AUTH_AUDIENCE_CLAIM", "aud")
    for others in ("another-application", ["another-application"]):
        assert await reason(keys, provider.variables, fresh(provider.claims, **{claim: others})) == "audience"
    without = {name: value for name, value in provider.claims.items() if name != claim}
    assert await reason(keys, provider.variables, fresh(without)) == "claim_missing"


@pytest.mark.parametrize("name", PROVIDERS)
async def test_address_is_unverified_when_the_claim_is_not_true(keys: KeyServer, name: str) -> None:
    """P2: only the JSON value true verifies an address, or an issuer that verifies every one."""
    provider = PROVIDERS[name]
    claim = provider.variables.get("AUTH_EMAIL_VERIFIED", "email_verified")
    if claim == "always":
        claim = "email_verified"
    for value in (False, "false", "true", 1, [True], {"true": True}, None):
        user = await sign_in(keys, provider.variables, fresh(provider.claims, **{claim: value}))
        always = provider.variables.get("AUTH_EMAIL_VERIFIED") == "always" and value is not False
        assert user.email_verified is (always and user.email is not None), value


AUDIENCE_BY = {"AUTH_AUDIENCE_CLAIM": "azp", "AUTH_AUDIENCE": "https://app.acme.example"}
ISSUER = "https://clerk.acme.example"


def claims_of(**members: Any) -> dict[str, Any]:
    now = int(time.time())
    claims = {"iss": ISSUER, "sub": "user_1", "exp": now + 60, "azp": "https://app.acme.example"}
    return {name: value for name, value in (claims | members).items() if value is not ...}


@pytest.mark.parametrize(
    ("aud", "ignored", "expected"),
    [
        ("https://app.acme.example", "false", "accepted"),
        (["x", "https://app.acme.example"], "false", "accepted"),
        ("account", "false", "audience"),
        (["account"], "false", "audience"),
        ("", "false", "audience"),
        ([], "false", "audience"),
        (None, "false", "audience"),
        (7, "false", "malformed"),
        ("account", "true", "accepted"),
        ([None], "true", "accepted"),
    ],
)
async def test_aud_must_name_us_too_when_another_claim_is_the_audience(
    keys: KeyServer, aud: Any, ignored: str, expected: str
) -> None:
    """P2: a present `aud` is checked beside AUTH_AUDIENCE_CLAIM, unless AUTH_AUD_IGNORED."""
    variables = {"AUTH_ISSUER": ISSUER, "AUTH_AUD_IGNORED": ignored} | AUDIENCE_BY
    claims = claims_of(aud=aud)
    if expected == "accepted":
        assert (await sign_in(keys, variables, claims)).subject == "user_1"
    else:
        assert await reason(keys, variables, claims) == expected


ODD: list[tuple[Any, str]] = [
    (..., "claim_missing"),
    (None, "claim_missing"),
    ("", "audience"),
    (" ", "audience"),
    ([], "audience"),
    ([""], "audience"),
    ("https://app.acme.example\x00", "audience"),
    ("https://app.acme.example ", "audience"),
    ("HTTPS://APP.ACME.EXAMPLE", "audience"),
    (["https://app.acme.example", 7], "malformed"),
    (["https://app.acme.example", None], "malformed"),
    ([["https://app.acme.example"]], "malformed"),
    ([{"https://app.acme.example": True}], "malformed"),
    ({"https://app.acme.example": True}, "malformed"),
    (True, "malformed"),
    (0, "malformed"),
    ("x" * 5000, "audience"),
    (["x"] * 900, "audience"),
    ("\ud83d\ude00", "audience"),
]


@pytest.mark.parametrize(("value", "expected"), ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("claim", ["azp", "aud", "app.clients", "https://acme.example/app"])
async def test_odd_audience_is_refused_with_a_reason(
    keys: KeyServer, claim: str, value: Any, expected: str
) -> None:
    """P2: lists with other things than text, nested, empty, huge and NUL are refused by name."""
    variables = {"AUTH_ISSUER": ISSUER} | AUDIENCE_BY | {"AUTH_AUDIENCE_CLAIM": claim}
    claims = claims_of(azp=...)
    if "//" not in claim and "." in claim:
        claims["app"] = {} if value is ... else {"clients": value}
    elif value is not ...:
        claims[claim] = value
    assert await reason(keys, variables, claims) == expected


async def test_literal_claim_is_read_before_a_path(keys: KeyServer) -> None:
    """P2: `a.b` is the claim of that name if there is one, otherwise `b` within `a`."""
    variables = {"AUTH_ISSUER": ISSUER} | AUDIENCE_BY
    variables |= {"AUTH_EMAIL_CLAIM": "acme.mail", "AUTH_EMAIL_VERIFIED": "acme.ok"}
    nested = {"acme": {"mail": "nested@acme.example", "ok": True}}
    found = await sign_in(keys, variables, claims_of(**nested))
    assert (found.email, found.email_verified) == ("nested@acme.example", True)
    literal = {"acme.mail": ANN, "acme.ok": False}
    found = await sign_in(keys, variables, claims_of(**nested, **literal))
    assert (found.email, found.email_verified) == (ANN, False)


@pytest.mark.parametrize(
    "value",
    ["", "\x00@acme.example", "a@b\x00.example", ["ann@acme.example"], {"a": 1}, 7, True, "x" * 4000, None],
    ids=repr,
)
async def test_odd_address_is_no_address(keys: KeyServer, value: Any) -> None:
    """P2: an address that is none signs in without one, also where every address is verified."""
    variables = {"AUTH_ISSUER": ISSUER, "AUTH_EMAIL_CLAIM": "mail", "AUTH_EMAIL_VERIFIED": "always"}
    found = await sign_in(keys, variables | AUDIENCE_BY, claims_of(mail=value))
    assert (found.email, found.email_verified) == (None, False)
    parents = variables | AUDIENCE_BY | {"AUTH_EMAIL_CLAIM": "app.mail", "AUTH_EMAIL_VERIFIED": "app.ok"}
    found = await sign_in(keys, parents, claims_of(app=value))
    assert (found.email, found.email_verified) == (None, False)


async def test_reason_names_the_fault(keys: KeyServer) -> None:
    """P2: each reason has a token that is refused for it."""
    variables = {"AUTH_ISSUER": ISSUER} | AUDIENCE_BY
    now = int(time.time())
    assert await reason(keys, variables, claims_of(exp=now - 60)) == "expired"
    assert await reason(keys, variables, claims_of(nbf=now + 600)) == "not_yet_valid"
    assert await reason(keys, variables, claims_of(iss="https://other.example")) == "issuer"
    assert await reason(keys, variables, claims_of(iss=...)) == "claim_missing"
    assert await reason(keys, variables, claims_of(sub=...)) == "claim_missing"
    assert await reason(keys, variables, claims_of(exp=...)) == "claim_missing"
    assert await reason(keys, variables, claims_of(exp="soon")) == "malformed"
    assert await reason(keys, variables, claims_of(sub=7)) == "malformed"
    authenticator = Authenticator(settings(AUTH_JWKS_URL=keys.url, **variables))
    good = RS256.token(claims_of(), {"kid": "RS256"})
    for credential, expected in {
        "a.b": "malformed",
        RS256.token(claims_of(), {"kid": "unknown"}): "unknown_key",
        RS256.token(claims_of(), {"kid": "RS256", "jku": "https://other.example/keys"}): "malformed",
        Signer("HS256", "x" * 32).token(claims_of()): "algorithm",
        good.rpartition(".")[0] + "." + ENCRYPTION.token(claims_of()).rpartition(".")[2]: "signature",
        "csk_unknown": "unknown_service_key",
    }.items():
        with pytest.raises(Unauthenticated) as refused:
            await authenticator.authenticate(f"Bearer {credential}", None)
        assert isinstance(refused.value.__cause__, TokenRejected)
        assert refused.value.__cause__.reason == expected
    await authenticator.aclose()
