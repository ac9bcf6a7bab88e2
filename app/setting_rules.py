"""Rules for the values of single variables of the configuration.

Each function returns the value or raises ValueError. The operator reads the message after the name of the variable. It
never holds the value, which may be a secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from ipaddress import ip_address
from urllib.parse import SplitResult, parse_qs, urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import SecretStr

MINIMUM_SECRET_BYTES = 32  # RFC 7518 section 3.2: an HMAC key is at least as long as its digest.
MINIMUM_METRICS_TOKEN = 16
MINIMUM_INVITATION_SECRET = 32
MINIMUM_RSA_BITS = 2048  # RFC 7518 section 3.3.

# Claims that an end user can write at common identity providers, compared without case and punctuation.
_USER_WRITABLE = frozenset(
    {
        "usermetadata",
        "rawusermetadata",
        "unsafemetadata",
        "userprofile",
        "publicuserprofile",
        "publicprofile",
        "profile",
        "traits",
        "name",
        "nickname",
        "preferredusername",
        "email",
        "website",
        "phonenumber",
        "address",
    }
)

ALWAYS = "always"
"""The value of AUTH_EMAIL_VERIFIED for an issuer that verifies every address."""

_SWITCHES = frozenset({"true", "false", "1", "0", "yes", "no", "on", "off", "never"})

_STRIPE_KEY = re.compile(r"[sr]k_(?:test|live)_[A-Za-z0-9_]+")
_SERVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CLAIM_SEGMENT = re.compile(r"[A-Za-z0-9_:-]{1,128}")
_CLAIM_URL = re.compile(r"https?://[!-~]{1,250}")
_HOST_AND_PORT = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::(?P<port>\d{1,5}))?")
_LARGEST_PORT = 65_535
_HOST_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return False


def _split_url(text: str) -> SplitResult:
    parts = _plain_url(text)
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    return parts


def _plain_url(text: str) -> SplitResult:
    """Return the parts of a URL, whose port may be anything."""
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("is not a URL") from None
    if re.search(r"[\s\x00-\x1f\x7f]", text) or not text.isascii():
        raise ValueError("is not a URL: it holds white space or characters outside ASCII")
    return parts


def _https_or_loopback(text: str) -> SplitResult:
    parts = _split_url(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an https:// URL")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise ValueError("must use https; http is for a loopback address only")
    if "@" in parts.netloc:
        raise ValueError("must not carry a user name or password")
    return parts


def hidden(check: Callable[[str], str]) -> Callable[[SecretStr], SecretStr]:
    """Return `check` for a value that is hidden in reprs and logs."""

    def apply(value: SecretStr) -> SecretStr:
        return SecretStr(check(value.get_secret_value()))

    return apply


def check_database_url(text: str) -> str:
    """Return the URL as `postgresql://…`; it names a database, and one host or several that commas separate."""
    parts = _plain_url(text)
    if parts.scheme not in ("postgresql", "postgres", "postgresql+asyncpg"):
        raise ValueError("must be a postgresql:// URL")
    query = parse_qs(parts.query)
    found = [_HOST_AND_PORT.fullmatch(host) for host in parts.netloc.rpartition("@")[2].split(",")]
    if "host" not in query and not all(found):
        raise ValueError("must name a host, or hosts with their ports as `one:5432,two:5432`")
    ports = [one["port"] for one in found if one and one["port"]]
    hosts = query["host"][0].split(",") if "host" in query else found
    if "port" in query:
        ports = query["port"][0].split(",")
        if len(ports) not in (1, len(hosts)):
            raise ValueError("must name one port, or as many as hosts")
    if not all(not port or (port.isdecimal() and 0 < int(port) <= _LARGEST_PORT) for port in ports):
        raise ValueError(f"must name ports from 1 to {_LARGEST_PORT}")
    if not parts.path.strip("/"):
        raise ValueError("must name a database")
    return "postgresql" + text[len(parts.scheme) :]


def check_stripe_key(text: str) -> str:
    """Return a Stripe API key, secret or restricted, of either mode."""
    if not _STRIPE_KEY.fullmatch(text):
        raise ValueError("must be a Stripe API key: sk_test_, sk_live_, rk_test_ or rk_live_")
    return text


def is_live(stripe_key: str) -> bool:
    """Return True if the Stripe key moves real money."""
    return stripe_key[2:8] == "_live_"


def check_origin_url(text: str) -> str:
    """Return an https URL without a path; http is for a loopback address only."""
    parts = _https_or_loopback(text)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("must be scheme://host[:port] without a path")
    return text.rstrip("/")


def check_collector_url(text: str) -> str:
    """Return the http or https URL of a collector, without a final slash."""
    parts = _split_url(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be the http:// or https:// URL of an OTLP collector")
    return text.rstrip("/")


def check_jwks_url(text: str) -> str:
    """Return an https URL without a fragment; http is for a loopback address only."""
    if _https_or_loopback(text).fragment:
        raise ValueError("must not have a fragment")
    return text


def check_jwt_secret(text: str) -> str:
    """Return a shared secret that is as long as an HMAC key has to be."""
    if len(text.encode()) < MINIMUM_SECRET_BYTES:
        raise ValueError(f"must be at least {MINIMUM_SECRET_BYTES} bytes long")
    if "-----BEGIN " in text or '"kty"' in text:
        raise ValueError("must be a shared secret; a public key belongs in AUTH_JWT_PUBLIC_KEY")
    return text


def _key_problem(key: object) -> str | None:
    match key:
        case rsa.RSAPublicKey(key_size=bits):
            return (
                None
                if bits >= MINIMUM_RSA_BITS
                else f"must be an RSA key of at least {MINIMUM_RSA_BITS} bits"
            )
        case ec.EllipticCurvePublicKey(curve=curve):
            known = isinstance(curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1)
            return None if known else "must be on the curve P-256, P-384 or P-521"
        case ed25519.Ed25519PublicKey():
            return None
        case _:
            return "must be an RSA, elliptic curve or Ed25519 key"


def check_public_key(text: str) -> str:
    """Return the PEM of a public key whose algorithm and length are allowed."""
    pem = text.replace("\\n", "\n").strip() + "\n"
    if "PRIVATE KEY" in pem:
        raise ValueError("must be a public key; a private key was given")
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("must be a public key in PEM form (BEGIN PUBLIC KEY)") from None
    if problem := _key_problem(key):
        raise ValueError(problem)
    return pem


def _claim_words(text: str) -> set[str]:
    """Return the parts of a claim's name, without case and punctuation."""
    if _CLAIM_URL.fullmatch(text):
        words = re.split(r"[/.?#&=]", text)
    else:
        words = text.split(".")
        if not all(_CLAIM_SEGMENT.fullmatch(word) for word in words):
            raise ValueError("must be a claim name, or a path of names joined with dots")
    return {re.sub(r"[^a-z0-9]", "", word.lower()) for word in words}


