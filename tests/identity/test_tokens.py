"""Tokens that prove who somebody is, and the many that prove nothing."""

import itertools
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from app.errors import Unauthenticated
from app.identity import tokens
from app.identity.authenticator import Authenticator
from app.identity.keys import KeySource, UnusableKey, VerificationKey, key_from_jwk, static_key
from app.identity.principals import EndUser
from app.identity.refusals import TokenRejected
from app.identity.tokens import TokenVerifier
from app.settings import JwtSettings
from testkit.issuing import (
    AUDIENCE,
    EDDSA,
    ES256,
    ES384,
    HS256,
    ISSUER,
    RS256,
    SECRET,
    Signer,
    b64,
    handmade,
    public_pem,
    settings,
    well_formed,
)

pytestmark = pytest.mark.anyio

NOW = int(time.time())
HEADER = {"alg": "HS256", "typ": "JWT"}
SIGNERS = {"hs": HS256, "rs": RS256, "es": ES256, "es384": ES384, "ed": EDDSA}


def authenticator_for(family: str, **variables: str) -> Authenticator:
    if family == "hs":
        return Authenticator(settings(**variables))
    key = SIGNERS[family].key
    assert not isinstance(key, str)
    return Authenticator(settings(AUTH_JWT_PUBLIC_KEY=public_pem(key), **variables))


AUTHENTICATORS = {family: authenticator_for(family) for family in SIGNERS}


async def end_user(token: str, family: str = "hs", **variables: str) -> EndUser:
    authenticator = authenticator_for(family, **variables) if variables else AUTHENTICATORS[family]
    principal = await authenticator.authenticate(f"Bearer {token}", None)
    assert isinstance(principal, EndUser)
    return principal


def flipped(token: str, part: int) -> str:
    """The token with one bit of the middle of one of its three parts changed."""
    parts = token.split(".")
    middle = len(parts[part]) // 2
    replacement = "A" if parts[part][middle] != "A" else "B"
    parts[part] = parts[part][:middle] + replacement + parts[part][middle + 1 :]
    return ".".join(parts)


def unsigned_cases() -> dict[str, str]:
    spellings = ["none", "None", "NONE", "nOnE", "none ", "", "null", "HS256 ", "hs256", "plain"]
    cases = {}
    for spelling, signature in itertools.product(spellings, ("", b64(b"x" * 32))):
        header, payload = (b64(json.dumps(part).encode()) for part in ({"alg": spelling}, well_formed()))
        cases[f"alg-{spelling!r}-{'signed' if signature else 'unsigned'}"] = f"{header}.{payload}.{signature}"
    for value in (None, 0, True, ["HS256"], {"HS256": 1}):
        cases[f"alg-{value!r}"] = handmade({"alg": value}, well_formed())
    cases["alg-absent"] = handmade({"typ": "JWT"}, well_formed())
    return cases


def header_cases() -> dict[str, str]:
    refused: dict[str, Any] = {
        "jku": "https://attacker.example/keys",
        "x5u": "https://attacker.example/chain",
        "jwk": {"kty": "oct", "k": b64(SECRET.encode())},
        "x5c": ["MIIB"],
        "crit": ["exp"],
        "zip": "DEF",
        "enc": "A128GCM",
    }
    cases = {
        f"header-{name}": handmade(HEADER | {name: value}, well_formed()) for name, value in refused.items()
    }
    several: dict[str, list[Any]] = {
        "crit": [[], ["b64"], "exp", None, [1]],
        "typ": ["JWE", "dpop+jwt", "logout+jwt", "at", "", None, 1, ["JWT"], "secevent+jwt"],
        "kid": [1, True, ["k"], {"a": 1}],
    }
    for name, values in several.items():
        for value in values:
            cases[f"{name}-{value!r}"] = handmade(HEADER | {name: value}, well_formed())
    cases["b64-true"] = handmade(HEADER | {"b64": True}, well_formed())
    cases["b64-false-detached"] = handmade(HEADER | {"b64": False, "crit": ["b64"]}, b"")
    for name, raw in {
        "list": b'["HS256"]',
        "string": b'"HS256"',
        "null": b"null",
        "empty": b"",
        "not-json": b"{alg:HS256}",
        "single-quotes": b"{'alg':'HS256'}",
        "not-utf8": b'{"alg":"HS256","x":"\xff"}',
        "deep": b'{"alg":"HS256","x":' + b"[" * 2000 + b"]" * 2000 + b"}",
        "nan": b'{"alg":"HS256","x":NaN}',
        "byte-order-mark": b'\xef\xbb\xbf{"alg":"HS256"}',
    }.items():
        cases[f"header-is-{name}"] = handmade(raw, well_formed())
    return cases


