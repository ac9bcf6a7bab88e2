"""Who a request comes from, as far as its credential alone tells."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

from app.domain.ids import CustomerId
from app.settings import Scope


@dataclass(frozen=True)
class EndUser:
    """A person with a verified token; `issuer` and `subject` together identify them, an e-mail never does.

    `email` is in NFC and lower case. `customer_claim` is the customer that the issuer vouches for.
    """

    issuer: str
    subject: str
    email: str | None = field(default=None, repr=False)
    email_verified: bool = False
    customer_claim: CustomerId | None = None

    @cached_property
    def key(self) -> str:
        """A stable name for idempotency and audit; hashed, as some issuers' subjects are e-mails."""
        digest = hashlib.sha256(f"{len(self.issuer)}:{self.issuer}{self.subject}".encode()).hexdigest()
        return f"user:{digest[:40]}"


@dataclass(frozen=True)
class ServiceKey:
    """A back end with a key: limited to `scopes`, and to `acting_customer`'s rights where one is named."""

    name: str
    scopes: frozenset[Scope]
    acting_customer: CustomerId | None = None

    @cached_property
    def key(self) -> str:
        """A stable name for idempotency and audit; a key acting for a customer is a principal of its own."""
        return f"service:{self.name}" + (f":{self.acting_customer}" if self.acting_customer else "")


@dataclass(frozen=True)
class Anonymous:
    """No credential at all; enough for the public catalogue only."""

    key: str = field(default="anonymous", init=False)


Principal = EndUser | ServiceKey | Anonymous