def check_claim(text: str) -> str:
    """Return the name or path of a claim that no end user can write."""
    if not _USER_WRITABLE.isdisjoint(_claim_words(text)):
        raise ValueError("must be a claim that the issuer alone writes; end users can write this one")
    return text


def check_email_claim(text: str) -> str:
    """Return the name or path of the claim with the address. It may be called `email`."""
    if not (_USER_WRITABLE - {"email"}).isdisjoint(_claim_words(text)):
        raise ValueError("must be a claim that the issuer alone writes; end users can write this one")
    return text


def check_verified_claim(text: str) -> str:
    """Return `always`, or the name or path of the claim that says that the address is verified."""
    if text.lower() == ALWAYS:
        return ALWAYS
    if text.lower() in _SWITCHES:
        raise ValueError("must be the name of a claim, or `always`")
    return check_claim(text)


def claim_path(claim: str) -> tuple[str, ...]:
    """Return the path of a claim from the top.

    A claim that is named by a URL is one name, even if it holds dots.
    """
    return (claim,) if _CLAIM_URL.fullmatch(claim) else tuple(claim.split("."))


def split_commas(value: object) -> object:
    """Return the parts of a text that commas separate; anything else as it is."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def check_invitation_secrets(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Return the secrets that sign invitations, each of them once and too long to guess."""
    if any(len(secret.get_secret_value()) < MINIMUM_INVITATION_SECRET for secret in secrets):
        raise ValueError(f"must hold secrets of at least {MINIMUM_INVITATION_SECRET} characters")
    return check_secrets(secrets)


