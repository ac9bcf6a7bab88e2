"""The configuration: a frozen model, filled from the environment at start.

Only `load_settings` reads the configuration from the environment. docs/reference/settings.md has all names, defaults
and meanings. A variable that is set to an empty text counts as not set.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from app.setting_events import EventSettings
from app.setting_needs import Process, conflicts, missing, misspelt
from app.setting_rules import (
    ALWAYS,
    check_claim,
    check_collector_url,
    check_cors_origin,
    check_database_url,
    check_email_claim,
    check_host,
    check_invitation_secrets,
    check_jwks_url,
    check_jwt_secret,
    check_metrics_token,
    check_origin_url,
    check_public_key,
    check_stripe_key,
    check_text,
    check_verified_claim,
    check_webhook_secrets,
    claim_path,
    hidden,
    is_live,
    lower,
    parse_json,
    split_commas,
)
from app.setting_service_keys import ServiceKeySettings, check_service_keys

ProrationBehavior = Literal["always_invoice", "create_prorations", "none"]
Catalogue = Literal["listed", "open"]
DatabasePooler = Literal["none", "transaction"]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]

Value = TypeVar("Value")


class SettingsError(Exception):
    """Raised if the environment does not configure this process.

    `problems` maps each variable to the rule that it breaks. Neither it nor the message holds a configured value.
    """

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        lines = "".join(f"\n  {name}: {rule}" for name, rule in self.problems.items())
        super().__init__(f"The configuration is not usable:{lines}")


def _check_aud_ignored(ignored: bool, info: ValidationInfo) -> bool:
    if ignored and info.data.get("auth_audience_claim") == "aud":
        raise ValueError("needs AUTH_AUDIENCE_CLAIM: the name of a claim other than `aud`")
    return ignored


RequestsPerSecond = Annotated[int, Field(ge=1, le=1_000_000)]


@dataclass(frozen=True, slots=True)
class JwtSettings:
    """How tokens of end users are verified.

    One of `secret`, `public_key` (PEM) and `jwks_url` is set. Without `email_verified_claim` every address is verified.
    """

    issuer: str
    audience: str
    customer_claim: tuple[str, ...]
    audience_claim: tuple[str, ...] = ("aud",)
    aud_ignored: bool = False
    email_claim: tuple[str, ...] = ("email",)
    email_verified_claim: tuple[str, ...] | None = ("email_verified",)
    secret: SecretStr | None = None
    public_key: str | None = None
    jwks_url: str | None = None


class Settings(EventSettings):
    """All variables of docs/reference/settings.md, validated.

    Secrets do not show in its repr.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    database_url: Annotated[SecretStr, AfterValidator(hidden(check_database_url))] | None = None
    database_pool_size: Annotated[int, Field(ge=2, le=100)] = 10
    """Connections per process: half of them for reads."""
    database_pooler: DatabasePooler = "none"
    """Whether DATABASE_URL leads to a pooler that may change the session between two transactions."""

    stripe_api_key: Annotated[SecretStr, AfterValidator(hidden(check_stripe_key))] | None = None
    stripe_api_base: Annotated[str, AfterValidator(check_origin_url)] | None = None
    stripe_webhook_secrets: Annotated[
        tuple[SecretStr, ...], BeforeValidator(split_commas), AfterValidator(check_webhook_secrets)
    ] = ()
    stripe_rate_limit: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Requests per second to Stripe, for all processes together. Stripe allows 100 live and 25 in a sandbox."""

    auth_jwt_secret: Annotated[SecretStr, AfterValidator(hidden(check_jwt_secret))] | None = None
    auth_jwt_public_key: Annotated[str, AfterValidator(check_public_key)] | None = None
    auth_jwks_url: Annotated[str, AfterValidator(check_jwks_url)] | None = None
    auth_issuer: Annotated[str, AfterValidator(check_text), Field(max_length=1024)] | None = None
    auth_audience: Annotated[str, AfterValidator(check_text), Field(max_length=1024)] | None = None
    auth_audience_claim: Annotated[str, AfterValidator(check_claim)] = "aud"
    auth_aud_ignored: Annotated[bool, AfterValidator(_check_aud_ignored)] = False
    auth_email_claim: Annotated[str, AfterValidator(check_email_claim)] = "email"
    auth_email_verified: Annotated[str, AfterValidator(check_verified_claim)] = "email_verified"
    auth_customer_claim: Annotated[str, AfterValidator(check_claim)] = "stripe_customer_id"
    service_keys: Annotated[
        tuple[ServiceKeySettings, ...], BeforeValidator(parse_json), AfterValidator(check_service_keys)
    ] = ()
    cors_origins: Annotated[
        tuple[Annotated[str, AfterValidator(check_cors_origin)], ...], BeforeValidator(split_commas)
    ] = ()

    catalogue: Catalogue = "listed"
    proration_behavior: ProrationBehavior = "always_invoice"
    owner_uses_seat: bool = False
    managers_manage_managers: bool = False
    managers_buy_seats: bool = False
    past_due_allows_new_seats: bool = False
    unsecured_raise_max: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 20.0
    """Percent of the paid quantity by which an end user may raise before the raise is paid, but at least 5 seats."""

    invitation_secrets: Annotated[
        tuple[SecretStr, ...], BeforeValidator(split_commas), AfterValidator(check_invitation_secrets)
    ] = ()
    """The first one signs the tokens of invitations, all verify."""
    invitation_days: Annotated[float, Field(gt=0, le=365, allow_inf_nan=False)] = 14.0
    """Days for which an invitation reserves its seat."""
    invitation_email_must_match: bool = False

    sync_margin: Annotated[int, Field(ge=0, le=60)] = 2
    """Whole seconds by which an event must be newer than a row's marker, so that its payload is applied."""
    operation_deadline: Annotated[float, Field(ge=1, le=60, allow_inf_nan=False)] = 8.0
    """Seconds that a request waits for its operation before it is answered 202."""
    operation_lease: Annotated[float, Field(ge=1, le=300, allow_inf_nan=False)] = 30.0
    """Seconds after which a worker takes over an operation whose process does not renew its lease."""
    late_window: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] = 300.0
    """Seconds for which a request without an answer may still take effect at Stripe."""

    payment_window: Annotated[float, Field(ge=1, le=23 * 3600, allow_inf_nan=False)] = 3600.0
    """Seconds for which a change may wait for its payment. Then it ends by itself, and nothing was bought."""

    journal_retention_days: Annotated[int, Field(ge=1, le=36500)] = 400
    """Days for which operations and the audit trail are kept."""

    memberships_per_customer: Annotated[int, Field(ge=1, le=40)] = 20
    """Shared subscriptions that have not ended and that one customer may be added to. 1 is the guide's own rule."""

    reconcile_interval: Annotated[float, Field(ge=0, le=24 * 31, allow_inf_nan=False)] = 24.0
    """Hours between the worker's reconciles. With 0, only an operator starts them."""

    read_rate_limit: RequestsPerSecond = 50
    """Requests per second of one end user, or of one customer that a key acts for, in one process."""
    write_rate_limit: RequestsPerSecond = 5
    """Writes, and reads that call Stripe, per second of the same callers, in all processes together."""
    service_read_rate_limit: RequestsPerSecond = 1000
    service_write_rate_limit: RequestsPerSecond = 50
    user_in_flight: Annotated[int, Field(ge=1, le=10_000)] = 4
    """Writes of one customer, or of one login without a customer, that one process runs at the same time."""
    service_key_in_flight: Annotated[int, Field(ge=1, le=10_000)] = 64
    """The same for a service key that acts for no customer."""
    anonymous_rate_limit: RequestsPerSecond = 50
    """Requests per second without a credential from one address, in one process."""
    max_requests: Annotated[int, Field(ge=1, le=10_000)] = 200
    """Requests that one process runs at the same time."""
    max_waiting_requests: Annotated[int, Field(ge=0, le=10_000)] = 200
    max_waiting_deliveries: Annotated[int, Field(ge=1, le=100_000)] = 2000
    """Webhook deliveries that one process may hold before they are committed."""
    request_deadline: Annotated[float, Field(ge=0.1, le=60, allow_inf_nan=False)] = 10.0
    """Seconds in which the head of a request has to arrive, and after it the body."""

    drain_seconds: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 5.0
    """Seconds for which a process goes on accepting after SIGTERM, while `/readyz` already answers 503."""

    docs: bool | None = None
    metrics: bool | None = None
    metrics_token: Annotated[SecretStr, AfterValidator(hidden(check_metrics_token))] | None = None

    otel_exporter_otlp_endpoint: Annotated[str, AfterValidator(check_collector_url)] | None = None
    """Where spans are sent. Without it nothing is traced."""

    host: Annotated[str, AfterValidator(check_host)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    worker_port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    """The port of a worker's own /healthz and /metrics. Without it a worker has none."""
    log_level: Annotated[LogLevel, BeforeValidator(lower)] = "info"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the constructor's arguments as the only source of values.

        So nothing else reads the environment.
        """
        return (init_settings,)

    @model_validator(mode="after")
    def _no_conflicts(self) -> Settings:
        present = {name.upper() for name in self.model_fields_set if getattr(self, name) is not None}
        if problems := conflicts(present, livemode=self.stripe_livemode):
            raise ValueError("; ".join(f"{name} {rule}" for name, rule in problems.items()))
        return self

    @property
    def stripe_livemode(self) -> bool:
        """Return True if the configured key moves real money, and False without a key."""
        return self.stripe_api_key is not None and is_live(self.stripe_api_key.get_secret_value())

    @property
    def shows_docs(self) -> bool:
        """Return True if /docs and /openapi.json exist.

        With a live key they exist only if `DOCS` says so.
        """
        return not self.stripe_livemode if self.docs is None else self.docs

    @property
    def shows_metrics(self) -> bool:
        """Return True if /metrics exists.

        With a live key it exists only with a token, or if `METRICS` says so.
        """
        if self.metrics is not None:
            return self.metrics
        return self.metrics_token is not None or not self.stripe_livemode

    @property
    def dsn(self) -> str:
        """Return `DATABASE_URL` as `postgresql://…`, with its password.

        Raises:
            SettingsError: If it is not set.
        """
        return _configured("DATABASE_URL", self.database_url).get_secret_value()

    @property
    def stripe_key(self) -> str:
        """Return the Stripe API key itself. Raises SettingsError if it is not set."""
        return _configured("STRIPE_API_KEY", self.stripe_api_key).get_secret_value()

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        """Return the webhook secrets, several while one is rotated.

        Raises:
            SettingsError: If there is none.
        """
        secrets = _configured("STRIPE_WEBHOOK_SECRETS", self.stripe_webhook_secrets or None)
        return tuple(secret.get_secret_value() for secret in secrets)

    @property
    def invitation_signing_secrets(self) -> tuple[str, ...]:
        """Return the secrets of invitations. Without one, nobody can be invited."""
        return tuple(secret.get_secret_value() for secret in self.invitation_secrets)

    @property
    def customer_claim_path(self) -> tuple[str, ...]:
        """Return the names that lead to the customer claim, from the top of a token."""
        return claim_path(self.auth_customer_claim)

    @property
    def verifies_every_email(self) -> bool:
        """Return True if the issuer verifies every address, so that no claim has to say it."""
        return self.auth_email_verified == ALWAYS

    @property
    def jwt(self) -> JwtSettings | None:
        """Return how tokens are verified, or None if none is accepted.

        None is accepted unless key, issuer and audience are all set.
        """
        has_key = self.auth_jwt_secret or self.auth_jwt_public_key or self.auth_jwks_url
        if not has_key or self.auth_issuer is None or self.auth_audience is None:
            return None
        return JwtSettings(
            issuer=self.auth_issuer,
            audience=self.auth_audience,
            customer_claim=self.customer_claim_path,
            audience_claim=claim_path(self.auth_audience_claim),
            aud_ignored=self.auth_aud_ignored,
            email_claim=claim_path(self.auth_email_claim),
            email_verified_claim=None if self.verifies_every_email else claim_path(self.auth_email_verified),
            secret=self.auth_jwt_secret,
            public_key=self.auth_jwt_public_key,
            jwks_url=self.auth_jwks_url,
        )


def _configured(name: str, value: Value | None) -> Value:
    if value is None:
        raise SettingsError({name: "is required"})
    return value


def _rule(error: Mapping[str, Any]) -> str:
    # The name of an unknown member is left out: the operator may have pasted a key into the wrong place.
    known = (
        part for part in error["loc"][1:] if isinstance(part, int) or part in ServiceKeySettings.model_fields
    )
    path = ".".join(str(part) for part in known)
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{path}: {message}" if path else message


def load_settings(environ: Mapping[str, str] | None = None, *, process: Process = "serve") -> Settings:
    """Return the settings of the environment, checked for the needs of `process`.

    `environ` replaces the environment.

    Raises:
        SettingsError: Lists all missing and invalid variables at once.
    """
    source = os.environ if environ is None else environ
    raw = given_settings(source)
    problems = list(misspelt(source, set(_names())).items())
    problems += missing(process, set(raw)).items()
    settings: Settings | None = None
    try:
        settings = Settings(**{name.lower(): text for name, text in raw.items()})  # type: ignore[arg-type]  # pydantic parses the texts
    except ValidationError as invalid:
        errors = invalid.errors(include_input=False, include_url=False, include_context=False)
        problems += [(str(error["loc"][0]).upper(), _rule(error)) for error in errors if error["loc"]]
        problems += conflicts(set(raw), livemode=is_live(raw.get("STRIPE_API_KEY", ""))).items()
    if settings is not None and not problems:
        return settings
    rules: dict[str, list[str]] = {}
    for name, rule in problems:
        rules.setdefault(name, []).append(rule)
    # This is outside of the `except` block, because a chained ValidationError would show the values in a traceback.
    raise SettingsError({name: "; ".join(several) for name, several in rules.items()})


def inherited_environment() -> dict[str, str]:
    """Return the environment for a child process.

    It is without the variables that configure the service.
    """
    configured = _names()
    return {name: value for name, value in os.environ.items() if name not in configured}


def given_settings(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that configure the service, without space around them. An empty one counts as absent.

    `environ` replaces the environment.
    """
    source = os.environ if environ is None else environ
    return {name: text for name in _names() if (text := source.get(name, "").strip())}


def _names() -> list[str]:
    return [field.upper() for field in Settings.model_fields]


def parent_pipe() -> int | None:
    """Return the file descriptor that closes when the parent process ends.

    It is None if the parent gave none.
    """
    value = os.environ.get("COSEAT_PARENT_PIPE", "")
    return int(value) if value.isdigit() else None
