"""Configuration: one frozen model, filled from the environment once, at start.

`load_settings` is the only reader of the process environment. Names, defaults and meanings are those of
docs/reference/settings.md; a variable that is set to nothing counts as not set.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import SplitResult, parse_qs, urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

Process = Literal[
    "serve", "worker", "sync", "reconcile", "doctor", "replay", "migrate", "token", "openapi", "dev", "test"
]
Scope = Literal["read", "write", "admin"]
ProrationBehavior = Literal["always_invoice", "create_prorations", "none"]
Catalogue = Literal["listed", "open"]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]

MINIMUM_SECRET_BYTES = 32  # RFC 7518 section 3.2: an HMAC key is at least as long as its digest.
MINIMUM_METRICS_TOKEN = 16
MINIMUM_RSA_BITS = 2048  # RFC 7518 section 3.3.

_AUTH_KEYS = ("AUTH_JWT_SECRET", "AUTH_JWT_PUBLIC_KEY", "AUTH_JWKS_URL")
_DATABASE = ("DATABASE_URL",)
_STRIPE = ("DATABASE_URL", "STRIPE_API_KEY")
_REQUIRED: dict[Process, tuple[str, ...]] = {
    "serve": (*_STRIPE, "STRIPE_WEBHOOK_SECRETS", "AUTH_KEY", "AUTH_ISSUER", "AUTH_AUDIENCE"),
    "worker": _STRIPE,
    "sync": _STRIPE,
    "reconcile": _STRIPE,
    "doctor": _STRIPE,
    "replay": _DATABASE,
    "migrate": _DATABASE,
    "token": ("AUTH_JWT_SECRET", "AUTH_ISSUER", "AUTH_AUDIENCE"),
    "openapi": (),
    "dev": (),
    "test": (),
}

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

_STRIPE_KEY = re.compile(r"[sr]k_(?:test|live)_[A-Za-z0-9_]+")
_SERVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CLAIM_SEGMENT = re.compile(r"[A-Za-z0-9_:-]{1,128}")
_CLAIM_URL = re.compile(r"https?://[!-~]{1,250}")
_HOST_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")

Value = TypeVar("Value")


class SettingsError(Exception):
    """The environment does not configure this process.

    `problems` maps each variable to the rule it breaks; neither it nor the message holds a configured value.
    """

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        lines = "".join(f"\n  {name}: {rule}" for name, rule in self.problems.items())
        super().__init__(f"The configuration is not usable:{lines}")


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return False


def _split_url(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.port
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


def _secret(check: Callable[[str], str]) -> Callable[[SecretStr], SecretStr]:
    def apply(value: SecretStr) -> SecretStr:
        return SecretStr(check(value.get_secret_value()))

    return apply


def _check_database_url(text: str) -> str:
    parts = _split_url(text)
    if parts.scheme not in ("postgresql", "postgres", "postgresql+asyncpg"):
        raise ValueError("must be a postgresql:// URL")
    if not parts.hostname and "host" not in parse_qs(parts.query):
        raise ValueError("must name a host")
    if not parts.path.strip("/"):
        raise ValueError("must name a database")
    return "postgresql" + text[len(parts.scheme) :]


def _check_stripe_key(text: str) -> str:
    if not _STRIPE_KEY.fullmatch(text):
        raise ValueError("must be a Stripe API key: sk_test_, sk_live_, rk_test_ or rk_live_")
    return text


def _is_live(stripe_key: str) -> bool:
    return stripe_key[2:8] == "_live_"


def _check_origin_url(text: str) -> str:
    parts = _https_or_loopback(text)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("must be scheme://host[:port] without a path")
    return text.rstrip("/")


def _check_jwks_url(text: str) -> str:
    if _https_or_loopback(text).fragment:
        raise ValueError("must not have a fragment")
    return text


def _check_jwt_secret(text: str) -> str:
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


def _check_public_key(text: str) -> str:
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


def _check_claim(text: str) -> str:
    if _CLAIM_URL.fullmatch(text):
        words = re.split(r"[/.?#&=]", text)
    else:
        words = text.split(".")
        if not all(_CLAIM_SEGMENT.fullmatch(word) for word in words):
            raise ValueError("must be a claim name, or a path of names joined with dots")
    if any(re.sub(r"[^a-z0-9]", "", word.lower()) in _USER_WRITABLE for word in words):
        raise ValueError("must be a claim that the issuer alone writes; end users can write this one")
    return text


def _split_commas(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _check_webhook_secrets(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    texts = [secret.get_secret_value() for secret in secrets]
    if any(not text for text in texts):
        raise ValueError("must not hold an empty secret: anybody can sign with it")
    if any(not text.isascii() or not text.isprintable() or " " in text for text in texts):
        raise ValueError("must hold secrets of printable ASCII without spaces")
    if len(set(texts)) != len(texts):
        raise ValueError("must not name a secret twice")
    return secrets


def _check_cors_origin(text: str) -> str:
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


def _parse_json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError('must be JSON: [{"name", "sha256", "scopes"}]') from None


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _check_service_name(text: str) -> str:
    if not _SERVICE_NAME.fullmatch(text):
        raise ValueError("must be 1-64 letters, digits, dots, hyphens or underscores")
    return text


def _check_sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError("must be the SHA-256 of the key, 64 hexadecimal digits")
    return text.lower()


class ServiceKeySettings(BaseModel):
    """One service key as configured: its name, the SHA-256 of the key (never the key), and its scopes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, AfterValidator(_check_service_name)]
    sha256: Annotated[str, AfterValidator(_check_sha256), Field(repr=False)]
    scopes: Annotated[frozenset[Scope], Field(min_length=1, strict=False)]


