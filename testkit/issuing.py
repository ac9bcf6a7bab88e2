"""An identity provider's side: keys, claims and tokens, well formed or as wrong as a case asks."""

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.settings import Settings, load_settings

ISSUER = "https://issuer.example/"
AUDIENCE = "coseat-api"
SECRET = "a shared secret of the tests, long enough for every HMAC algorithm there is"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def public_pem(key: PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@dataclass(frozen=True)
class Signer:
    """One signing key under one algorithm; `key` is a secret or a private key."""

    algorithm: str
    key: str | PrivateKey

    def token(self, claims: dict[str, Any] | None = None, headers: dict[str, Any] | None = None) -> str:
        return jwt.encode(well_formed() if claims is None else claims, self.key, self.algorithm, headers)

    def jwk(self, kid: str | None, **members: Any) -> dict[str, Any]:
        assert not isinstance(self.key, str)
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        document = dict(algorithm.to_jwk(self.key.public_key(), as_dict=True))
        document.pop("key_ops", None)
        return (
            document | ({} if kid is None else {"kid": kid}) | {"use": "sig", "alg": self.algorithm} | members
        )


HS256 = Signer("HS256", SECRET)
RS256 = Signer("RS256", rsa.generate_private_key(65537, 2048))
ES256 = Signer("ES256", ec.generate_private_key(ec.SECP256R1()))
ES384 = Signer("ES384", ec.generate_private_key(ec.SECP384R1()))
EDDSA = Signer("EdDSA", ed25519.Ed25519PrivateKey.generate())


def well_formed(*, without: str | None = None, **members: Any) -> dict[str, Any]:
    """Claims that the configured verifier accepts, changed by `members` and `without`."""
    now = int(time.time())
    claims: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "user-1", "iat": now, "exp": now + 7200}
    claims |= members
    if without is not None:
        del claims[without]
    return claims


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def handmade(header: object, payload: object, *, secret: str = SECRET) -> str:
    """A token with a right HS256 signature over whatever bytes or JSON are given."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
    signing_input = ".".join(b64(part) for part in parts)
    return signing_input + "." + b64(hmac.digest(secret.encode(), signing_input.encode(), hashlib.sha256))


def settings(**variables: str) -> Settings:
    """Settings with the tests' issuer and audience and, unless another key is given, the shared secret."""
    environ = {"AUTH_ISSUER": ISSUER, "AUTH_AUDIENCE": AUDIENCE} | variables
    if not any(name in environ for name in ("AUTH_JWT_PUBLIC_KEY", "AUTH_JWKS_URL")):
        environ.setdefault("AUTH_JWT_SECRET", SECRET)
    return load_settings(environ, process="test")