def claim_cases() -> dict[str, str]:
    cases = {
        f"missing-{name}": HS256.token(well_formed(without=name)) for name in ("exp", "aud", "iss", "sub")
    }
    wrong: dict[str, list[Any]] = {
        "exp": [NOW - 31, NOW - 3600, 0, -1, "9999999999", None, True, [NOW + 600], {"at": 1}, ""],
        "nbf": [NOW + 86_400, NOW + 10**9, "0", None, True, [], "never"],
        "iat": [NOW + 86_400, NOW + 10**9, "0", None, False, {}],
        "iss": [
            "https://issuer.example",
            "https://issuer.example//",
            "https://ISSUER.example/",
            "http://issuer.example/",
            "https://issuer.example.attacker.example/",
            "",
            None,
            1,
            [ISSUER],
            {ISSUER: 1},
        ],
        "aud": [
            "other",
            "coseat-api ",
            "COSEAT-API",
            "coseat",
            "",
            None,
            1,
            [],
            ["other", "another"],
            [[AUDIENCE]],
            [AUDIENCE, None],
            {AUDIENCE: 1},
            "coseat-api,other",
        ],
        "sub": [
            "",
            " ",
            " user-1",
            "user-1\n",
            "a\x00b",
            "a\u200bb",
            "x" * 256,
            7,
            0,
            None,
            True,
            ["user-1"],
            {"id": "user-1"},
        ],
        "stripe_customer_id": [
            "cus_1\x00",
            "cus_1\n",
            "a\x7fb",
            "a\x85b",
            "x" * 256,
            5,
            True,
            ["cus_1"],
            {"id": "cus_1"},
        ],
    }
    for name, values in wrong.items():
        for index, value in enumerate(values):
            cases[f"{name}-{index}-{type(value).__name__}"] = handmade(HEADER, well_formed(**{name: value}))
    for name, text in {"exp-infinite": b"1e999", "exp-nan": b"NaN", "exp-huge": b"9" * 5000}.items():
        payload = json.dumps(well_formed(exp=-7)).encode().replace(b"-7", text)
        cases[name] = handmade(HEADER, payload)
    for name, raw in {
        "list": b"[]",
        "null": b"null",
        "string": b'"user-1"',
        "number": b"1",
        "empty": b"",
        "not-json": b"{sub:1}",
        "not-utf8": b'{"sub":"\xff"}',
        "surrogate": json.dumps(well_formed(sub="x")).encode().replace(b'"x"', b'"\\ud800"'),
        "deep": b"[" * 2500 + b"]" * 2500,
        "two-documents": b"{}{}",
    }.items():
        cases[f"payload-is-{name}"] = handmade(HEADER, raw)
    return cases


