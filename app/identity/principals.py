"""Principals: the sender of a request, as far as the credential identifies it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

from app.domain.ids import CustomerId
from app.setting_service_keys import Scope


@dataclass(frozen=True)
class EndUser:
    """A person with a verified token.

    `issuer` and `subject` identify them, an e-mail never does. `email` has its ASCII letters lowered.
    `customer_claim` is the customer that the issuer names for this login. `expires` is the Unix second at which the
    token expires.
    """

    issuer: str
    subject: str
    email: str | None = field(default=None, repr=False)
    email_verified: bool = False
    customer_claim: CustomerId | None = None
    expires: float | None = field(default=None, compare=False)

    @property
    def verified_email(self) -> str | None:
        """Return the address that the issuer vouches for, or None."""
        return self.email if self.email_verified else None

    @cached_property
    def key(self) -> str:
        """Return a stable name for idempotency and audit.

        It is a hash, because some subjects are e-mails.
        """
        digest = hashlib.sha256(f"{len(self.issuer)}:{self.issuer}{self.subject}".encode()).hexdigest()
        return f"user:{digest[:40]}"


@dataclass(frozen=True)
class ServiceKey:
    """A back end with a key, limited to `scopes`.

    With `acting_customer` it is also limited to that customer's rights.
    """

    name: str
    scopes: frozenset[Scope]
    acting_customer: CustomerId | None = None

    @cached_property
    def key(self) -> str:
        """Return a stable name for idempotency and audit.

        A key that acts for a customer has a name of its own.
        """
        return f"service:{self.name}" + (f":{self.acting_customer}" if self.acting_customer else "")


@dataclass(frozen=True)
class Anonymous:
    """A caller without a credential, who may only read the catalogue."""

    key: str = field(default="anonymous", init=False)


Principal = EndUser | ServiceKey | Anonymous
