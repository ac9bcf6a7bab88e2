"""The configuration of `coseat dev`: its secrets, its defaults, and what the environment says instead."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.fernet import Fernet

from app.identity.service_keys import generate_service_key
from app.operating.dev.private_files import write_private

STRIPE_KEY: Final = "sk_test_demo"
OWN_PARTS: Final = ("DATABASE_URL", "STRIPE_API_KEY", "STRIPE_API_BASE", "STRIPE_WEBHOOK_SECRETS", "HOST")
"""Variables that name what `coseat dev` starts by itself. The environment cannot replace these parts."""
_KEYS_OF_TOKENS: Final = ("AUTH_JWT_SECRET", "AUTH_JWT_PUBLIC_KEY", "AUTH_JWKS_URL")


@dataclass(frozen=True, slots=True)
class DevelopmentSecrets:
    """Secrets that are made at the first start and kept with the state.

    So tokens are valid after a restart.
    """

    jwt_secret: str
    webhook_secret: str
    service_key: str
    invitation_secret: str
    encryption_key: str


def kept_secrets(path: Path) -> DevelopmentSecrets:
    """Return the secrets of the state. Those that an older release did not know are made now."""
    made = {
        "jwt_secret": secrets.token_urlsafe(48),
        "webhook_secret": f"whsec_{secrets.token_urlsafe(24)}",
        "service_key": generate_service_key()[0],
        "invitation_secret": secrets.token_urlsafe(48),
        "encryption_key": Fernet.generate_key().decode(),
    }
    kept = json.loads(path.read_text()) if path.exists() else {}
    if kept.keys() != made.keys():
        write_private(path, json.dumps({**made, **kept}))
    return DevelopmentSecrets(**{**made, **kept})


def configured(
    own: DevelopmentSecrets, given: Mapping[str, str], *, database: str, stripe: str, port: int
) -> dict[str, str]:
    """Return the variables of the service: the parts that `coseat dev` starts, then `given`, then the defaults.

    The development key is added to the service keys of `given`. A key of `given` that verifies tokens replaces the
    secret that `coseat dev` signs them with.
    """
    parts = {
        "DATABASE_URL": database,
        "STRIPE_API_KEY": STRIPE_KEY,
        "STRIPE_API_BASE": stripe,
        "STRIPE_WEBHOOK_SECRETS": own.webhook_secret,
        "HOST": "127.0.0.1",
        "PORT": str(port),
    }
    defaults = {
        **token_settings(own, given),
        "INVITATION_SECRETS": own.invitation_secret,
        "WEBHOOK_ENCRYPTION_KEYS": own.encryption_key,
        "CORS_ORIGINS": "http://localhost:3000,http://localhost:5173",
        "DRAIN_SECONDS": "0",
        "LOG_LEVEL": "warning",
    }
    return {**defaults, **given, **parts, "SERVICE_KEYS": _service_keys(own, given.get("SERVICE_KEYS"))}


def token_settings(own: DevelopmentSecrets, given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which tokens are signed and verified."""
    named = {name: value for name, value in given.items() if name.startswith("AUTH_")}
    defaults = {"AUTH_ISSUER": "https://auth.coseat.localhost", "AUTH_AUDIENCE": "coseat-development"}
    if named.keys().isdisjoint(_KEYS_OF_TOKENS):
        defaults["AUTH_JWT_SECRET"] = own.jwt_secret
    return {**defaults, **named}


def _service_keys(own: DevelopmentSecrets, given: str | None) -> str:
    """Return the service keys of the environment and the development key. What is no list is left for the settings."""
    digest = hashlib.sha256(own.service_key.encode()).hexdigest()
    development = {"name": "development", "sha256": digest, "scopes": ["read", "write", "admin"]}
    try:
        keys: Any = json.loads(given or "[]")
    except json.JSONDecodeError:
        keys = None
    return json.dumps([*keys, development]) if isinstance(keys, list) else str(given)