def check_encryption_keys(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Return the keys that encrypt secrets, each of them once and in the form of `Fernet.generate_key`."""
    for key in keys:
        try:
            Fernet(key.get_secret_value())
        except ValueError:
            raise ValueError(
                "must hold keys of 32 bytes in URL-safe base64: make one with `openssl rand -base64 32 | tr +/ -_`"
            ) from None
    return check_secrets(keys)


def check_webhook_secrets(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Return the secrets of the webhook endpoint, each of them once and in the form of Stripe's."""
    prefix = "whsec_"
    texts = [secret.get_secret_value() for secret in check_secrets(secrets)]
    if not all(text.startswith(prefix) and len(text) > len(prefix) for text in texts):
        raise ValueError(
            "must hold secrets that begin with whsec_ and go on: copy them from the endpoint's page"
        )
    return secrets


def check_secrets(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Return the secrets, each of them once."""
    texts = [secret.get_secret_value() for secret in secrets]
    if any(not text for text in texts):
        raise ValueError("must not hold an empty secret: anybody could sign with it")
    if any(not text.isascii() or not text.isprintable() or " " in text for text in texts):
        raise ValueError("must hold secrets of printable ASCII without spaces")
    if len(set(texts)) != len(texts):
        raise ValueError("must not name a secret twice")
    return secrets


def check_cors_origin(text: str) -> str:
    """Return an origin exactly as a browser sends it."""
    if "*" in text or text == "null":
        raise ValueError("must name exact origins: neither * nor null")
    parts = _split_url(text)
    host = parts.hostname or ""
    bare = f"[{host}]" if ":" in host else host
    default_port = {"http": 80, "https": 443}.get(parts.scheme)
    if default_port is None or not (":" in host or _HOST_NAME.fullmatch(host)):
        raise ValueError("must hold origins like https://app.example.com")
    if parts.port == default_port:
        raise ValueError("must leave out the scheme's own port, as browsers do")
    exact = f"{parts.scheme}://{bare}" + (f":{parts.port}" if parts.port is not None else "")
    if text != exact:
        raise ValueError("must hold scheme://host[:port] only: lower case, no path, no final slash")
    return text


def parse_json(value: object) -> object:
    """Return the document of a JSON text; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError('must be JSON: [{"name", "sha256", "scopes"}]') from None


def lower(value: object) -> object:
    """Return a text in lower case; anything else as it is."""
    return value.lower() if isinstance(value, str) else value


def check_service_name(text: str) -> str:
    """Return the name of a service key."""
    if not _SERVICE_NAME.fullmatch(text):
        raise ValueError("must be 1-64 letters, digits, dots, hyphens or underscores")
    return text


def check_sha256(text: str) -> str:
    """Return a SHA-256 as 64 hexadecimal digits in lower case."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError("must be the SHA-256 of the key, 64 hexadecimal digits")
    return text.lower()


def check_text(text: str) -> str:
    """Return printable text without spaces around it."""
    if not text.isprintable() or text != text.strip():
        raise ValueError("must be printable text without spaces around it")
    return text


def check_host(text: str) -> str:
    """Return an IP address or a host name."""
    try:
        ip_address(text)
    except ValueError:
        if not _HOST_NAME.fullmatch(text.lower()):
            raise ValueError("must be an IP address or a host name") from None
    return text


def check_metrics_token(text: str) -> str:
    """Return a token that a header can carry and that is too long to guess."""
    if len(text) < MINIMUM_METRICS_TOKEN or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(
            f"must be at least {MINIMUM_METRICS_TOKEN} printable ASCII characters without spaces"
        )
    return text