def _check_service_keys(keys: tuple[ServiceKeySettings, ...]) -> tuple[ServiceKeySettings, ...]:
    if len({key.name for key in keys}) != len(keys):
        raise ValueError("must not give two keys one name")
    if len({key.sha256 for key in keys}) != len(keys):
        raise ValueError("must not hold one sha256 twice")
    return keys


def _check_text(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("must be printable text without spaces around it")
    return text


def _check_host(text: str) -> str:
    try:
        ip_address(text)
    except ValueError:
        if not _HOST_NAME.fullmatch(text.lower()):
            raise ValueError("must be an IP address or a host name") from None
    return text


def _check_metrics_token(text: str) -> str:
    if len(text) < MINIMUM_METRICS_TOKEN or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(
            f"must be at least {MINIMUM_METRICS_TOKEN} printable ASCII characters without spaces"
        )
    return text


RequestsPerSecond = Annotated[int, Field(ge=1, le=1_000_000)]


@dataclass(frozen=True, slots=True)
class JwtSettings:
    """How end users' tokens are verified; one of `secret`, `public_key` (PEM) and `jwks_url` is set."""

    issuer: str
    audience: str
    customer_claim: tuple[str, ...]
    secret: SecretStr | None = None
    public_key: str | None = None
    jwks_url: str | None = None


class Settings(BaseSettings):
    """Every variable of docs/reference/settings.md, validated; secrets never show in its repr."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    database_url: Annotated[SecretStr, AfterValidator(_secret(_check_database_url))] | None = None
    database_pool_size: Annotated[int, Field(ge=1, le=100)] = 10
    """Connections per process."""

    stripe_api_key: Annotated[SecretStr, AfterValidator(_secret(_check_stripe_key))] | None = None
    stripe_api_base: Annotated[str, AfterValidator(_check_origin_url)] | None = None
    stripe_webhook_secrets: Annotated[
        tuple[SecretStr, ...], BeforeValidator(_split_commas), AfterValidator(_check_webhook_secrets)
    ] = ()
    stripe_rate_limit: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Requests a second, all processes together. Stripe's own limits: 100 live, 25 in a sandbox."""

    auth_jwt_secret: Annotated[SecretStr, AfterValidator(_secret(_check_jwt_secret))] | None = None
    auth_jwt_public_key: Annotated[str, AfterValidator(_check_public_key)] | None = None
    auth_jwks_url: Annotated[str, AfterValidator(_check_jwks_url)] | None = None
    auth_issuer: Annotated[str, AfterValidator(_check_text), Field(max_length=1024)] | None = None
    auth_audience: Annotated[str, AfterValidator(_check_text), Field(max_length=1024)] | None = None
    auth_customer_claim: Annotated[str, AfterValidator(_check_claim)] = "stripe_customer_id"
    service_keys: Annotated[
        tuple[ServiceKeySettings, ...], BeforeValidator(_parse_json), AfterValidator(_check_service_keys)
    ] = ()
    cors_origins: Annotated[
        tuple[Annotated[str, AfterValidator(_check_cors_origin)], ...], BeforeValidator(_split_commas)
    ] = ()

    catalogue: Catalogue = "listed"
    proration_behavior: ProrationBehavior = "always_invoice"
    owner_uses_seat: bool = False
    managers_manage_managers: bool = False
    managers_buy_seats: bool = False
    past_due_allows_new_seats: bool = False
    unsecured_raise_max: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 20.0
    """Percent of the paid quantity by which one raise of an end user may stand before its payment, at least 5 seats."""

    sync_margin: Annotated[int, Field(ge=0, le=60)] = 2
    """Whole seconds (as `created` is) by which an event must beat a row's marker to be applied unread."""
    operation_deadline: Annotated[float, Field(ge=1, le=60, allow_inf_nan=False)] = 8.0
    """Seconds a request waits for its operation before it is answered 202."""
    operation_lease: Annotated[float, Field(ge=1, le=300, allow_inf_nan=False)] = 30.0
    """Seconds after which a worker takes up an operation whose runner does not go on with it."""
    late_window: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] = 300.0
    """Seconds after its sending for which a request that was never answered may still take effect at Stripe."""

    reconcile_interval: Annotated[float, Field(ge=0, le=24 * 31, allow_inf_nan=False)] = 24.0
    """Hours between reconciles of the worker; 0: none but those that an operator starts."""

    read_rate_limit: RequestsPerSecond = 50
    """Requests a second of one end user, or of one customer that a key acts for, in one process."""
    write_rate_limit: RequestsPerSecond = 5
    """Of those, writes and reads that ask Stripe, all processes together."""
    service_read_rate_limit: RequestsPerSecond = 1000
    service_write_rate_limit: RequestsPerSecond = 50
    user_in_flight: Annotated[int, Field(ge=1, le=10_000)] = 4
    """Writes of one customer, or of one login without a customer, that one process works on at the same time."""
    service_key_in_flight: Annotated[int, Field(ge=1, le=10_000)] = 64
    """The same for a service key that acts for nobody."""
    anonymous_rate_limit: RequestsPerSecond = 50
    """Requests a second without a credential from one address, in one process."""
    max_requests: Annotated[int, Field(ge=1, le=10_000)] = 200
    """Requests at work in one process at the same time."""
    max_waiting_requests: Annotated[int, Field(ge=0, le=10_000)] = 200
    max_waiting_deliveries: Annotated[int, Field(ge=1, le=100_000)] = 2000
    """Stripe's deliveries that one process holds and has not yet committed."""
    request_deadline: Annotated[float, Field(ge=0.1, le=60, allow_inf_nan=False)] = 10.0
    """Seconds in which a request's head, and then its body, has to arrive."""

    docs: bool | None = None
    metrics: bool | None = None
    metrics_token: Annotated[SecretStr, AfterValidator(_secret(_check_metrics_token))] | None = None

    host: Annotated[str, AfterValidator(_check_host)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    log_level: Annotated[LogLevel, BeforeValidator(_lower)] = "info"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Values come from the constructor alone: no construction reads the environment by surprise."""
        return (init_settings,)

    @model_validator(mode="after")
    def _no_conflicts(self) -> Settings:
        present = {name.upper() for name in self.model_fields_set if getattr(self, name) is not None}
        if problems := _conflicts(present, livemode=self.stripe_livemode):
            raise ValueError("; ".join(f"{name} {rule}" for name, rule in problems.items()))
        return self

    @property
    def stripe_livemode(self) -> bool:
        """Whether the configured key moves real money; False without a key."""
        return self.stripe_api_key is not None and _is_live(self.stripe_api_key.get_secret_value())

    @property
    def shows_docs(self) -> bool:
        """Whether /docs and /openapi.json answer: beside a live key only where `DOCS` says so."""
        return not self.stripe_livemode if self.docs is None else self.docs

    @property
    def shows_metrics(self) -> bool:
        """Whether /metrics answers: beside a live key only with a token, or where `METRICS` says so."""
        if self.metrics is not None:
            return self.metrics
        return self.metrics_token is not None or not self.stripe_livemode

    @property
    def dsn(self) -> str:
        """`DATABASE_URL` as `postgresql://…`, with its password. Raises SettingsError when not configured."""
        return _configured("DATABASE_URL", self.database_url).get_secret_value()

    @property
    def stripe_key(self) -> str:
        """The Stripe API key itself. Raises SettingsError when it is not configured."""
        return _configured("STRIPE_API_KEY", self.stripe_api_key).get_secret_value()

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        """The endpoint secrets, several while one is rotated. Raises SettingsError when there is none."""
        secrets = _configured("STRIPE_WEBHOOK_SECRETS", self.stripe_webhook_secrets or None)
        return tuple(secret.get_secret_value() for secret in secrets)

    @property
    def customer_claim_path(self) -> tuple[str, ...]:
        """The claim's path from the top; a claim named by a URL is one name, whatever dots it holds."""
        claim = self.auth_customer_claim
        return (claim,) if _CLAIM_URL.fullmatch(claim) else tuple(claim.split("."))

    @property
    def jwt(self) -> JwtSettings | None:
        """How tokens are verified; None (none is accepted) unless key, issuer and audience are all set."""
        has_key = self.auth_jwt_secret or self.auth_jwt_public_key or self.auth_jwks_url
        if not has_key or self.auth_issuer is None or self.auth_audience is None:
            return None
        return JwtSettings(
            issuer=self.auth_issuer,
            audience=self.auth_audience,
            customer_claim=self.customer_claim_path,
            secret=self.auth_jwt_secret,
            public_key=self.auth_jwt_public_key,
            jwks_url=self.auth_jwks_url,
        )


def _configured(name: str, value: Value | None) -> Value:
    if value is None:
        raise SettingsError({name: "is required"})
    return value


def _conflicts(present: set[str], *, livemode: bool) -> dict[str, str]:
    problems: dict[str, str] = {}
    if len(keys := [name for name in _AUTH_KEYS if name in present]) > 1:
        problems[keys[0]] = "only one of " + ", ".join(_AUTH_KEYS) + " may be set"
    if livemode and "STRIPE_API_BASE" in present:
        problems["STRIPE_API_BASE"] = "must not be set with a live Stripe key"
    return problems


def _missing(process: Process, present: set[str]) -> dict[str, str]:
    problems: dict[str, str] = {}
    for name in _REQUIRED[process]:
        if name == "AUTH_KEY":
            if present.isdisjoint(_AUTH_KEYS):
                problems[" or ".join(_AUTH_KEYS)] = f"one of them is required by `{process}`"
        elif name not in present:
            problems[name] = f"is required by `{process}`"
    return problems


def _rule(error: Mapping[str, Any]) -> str:
    # An unknown member's name is the operator's text, perhaps a key pasted into the wrong place.
    known = (
        part for part in error["loc"][1:] if isinstance(part, int) or part in ServiceKeySettings.model_fields
    )
    path = ".".join(str(part) for part in known)
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{path}: {message}" if path else message


def load_settings(environ: Mapping[str, str] | None = None, *, process: Process = "serve") -> Settings:
    """Read the environment (or `environ`) and check it for what `process` needs.

    Raises SettingsError that lists every missing and invalid variable at once.
    """
    source = os.environ if environ is None else environ
    raw = {
        name: source[name] for name in (field.upper() for field in Settings.model_fields) if name in source
    }
    raw = {name: text.strip() for name, text in raw.items() if text.strip()}
    problems = list(_missing(process, set(raw)).items())
    settings: Settings | None = None
    try:
        settings = Settings(**{name.lower(): text for name, text in raw.items()})  # type: ignore[arg-type]
    except ValidationError as invalid:
        errors = invalid.errors(include_input=False, include_url=False, include_context=False)
        problems += [(str(error["loc"][0]).upper(), _rule(error)) for error in errors if error["loc"]]
        problems += _conflicts(set(raw), livemode=_is_live(raw.get("STRIPE_API_KEY", ""))).items()
    if settings is not None and not problems:
        return settings
    rules: dict[str, list[str]] = {}
    for name, rule in problems:
        rules.setdefault(name, []).append(rule)
    # Outside the except block: a chained ValidationError would carry the values into a traceback.
    raise SettingsError({name: "; ".join(several) for name, several in rules.items()})


def inherited_environment() -> dict[str, str]:
    """What a child process needs of this one's environment; nothing that configures the service is passed on."""
    configured = {field.upper() for field in Settings.model_fields}
    return {name: value for name, value in os.environ.items() if name not in configured}


def parent_pipe() -> int | None:
    """The file descriptor by which a process sees that its parent is gone, where a parent handed one over."""
    value = os.environ.get("COSEAT_PARENT_PIPE", "")
    return int(value) if value.isdigit() else None