def shape_cases() -> dict[str, str]:
    good = HS256.token()
    header, payload, signature = good.split(".")
    hs512 = Signer("HS512", SECRET).token().split(".")[2]
    cases = {
        "two-parts": f"{header}.{payload}",
        "one-part": header,
        "four-parts": f"{good}.{signature}",
        "five-parts": f"{good}..",
        "dots": "..",
        "no-signature": f"{header}.{payload}.",
        "no-payload": f"{header}..{signature}",
        "no-header": f".{payload}.{signature}",
        "padded": f"{good}=",
        "padded-header": f"{header}=.{payload}.{signature}",
        "standard-alphabet": f"{header}.{payload}.+/{signature[2:]}",
        "truncated-by-one": good[:-1],
        "truncated-by-half": good[: len(good) // 2],
        "longer-by-one": good + "A",
        "non-ascii": good + "é",
        "non-ascii-digit": good.replace(".", "\u0660.", 1),
        "full-width-dots": good.replace(".", "\uff0e"),
        "huge": handmade(HEADER, well_formed(padding="x" * 8192)),
        "very-huge": "A" * 1_000_000,
        "nested": handmade(HEADER | {"cty": "JWT"}, good.encode()),
        "json-serialisation": json.dumps({"protected": header, "payload": payload, "signature": signature}),
        "inner-space": f"{header}. {payload}.{signature}",
        "tab": f"{header}\t.{payload}.{signature}",
        "swapped-payload": f"{header}.{b64(json.dumps(well_formed(sub='admin')).encode())}.{signature}",
        "other-secret": handmade(HEADER, well_formed(), secret=SECRET + "x"),
        "shorter-secret": handmade(HEADER, well_formed(), secret=SECRET[:-1]),
        "empty-secret": handmade(HEADER, well_formed(), secret=""),
        "signature-of-hs512-named-hs256": f"{header}.{payload}.{hs512}",
    }
    for part, name in enumerate(("header", "payload", "signature")):
        cases[f"tampered-{name}"] = flipped(good, part)
    # The last character of a 32-byte signature carries two unused bits: another spelling of the same bytes.
    spelling = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    cases["second-spelling-of-signature"] = good[:-1] + spelling[spelling.index(good[-1]) ^ 1]
    return cases


def family_cases() -> dict[str, tuple[str, str]]:
    """Tokens of one family before a verifier of another: name -> (verifier's family, token)."""
    cases = {}
    for (mine, _), (theirs, signer) in itertools.product(SIGNERS.items(), SIGNERS.items()):
        if mine != theirs:
            cases[f"{theirs}-before-{mine}"] = (mine, signer.token())
    for family in ("rs", "es", "es384", "ed"):
        key = SIGNERS[family].key
        assert not isinstance(key, str)
        pem = public_pem(key)
        for name, secret in {
            "pem": pem,
            "pem-stripped": pem.strip(),
            "pem-body": "".join(pem.split("\n")[1:-2]),
        }.items():
            cases[f"{family}-public-key-as-secret-{name}"] = (
                family,
                handmade(HEADER, well_formed(), secret=secret),
            )
        good = SIGNERS[family].token()
        _, payload, signature = good.split(".")
        for part in range(3):
            cases[f"{family}-tampered-{part}"] = (family, flipped(good, part))
        cases[f"{family}-truncated-signature"] = (family, good[:-8])
        cases[f"{family}-empty-signature"] = (family, good.rpartition(".")[0] + ".")
        cases[f"{family}-relabelled"] = (family, f"{b64(json.dumps(HEADER).encode())}.{payload}.{signature}")
        unsigned = b64(json.dumps({"alg": "none"}).encode())
        cases[f"{family}-none"] = (family, f"{unsigned}.{payload}.")
        cases[f"{family}-expired"] = (family, SIGNERS[family].token(well_formed(exp=NOW - 60)))
        cases[f"{family}-other-audience"] = (family, SIGNERS[family].token(well_formed(aud="other")))
    # CVE-2022-21449: a signature of zeros.
    zeros = ES256.token().rpartition(".")[0] + "." + b64(bytes(64))
    cases["es-zero-signature"] = ("es", zeros)
    return cases


BAD: dict[str, tuple[str, str]] = {
    name: ("hs", token)
    for group in (unsigned_cases(), header_cases(), claim_cases(), shape_cases())
    for name, token in group.items()
} | family_cases()


def test_table_is_large_enough() -> None:
    assert len(BAD) >= 150


@pytest.mark.parametrize(("family", "token"), BAD.values(), ids=BAD.keys())
async def test_bad_token_is_refused_without_a_hint(family: str, token: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await AUTHENTICATORS[family].authenticate(f"Bearer {token}", None)
    assert refused.value.status == 401
    assert refused.value.code == "unauthenticated"
    assert refused.value.detail == (
        "The bearer credential is not valid here, or has expired. Send a new token or a service key."
    )
    assert refused.value.members == {}
    assert isinstance(refused.value.__cause__, TokenRejected)


@pytest.mark.parametrize("family", SIGNERS)
async def test_good_token_of_each_family(family: str) -> None:
    user = await end_user(SIGNERS[family].token(), family)
    assert user == EndUser(issuer=ISSUER, subject="user-1")


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_hmac_family(algorithm: str) -> None:
    assert (await end_user(Signer(algorithm, SECRET).token())).subject == "user-1"


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
async def test_rsa_family(algorithm: str) -> None:
    assert (await end_user(Signer(algorithm, RS256.key).token(), "rs")).subject == "user-1"


async def test_hash_longer_than_the_secret_is_refused() -> None:
    secret = "x" * 32
    assert await end_user(Signer("HS256", secret).token(), AUTH_JWT_SECRET=secret)
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = Signer("HS512", secret).token()
    with pytest.raises(Unauthenticated):
        await end_user(token, AUTH_JWT_SECRET=secret)


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": [AUDIENCE]},
        {"aud": [AUDIENCE, "other"]},
        {"aud": ["other", AUDIENCE]},
        {"aud": [AUDIENCE, AUDIENCE]},
        {"exp": NOW + 86_400.5},
        {"nbf": NOW + 20},
        {"iat": NOW + 20},
        {"sub": "x" * 255},
        {"sub": "auth0|5f7c8ec7c33c6c004bbafe82"},
        {"sub": "Jürgen"},
        {"email": 7, "email_verified": "yes"},
        {"stripe_customer_id": None},
        {"stripe_customer_id": ""},
    ],
)
async def test_tokens_at_the_edge_of_the_rules_are_accepted(claims: dict[str, Any]) -> None:
    assert (await end_user(HS256.token(well_formed(**claims)))).customer_claim is None


