"""The signing secrets of webhook endpoints: shown once, encrypted at rest."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from app.errors import ServiceUnavailable

_BYTES = 32


class EndpointSecrets:
    """Make, encrypt and decrypt secrets. The first key encrypts, all decrypt."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._box = MultiFernet([Fernet(key) for key in keys]) if keys else None

    @property
    def are_available(self) -> bool:
        """Return True if there is a key."""
        return self._box is not None

    def make(self) -> str:
        """Return a new secret in the form of Standard Webhooks."""
        return "whsec_" + base64.b64encode(os.urandom(_BYTES)).decode()

    def encrypt(self, secret: str) -> str:
        """Return the secret as it is stored.

        Raises:
            ServiceUnavailable: `webhooks_unavailable` without a key.
        """
        return self._opened().encrypt(secret.encode()).decode()

    def decrypt(self, stored: str) -> str:
        """Return the secret itself.

        Raises:
            ServiceUnavailable: `webhooks_unavailable` without a key, or if no key fits.
        """
        try:
            return self._opened().decrypt(stored.encode()).decode()
        except InvalidToken:
            raise ServiceUnavailable(
                "No key of WEBHOOK_ENCRYPTION_KEYS decrypts this endpoint's secret. Ask the operator to add the key.",
                code="webhooks_unavailable",
            ) from None

    def _opened(self) -> MultiFernet:
        if self._box is None:
            raise ServiceUnavailable(
                "Webhook endpoints need the setting WEBHOOK_ENCRYPTION_KEYS. Ask the operator to set it.",
                code="webhooks_unavailable",
            )
        return self._box
