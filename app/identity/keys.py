"""Verification keys, each bound to the algorithms of its own family.

They are bound before any token is read. A token's `alg` only selects among those algorithms, so a public key can never
be used as an HMAC secret. Source: https://www.rfc-editor.org/rfc/rfc8725#section-3.1
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import Algorithm, HMACAlgorithm

from app.setting_rules import MINIMUM_RSA_BITS
from app.settings import JwtSettings

_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: tuple[tuple[type[ec.EllipticCurve], str], ...] = (
    (ec.SECP256R1, "ES256"),
    (ec.SECP384R1, "ES384"),
    (ec.SECP521R1, "ES512"),
)
_HMAC_MINIMUM_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
_KTY_ALGORITHMS = {"RSA": _RSA, "EC": frozenset(name for _, name in _CURVES), "OKP": frozenset({"EdDSA"})}

ASYMMETRIC_ALGORITHMS = frozenset[str]().union(*_KTY_ALGORITHMS.values())

_ALGORITHMS: dict[str, Algorithm] = {
    name: jwt.get_algorithm_by_name(name) for name in ASYMMETRIC_ALGORITHMS.union(_HMAC_MINIMUM_BYTES)
}

Material = bytes | rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


class UnusableKey(ValueError):
    """Raised for a key that must not verify tokens.

    It has the wrong type, is too weak, is private, or is not for signatures.
    """


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key with the only algorithms that it may verify.

    `kid` is None for a key from the settings. `material` was checked when the object was made, and is not checked again
    for each token.
    """

    material: Material = field(repr=False)
    algorithms: frozenset[str]
    kid: str | None = None

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Return True if `signature` over `signed` was made with this key.

        `algorithm` must be one of the key's own.
        """
        if algorithm not in self.algorithms:
            return False
        return _ALGORITHMS[algorithm].verify(signed, self.material, signature)


class KeySource(Protocol):
    """A source of verification keys: the settings, or a provider's key set."""

    async def find(self, algorithm: str, kid: str | None) -> VerificationKey | None:
        """Return the key for this header, or None.

        Raises:
            ServiceUnavailable: If no keys can be read.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections of this source."""
        ...


class StaticKey:
    """The one key of the settings. The `kid` of a token is ignored."""

    def __init__(self, key: VerificationKey) -> None:
        self._key = key

    async def find(self, algorithm: str, kid: str | None) -> VerificationKey | None:
        """Return the key, whatever the header names.

        Its own algorithms still limit what it verifies.
        """
        return self._key

    async def aclose(self) -> None:
        """Do nothing: this source has no connections."""


def static_key(settings: JwtSettings) -> StaticKey:
    """Return the key of `AUTH_JWT_SECRET` or `AUTH_JWT_PUBLIC_KEY`.

    Raises:
        UnusableKey: If it must not be used.
    """
    if settings.secret is not None:
        secret = settings.secret.get_secret_value().encode()
        algorithms = frozenset(name for name, least in _HMAC_MINIMUM_BYTES.items() if len(secret) >= least)
        if not algorithms:
            raise UnusableKey("the shared secret is shorter than 32 bytes")
        try:
            HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
        except jwt.InvalidKeyError as error:
            raise UnusableKey("the shared secret is a public key") from error
        return StaticKey(VerificationKey(secret, algorithms))
    if settings.public_key is None:
        raise UnusableKey("neither a shared secret nor a public key is configured")
    return StaticKey(VerificationKey(*_bind(load_pem_public_key(settings.public_key.encode()))))


def key_from_jwk(jwk: dict[str, Any]) -> VerificationKey:
    """Return the verification key of one entry of a JWK set (RFC 7517).

    Raises:
        UnusableKey: The entry has another type or purpose, or its parts do not make a key.
    """
    kty, declared, kid = jwk.get("kty"), jwk.get("alg"), jwk.get("kid")
    algorithms = _KTY_ALGORITHMS.get(kty) if isinstance(kty, str) else None
    operations = jwk.get("key_ops", ["verify"])
    if algorithms is None:
        raise UnusableKey("not a key of a known asymmetric type")
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise UnusableKey("not a key for verifying signatures")
    if kid is not None and not isinstance(kid, str):
        raise UnusableKey("its kid is not a string")
    try:
        material, supported = _bind(jwt.PyJWK(jwk, min(algorithms)).key)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
        raise UnusableKey("its parts do not make a key") from error
    if declared is not None:
        supported &= frozenset({declared}) if isinstance(declared, str) else frozenset()
    if not supported:
        raise UnusableKey("its alg does not fit its type")
    return VerificationKey(material, supported, kid)


def _bind(key: object) -> tuple[Material, frozenset[str]]:
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= MINIMUM_RSA_BITS:
        return key, _RSA
    if isinstance(key, ec.EllipticCurvePublicKey):
        for curve, algorithm in _CURVES:
            if isinstance(key.curve, curve):
                return key, frozenset({algorithm})
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key, frozenset({"EdDSA"})
    raise UnusableKey("the key's type or size is not supported")