@pytest.mark.parametrize(
    "header", [{}, {"typ": "jwt"}, {"typ": "at+jwt"}, {"kid": "../../etc/passwd"}, {"x5t": "a"}]
)
async def test_harmless_headers_are_accepted(header: dict[str, Any]) -> None:
    assert (await end_user(handmade({"alg": "HS256"} | header, well_formed()))).subject == "user-1"


@pytest.mark.parametrize(
    ("claims", "email", "verified"),
    [
        ({}, None, False),
        ({"email": "Ann@Example.COM", "email_verified": True}, "ann@example.com", True),
        ({"email": "ann@example.com"}, "ann@example.com", False),
        ({"email": "ann@example.com", "email_verified": "true"}, "ann@example.com", False),
        ({"email": "ann@example.com", "email_verified": 1}, "ann@example.com", False),
        ({"email": "jos\u00e9@example.com", "email_verified": True}, "jos\u00e9@example.com", True),
        ({"email": "Jose\u0301@example.com", "email_verified": True}, None, False),
        ({"email": "", "email_verified": True}, None, False),
        ({"email": "ann", "email_verified": True}, None, False),
        ({"email": "ann@", "email_verified": True}, None, False),
        ({"email": "an n@example.com", "email_verified": True}, None, False),
        ({"email": "ann@example.com\n", "email_verified": True}, None, False),
        ({"email": "a" * 250 + "@example.com", "email_verified": True}, None, False),
        ({"email": ["ann@example.com"], "email_verified": True}, None, False),
    ],
    ids=str,
)
async def test_email(claims: dict[str, Any], email: str | None, verified: bool) -> None:
    user = await end_user(HS256.token(well_formed(**claims)))
    assert (user.email, user.email_verified) == (email, verified)


@pytest.mark.parametrize(
    ("path", "claims", "customer"),
    [
        ("stripe_customer_id", {"stripe_customer_id": "cus_1"}, "cus_1"),
        ("stripe_customer_id", {"user_metadata": {"stripe_customer_id": "cus_1"}}, None),
        ("app_metadata.billing.customer", {"app_metadata": {"billing": {"customer": "cus_1"}}}, "cus_1"),
        ("app_metadata.billing.customer", {"app_metadata": {"billing": None}}, None),
        ("app_metadata.billing.customer", {"app_metadata": {}}, None),
        ("app_metadata.billing.customer", {"app_metadata.billing.customer": "cus_1"}, "cus_1"),
        ("https://acme.example/customer", {"https://acme.example/customer": "cus_1"}, "cus_1"),
    ],
)
async def test_customer_claim_is_read_by_its_path(
    path: str, claims: dict[str, Any], customer: str | None
) -> None:
    user = await end_user(HS256.token(well_formed(**claims)), AUTH_CUSTOMER_CLAIM=path)
    assert user.customer_claim == customer


