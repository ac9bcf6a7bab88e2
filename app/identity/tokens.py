"""Verify the signed JWT of an end user, and read the person from it.

The rules are stricter than RFC 7519 where RFC 8725 (https://www.rfc-editor.org/rfc/rfc8725) advises it. The configured
key fixes the algorithm family. `exp`, `aud`, `iss` and `sub` are required, with one audience. A header with a key, a
link to one or an extension is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from app.domain import emails
from app.domain.ids import CustomerId, is_customer_id
from app.identity.keys import KeySource, VerificationKey
from app.identity.principals import EndUser

MAXIMUM_TOKEN_BYTES = 8192
MAXIMUM_SUBJECT_LENGTH = 255  # OpenID Connect Core section 2.
MAXIMUM_LEEWAY = 60.0
REMEMBERED_TOKENS = 4096

# A token whose header has one of these members is refused. Ignoring the member would also be safe, but such a token
# comes from an attack or from a wrong configuration.
_REFUSED_HEADERS = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc"})
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})


class TokenRejected(Exception):
    """Raised for a token that is not accepted.

    `reason` is for logs and is never shown to the caller.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


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
        raise TokenRejected("header_not_allowed")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise TokenRejected("wrong_type")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or not (kid is None or isinstance(kid, str)):
        raise TokenRejected("malformed")
    signed = token[: -len(parts[2]) - 1].encode()
    return CompactToken(algorithm, kid, payload, signed, signature)


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

    `customer_claim` is a path of names from the top of the claims. `leeway` (0-60 seconds) allows for clocks that
    differ. `clock` returns Unix seconds.
    """

    def __init__(
        self,
        keys: KeySource,
        *,
        issuer: str,
        audience: str,
        customer_claim: tuple[str, ...],
        leeway: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not 0 <= leeway <= MAXIMUM_LEEWAY:
            raise ValueError(f"leeway must be 0 to {MAXIMUM_LEEWAY:.0f} seconds")
        if not issuer or not audience or not customer_claim:
            raise ValueError("issuer, audience and customer claim must not be empty")
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._customer_claim = customer_claim
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
            raise TokenRejected("no_such_key")
        if not key.verifies(parsed.algorithm, parsed.signed, parsed.signature):
            raise TokenRejected("bad_signature")
        try:
            claims = orjson.loads(parsed.payload)
        except orjson.JSONDecodeError:
            raise TokenRejected("malformed") from None
        if not isinstance(claims, dict):
            raise TokenRejected("malformed")
        expires = _seconds(claims, "exp")
        if expires is None:
            raise TokenRejected("missing_claim")
        starts = max(_seconds(claims, name) or 0.0 for name in ("nbf", "iat"))
        self._check_issuer_and_audience(claims)
        email = _email(claims.get("email"))
        user = EndUser(
            issuer=self._issuer,
            subject=_subject(claims.get("sub")),
            email=email,
            email_verified=email is not None and claims.get("email_verified") is True,
            customer_claim=self._customer(claims),
        )
        return _Proven(parsed.algorithm, parsed.kid, key, user, expires, starts)

    def _check_times(self, proven: _Proven) -> None:
        now = self._clock()
        if proven.expires <= now - self._leeway:
            raise TokenRejected("expired")
        if proven.starts > now + self._leeway:
            raise TokenRejected("not_yet_valid")

    def _check_issuer_and_audience(self, claims: dict[str, Any]) -> None:
        if claims.get("iss") != self._issuer:
            raise TokenRejected("wrong_issuer")
        # Any other audience of a token could send it here, so a token with several audiences is refused.
        if claims.get("aud") not in (self._audience, [self._audience]):
            raise TokenRejected("wrong_audience")

    def _customer(self, claims: dict[str, Any]) -> CustomerId | None:
        value: object = claims
        for name in self._customer_claim:
            if value is None:
                return None
            if not isinstance(value, dict):
                raise TokenRejected("malformed_customer_claim")
            value = value.get(name)
        if value is None or value == "":
            return None
        # A claim that holds no customer id means that the issuer is misconfigured. If it were read as "no customer",
        # the person would be linked to a new customer.
        if not isinstance(value, str) or not is_customer_id(value):
            raise TokenRejected("malformed_customer_claim")
        return CustomerId(value)


def _seconds(claims: dict[str, Any], name: str) -> float | None:
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TokenRejected("malformed_claim")
    return value


def _subject(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TokenRejected("missing_claim")
    if len(value) > MAXIMUM_SUBJECT_LENGTH or not value.isprintable() or value != value.strip():
        raise TokenRejected("malformed_claim")
    return value


def _email(value: object) -> str | None:
    """Return the address ASCII-lowered, or None if the claim is no address or must reach no seat."""
    if not isinstance(value, str) or not emails.is_address(value):
        return None
    email = emails.ascii_lowered(value)
    return email if emails.reaches_seats(email) else None
