"""Service keys of other back ends. The settings hold only the SHA-256 of each key.

A plain hash is enough, because a key is 256 random bits and cannot be guessed like a password.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable

from app.setting_service_keys import ServiceKeySettings

PREFIX = "csk_"


def generate_service_key() -> tuple[str, str]:
    """Return a new key and its SHA-256 for `SERVICE_KEYS`.

    The key itself is not stored.
    """
    key = PREFIX + secrets.token_urlsafe(32)
    return key, sha256_of(key)


def new_service_key(name: str, scopes: Iterable[str]) -> tuple[str, ServiceKeySettings]:
    """Return a new key, and its entry of `SERVICE_KEYS`.

    Raises:
        pydantic.ValidationError: the name or a scope breaks a rule of the setting.
    """
    key, sha256 = generate_service_key()
    entry = {"name": name, "sha256": sha256, "scopes": frozenset(scopes)}
    return key, ServiceKeySettings.model_validate(entry)


def sha256_of(key: str) -> str:
    """Return the SHA-256 of a key in hexadecimal digits, as `SERVICE_KEYS` holds it."""
    return hashlib.sha256(key.encode()).hexdigest()


class ServiceKeyRing:
    """All configured keys. A back end has two while its key is rotated."""

    def __init__(self, keys: Iterable[ServiceKeySettings]) -> None:
        self._keys = tuple((key.sha256.encode(), key) for key in keys)

    def find(self, credential: str) -> ServiceKeySettings | None:
        """Return the settings of `credential`, or None.

        Every key is compared, each in constant time.
        """
        if not credential.isascii():
            return None
        digest = sha256_of(credential).encode()
        found: ServiceKeySettings | None = None
        for expected, key in self._keys:
            if hmac.compare_digest(expected, digest):
                found = key
        return found
