"""Explain a credential against the configuration, for `coseat token --check`.

The report holds names and claims that help to configure sign-in. It never holds the credential, a signature, a secret
or a whole set of claims.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field

from app.errors import ServiceUnavailable
from app.identity.authenticator import key_source, verifier_of
from app.identity.claims import Claims, claim_at
from app.identity.keys import UnusableKey
from app.identity.principals import EndUser
from app.identity.refusals import ADVICE, TokenRejected
from app.identity.service_keys import PREFIX, ServiceKeyRing
from app.identity.tokens import MAXIMUM_TOKEN_BYTES, CompactToken, claims_of, parse_token
from app.settings import JwtSettings, Settings

_LONGEST_VALUE = 200
_SHOWN_CLAIMS = ("iss", "aud", "azp", "client_id", "exp", "nbf", "iat")
"""Claims that name the application and the times of a token."""

_PROVIDER_ADVICE = (
    "AUTH_JWKS_URL did not answer with a key set. Check the address, and that this machine reaches it."
)
_KEY_ADVICE = "The configured key must not verify tokens. Check AUTH_JWT_SECRET or AUTH_JWT_PUBLIC_KEY."


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the configuration says of a credential.

    `reason` is None if it is accepted. `claim` is the claim at fault. `shown` has what the credential says.
    """

    accepted: bool
    reason: str | None = None
    claim: str | None = None
    advice: str | None = None
    shown: dict[str, object] = field(default_factory=dict)


def read_credential() -> str:
    """Return the credential on standard input, without spaces around it.

    More than a token's greatest size is not read.
    """
    data = sys.stdin.buffer.read(2 * MAXIMUM_TOKEN_BYTES)
    return data.decode("utf-8", "replace").strip()


async def check_credential(settings: Settings, credential: str) -> Explanation:
    """Return whether the configuration accepts a token or a service key, and why not.

    A leading `Bearer ` is left out. The keys of `AUTH_JWKS_URL` are fetched.
    """
    scheme, _, rest = credential.strip().partition(" ")
    credential = rest.strip() if scheme.lower() == "bearer" else credential.strip()
    if credential.startswith(PREFIX):
        return _service_key(settings, credential)
    if (jwt := settings.jwt) is None:
        return Explanation(False, "unknown_key", None, ADVICE["unknown_key"])
    shown = _shown(credential, jwt)
    try:
        user = await _verified(jwt, credential)
    except TokenRejected as rejected:
        advice = _advice(rejected, jwt, shown)
        return Explanation(False, rejected.reason, rejected.claim, advice, shown)
    except ServiceUnavailable as unavailable:
        return Explanation(False, unavailable.code, None, _PROVIDER_ADVICE, shown)
    except UnusableKey:
        return Explanation(False, "unusable_key", None, _KEY_ADVICE, shown)
    return Explanation(True, shown=shown | _person(user))


async def _verified(jwt: JwtSettings, token: str) -> EndUser:
    keys = key_source(jwt)
    try:
        return await verifier_of(keys, jwt).verify(token)
    finally:
        await keys.aclose()


def _service_key(settings: Settings, credential: str) -> Explanation:
    key = ServiceKeyRing(settings.service_keys).find(credential)
    if key is None:
        return Explanation(False, "unknown_service_key", None, ADVICE["unknown_service_key"])
    return Explanation(True, shown={"service_key": key.name, "scopes": sorted(key.scopes)})


def _person(user: EndUser) -> dict[str, object]:
    return {
        "sub": user.subject,
        "email": user.email,
        "email_verified": user.email_verified,
        "customer": user.customer_claim,
    }


def _shown(token: str, jwt: JwtSettings) -> dict[str, object]:
    """Return header and claims of a token that help to configure sign-in, cut to a bounded length."""
    try:
        parsed = parse_token(token)
        claims = claims_of(parsed)
    except TokenRejected:
        return {}
    shown = _header(parsed) | {name: claims[name] for name in _SHOWN_CLAIMS if name in claims}
    shown |= _audience(claims, jwt)
    return {name: _short(value) for name, value in shown.items()}


def _header(parsed: CompactToken) -> dict[str, object]:
    return {"alg": parsed.algorithm, "kid": parsed.kid}


def _audience(claims: Claims, jwt: JwtSettings) -> dict[str, object]:
    try:
        value = claim_at(claims, jwt.audience_claim)
    except TokenRejected:
        return {}
    return {} if value is None else {".".join(jwt.audience_claim): value}


def _short(value: object) -> object:
    text = json.dumps(value)
    return value if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"


def _advice(rejected: TokenRejected, jwt: JwtSettings, shown: dict[str, object]) -> str:
    """Return what to do, with the values that the token and the settings have."""
    advice = ADVICE[rejected.reason]
    match rejected.reason:
        case "issuer":
            advice += f" AUTH_ISSUER is {json.dumps(jwt.issuer)}."
        case "audience" | "claim_missing" if rejected.claim in ("aud", ".".join(jwt.audience_claim)):
            advice += f" AUTH_AUDIENCE is {json.dumps(jwt.audience)}."
            others = [name for name in ("azp", "client_id") if name in shown and name != rejected.claim]
            advice += "".join(f" The token's `{name}` is {json.dumps(shown[name])}." for name in others)
    return advice


def print_explanation(found: Explanation) -> None:
    """Print a report for people: what the credential says, the reason, and what to set."""
    for name, value in found.shown.items():
        # JSON shows control characters as escapes, so a token cannot write to the terminal.
        print(f"{name}: {json.dumps(value)}")
    if found.accepted:
        print("The credential is accepted.")
        return
    print(f"Refused: {found.reason}" + (f" (claim {found.claim})" if found.claim else ""))
    print(found.advice)
