"""Service keys of other back ends: random secrets of which only the SHA-256 is configured.

A plain hash is enough because the key is 256 random bits, not a password.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable

from app.settings import ServiceKeySettings

PREFIX = "csk_"


def generate_service_key() -> tuple[str, str]:
    """A new key and its SHA-256 for `SERVICE_KEYS`; the key itself is shown once and kept nowhere."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, sha256_of(key)


def sha256_of(key: str) -> str:
    """The hexadecimal SHA-256 under which a key is configured."""
    return hashlib.sha256(key.encode()).hexdigest()


class ServiceKeyRing:
    """All active keys; several per back end while one is rotated."""

    def __init__(self, keys: Iterable[ServiceKeySettings]) -> None:
        self._keys = tuple((key.sha256.encode(), key) for key in keys)

    def find(self, credential: str) -> ServiceKeySettings | None:
        """The settings of `credential`, or None. Every key is compared, each in constant time."""
        if not credential.isascii():
            return None
        digest = sha256_of(credential).encode()
        found: ServiceKeySettings | None = None
        for expected, key in self._keys:
            if hmac.compare_digest(expected, digest):
                found = key
        return found
