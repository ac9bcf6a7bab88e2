"""Verify the signed JWT of an end user, and read the person from it.

The rules are stricter than RFC 7519 where RFC 8725 (https://www.rfc-editor.org/rfc/rfc8725) advises it. The configured
key fixes the algorithm family. `exp`, `iss`, `sub` and the audience are required. A header with a key, a link to one or
an extension is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from app.identity.claims import (
    ClaimPath,
    Claims,
    check_audience,
    claim_at,
    customer_of,
    email_of,
    is_verified,
    seconds_of,
    subject_of,
)
from app.identity.keys import ASYMMETRIC_ALGORITHMS, KeySource, VerificationKey
from app.identity.principals import EndUser
from app.identity.refusals import TokenRejected

MAXIMUM_TOKEN_BYTES = 8192
MAXIMUM_LEEWAY = 60.0
REMEMBERED_TOKENS = 4096

# A token whose header has one of these members is refused. Ignoring the member would also be safe, but such a token
# comes from an attack or from a wrong configuration.
_REFUSED_HEADERS = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc"})
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})


@dataclass(frozen=True, slots=True)
class _Proven:
    """The content of a token whose signature `key` has verified.

    Times are in Unix seconds.
    """

    algorithm: str
    kid: str | None
    key: VerificationKey
    user: EndUser
    expires: float
    starts: float


@dataclass(frozen=True, slots=True)
class CompactToken:
    """The parts of a token whose signature is not verified yet.

    They are those of RFC 7515 section 3.1.
    """

    algorithm: str
    kid: str | None
    payload: bytes
    signed: bytes
    signature: bytes


def parse_token(token: str) -> CompactToken:
    """Split a token into its parts and check its header. Raises TokenRejected."""
    if len(token) > MAXIMUM_TOKEN_BYTES or not token.isascii():
        raise TokenRejected("malformed")
    parts = token.split(".")
    if len(parts) != 3:
        raise TokenRejected("malformed")
    header_bytes, payload, signature = (_base64url(part) for part in parts)
    try:
        header = orjson.loads(header_bytes)
    except orjson.JSONDecodeError:
        raise TokenRejected("malformed") from None
    if not isinstance(header, dict):
        raise TokenRejected("malformed")
    if not _REFUSED_HEADERS.isdisjoint(header):
        raise TokenRejected("malformed")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise TokenRejected("malformed")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or not (kid is None or isinstance(kid, str)):
        raise TokenRejected("malformed")
    signed = token[: -len(parts[2]) - 1].encode()
    return CompactToken(algorithm, kid, payload, signed, signature)


def claims_of(parsed: CompactToken) -> Claims:
    """Return the claims of a token. Raises TokenRejected (`malformed`) if they are no JSON object."""
    try:
        claims = orjson.loads(parsed.payload)
    except orjson.JSONDecodeError:
        raise TokenRejected("malformed") from None
    if not isinstance(claims, dict):
        raise TokenRejected("malformed")
    return claims


def _base64url(text: str) -> bytes:
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise TokenRejected("malformed") from None
    # The decoder ignores foreign characters and surplus bits, so only the canonical spelling is accepted.
    if not data or base64.urlsafe_b64encode(data).rstrip(b"=") != text.encode():
        raise TokenRejected("malformed")
    return data


class TokenVerifier:
    """Verifies tokens of one issuer for one audience.

    Each claim is a path of names from the top of the claims. `aud_ignored` accepts any `aud` beside another audience
    claim. Without `email_verified_claim` the issuer verifies every address. `leeway` (0-60 seconds) allows for clocks
    that differ. `clock` returns Unix seconds.
    """

    def __init__(
        self,
        keys: KeySource,
        *,
        issuer: str,
        audience: str,
        customer_claim: ClaimPath,
        audience_claim: ClaimPath = ("aud",),
        aud_ignored: bool = False,
        email_claim: ClaimPath = ("email",),
        email_verified_claim: ClaimPath | None = ("email_verified",),
        leeway: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not 0 <= leeway <= MAXIMUM_LEEWAY:
            raise ValueError(f"leeway must be 0 to {MAXIMUM_LEEWAY:.0f} seconds")
        if not issuer or not audience or not customer_claim or not audience_claim:
            raise ValueError("issuer, audience and the claims must not be empty")
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._customer_claim = customer_claim
        self._audience_claim = audience_claim
        self._aud_ignored = aud_ignored
        self._email_claim = email_claim
        self._email_verified_claim = email_verified_claim
        self._leeway = leeway
        self._clock = clock
        self._proven: dict[bytes, _Proven] = {}

    async def verify(self, token: str) -> EndUser:
        """Return the person that `token` identifies.

        A page sends the same token many times. A verified token is remembered by its digest, so its signature is not
        verified again while its key is in use. Its times are checked at every use.

        Raises:
            TokenRejected: The token is not accepted.
            ServiceUnavailable: `identity_provider_unavailable`.
        """
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        proven = self._proven.get(digest)
        if proven is None or await self._keys.find(proven.algorithm, proven.kid) is not proven.key:
            proven = await self._prove(token)
            self._remember(digest, proven)
        self._check_times(proven)
        return proven.user

    def _remember(self, digest: bytes, proven: _Proven) -> None:
        if len(self._proven) >= REMEMBERED_TOKENS:
            del self._proven[next(iter(self._proven))]
        self._proven[digest] = proven

    async def _prove(self, token: str) -> _Proven:
        parsed = parse_token(token)
        key = await self._keys.find(parsed.algorithm, parsed.kid)
        if key is None:
            raise TokenRejected("unknown_key" if parsed.algorithm in ASYMMETRIC_ALGORITHMS else "algorithm")
        if parsed.algorithm not in key.algorithms:
            raise TokenRejected("algorithm")
        if not key.verifies(parsed.algorithm, parsed.signed, parsed.signature):
            raise TokenRejected("signature")
        claims = claims_of(parsed)
        expires = seconds_of(claims, "exp")
        if expires is None:
            raise TokenRejected("claim_missing", "exp")
        starts = max(seconds_of(claims, name) or 0.0 for name in ("nbf", "iat"))
        self._check_issuer(claims)
        self._check_audience(claims)
        email = email_of(claims, self._email_claim)
        user = EndUser(
            issuer=self._issuer,
            subject=subject_of(claims),
            email=email,
            email_verified=email is not None and is_verified(claims, self._email_verified_claim),
            customer_claim=customer_of(claims, self._customer_claim),
            expires=expires,
        )
        return _Proven(parsed.algorithm, parsed.kid, key, user, expires, starts)

    def _check_times(self, proven: _Proven) -> None:
        now = self._clock()
        if proven.expires <= now - self._leeway:
            raise TokenRejected("expired", "exp")
        if proven.starts > now + self._leeway:
            raise TokenRejected("not_yet_valid")

    def _check_issuer(self, claims: Claims) -> None:
        issuer = claims.get("iss")
        if issuer is None:
            raise TokenRejected("claim_missing", "iss")
        if issuer != self._issuer:
            raise TokenRejected("issuer", "iss")

    def _check_audience(self, claims: Claims) -> None:
        name = ".".join(self._audience_claim)
        value = claim_at(claims, self._audience_claim)
        if value is None:
            raise TokenRejected("claim_missing", name)
        check_audience(value, self._audience, name)
        if "aud" in claims and not self._aud_ignored:
            check_audience(claims["aud"], self._audience, "aud")