async def test_customer_claim_under_something_else_than_an_object_is_refused() -> None:
    token = HS256.token(well_formed(app_metadata="cus_1"))
    with pytest.raises(Unauthenticated):
        await end_user(token, AUTH_CUSTOMER_CLAIM="app_metadata.customer")


async def test_a_token_may_be_late_by_the_leeway() -> None:
    await end_user(HS256.token(well_formed(exp=int(time.time()) - 20)))


def verifier_with_clock(keys: KeySource) -> tuple[TokenVerifier, list[float]]:
    clock = [time.time()]
    claim = ("stripe_customer_id",)
    verifier = TokenVerifier(
        keys, issuer=ISSUER, audience=AUDIENCE, customer_claim=claim, clock=lambda: clock[0]
    )
    return verifier, clock


async def test_a_token_that_was_verified_before_still_expires() -> None:
    jwt_settings = settings().jwt
    assert jwt_settings is not None
    verifier, clock = verifier_with_clock(static_key(jwt_settings))
    token = HS256.token(well_formed(exp=int(clock[0]) + 60))
    first = await verifier.verify(token)
    assert await verifier.verify(token) == first
    clock[0] += 91
    with pytest.raises(TokenRejected, match="expired"):
        await verifier.verify(token)


class ReplacedKey:
    """A provider that replaces its key, as a rotation after a leak does."""

    def __init__(self, signer: Signer) -> None:
        self.key = key_from_jwk(signer.jwk("k"))

    async def find(self, algorithm: str, kid: str | None) -> VerificationKey | None:
        return self.key

    async def aclose(self) -> None:
        """Nothing is held open."""


async def test_a_token_that_was_verified_before_goes_with_its_key() -> None:
    keys = ReplacedKey(RS256)
    verifier, _ = verifier_with_clock(keys)
    token = RS256.token(headers={"kid": "k"})
    await verifier.verify(token)
    keys.key = key_from_jwk(Signer("RS256", rsa.generate_private_key(65537, 2048)).jwk("k"))
    with pytest.raises(TokenRejected, match="signature"):
        await verifier.verify(token)


async def test_only_so_many_verified_tokens_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "REMEMBERED_TOKENS", 3)
    jwt_settings = settings().jwt
    assert jwt_settings is not None
    verifier, _ = verifier_with_clock(static_key(jwt_settings))
    for number in (0, 1, 2, 3, 4, 0):
        user = await verifier.verify(HS256.token(well_formed(sub=f"user-{number}")))
        assert user.subject == f"user-{number}"
    assert len(verifier._proven) == 3


async def test_leeway_is_thirty_seconds_and_never_above_sixty() -> None:
    jwt_settings = settings().jwt
    assert jwt_settings is not None
    names = {"issuer": ISSUER, "audience": AUDIENCE, "customer_claim": ("c",)}
    with pytest.raises(ValueError, match="leeway"):
        TokenVerifier(static_key(jwt_settings), **names, leeway=61)  # type: ignore[arg-type]
    clock = [0.0]
    verifier = TokenVerifier(static_key(jwt_settings), **names, clock=lambda: clock[0])  # type: ignore[arg-type]
    token = HS256.token(well_formed(exp=1000, iat=500, nbf=600))
    accepted: list[str] = []
    for moment in (569, 570, 999, 1029, 1030):
        clock[0] = moment
        try:
            await verifier.verify(token)
        except TokenRejected as rejected:
            accepted.append(rejected.reason)
        else:
            accepted.append("accepted")
    assert accepted == ["not_yet_valid", "accepted", "accepted", "accepted", "expired"]


def test_unusable_static_keys_are_refused_at_start() -> None:
    names = {"issuer": ISSUER, "audience": AUDIENCE, "customer_claim": ("c",)}
    with pytest.raises(UnusableKey):
        static_key(JwtSettings(**names))  # type: ignore[arg-type]


def test_principal_key_is_stable_and_reveals_nothing() -> None:
    user = EndUser(issuer=ISSUER, subject="ann@example.com", email="ann@example.com")
    assert user.key == EndUser(issuer=ISSUER, subject="ann@example.com", email_verified=True).key
    assert "ann" not in user.key
    assert "email" not in repr(user).replace("email_verified", "")
    assert user.key != EndUser(issuer=ISSUER + "a", subject="nn@example.com").key
