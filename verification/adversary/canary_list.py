"""Secrets and personal data that can be told apart wherever they turn up, and where each may be found.

Every value holds a mark of its own, or is one; a mark is searched for without regard to case.
"""

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

Column = tuple[str, str]
"""Table and column."""

REPLAYED = ("idempotency_keys", "body")
"""The first answer to an Idempotency-Key, kept for 24 hours to be given to the same caller again."""


@dataclass(frozen=True)
class Canary:
    """`columns`: where it is kept, and why; `told`: a problem may repeat it to the caller who sent it,
    because it says which of his entries is meant; `posted`: an endpoint is sent it with `invitation.created`."""

    name: str
    value: str
    marks: tuple[str, ...]
    columns: Mapping[Column, str] = field(default_factory=dict)
    told: bool = False
    posted: bool = False


def _mark() -> str:
    return f"cnry{secrets.token_hex(7)}"


def _holding(
    name: str,
    shape: str,
    columns: Mapping[Column, str] | None = None,
    *,
    told: bool = False,
    posted: bool = False,
) -> Canary:
    """`shape` with its one pair of braces filled by the mark."""
    mark = _mark()
    return Canary(name, shape.format(mark), (mark,), columns or {}, told, posted)


def _encryption_key() -> Canary:
    key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    return Canary("encryption key", key, (key.rstrip("="),))


_PROFILE = "the profile that its customer and the members of his plan are shown"
_TYPED = "typed by an adder; what the plan shows until the person logs in"
_SUBJECT: dict[Column, str] = dict.fromkeys(
    (("customers", "user_id"), ("identities", "subject")), "names whose customer this is"
)
_TYPED_COLUMNS: dict[Column, str] = {
    ("customers", "email"): _TYPED,
    ("operation_steps", "email"): _TYPED,
    ("reservations", "email"): _TYPED,
    ("member_records", "typed_email"): _TYPED,
    ("seat_customers", "email"): _TYPED,
}


@dataclass(frozen=True)
class Canaries:
    """Those whose values are chosen here; the stand-in's own are added as they are made."""

    stripe_key: Canary = field(default_factory=lambda: _holding("Stripe API key", "sk_test_{}"))
    webhook_secret: Canary = field(default_factory=lambda: _holding("webhook secret", "whsec_{}"))
    jwt_secret: Canary = field(default_factory=lambda: _holding("JWT secret", "{}" + secrets.token_hex(16)))
    invitation_secret: Canary = field(
        default_factory=lambda: _holding("invitation secret", "{}" + secrets.token_hex(16))
    )
    encryption_key: Canary = field(default_factory=_encryption_key)
    endpoint_query: Canary = field(
        default_factory=lambda: _holding(
            "query of an endpoint's URL",
            "{}",
            {("webhook_endpoints", "url"): "where events are posted", REPLAYED: "shows the endpoint"},
        )
    )
    endpoint_description: Canary = field(
        default_factory=lambda: _holding(
            "description of an endpoint",
            "calls {}",
            {("webhook_endpoints", "description"): "a note for operators", REPLAYED: "shows the endpoint"},
        )
    )
    endpoint_password: Canary = field(default_factory=lambda: _holding("password in a URL", "{}"))
    endpoint_answer: Canary = field(default_factory=lambda: _holding("answer of an endpoint", "{}"))
    service_key: Canary = field(default_factory=lambda: _holding("service key", "csk_{}"))
    database_password: Canary = field(default_factory=lambda: _holding("database password", "pw{}"))
    metrics_token: Canary = field(default_factory=lambda: _holding("metrics token", "mt_{}"))
    forged_token: Canary = field(default_factory=lambda: _holding("forged bearer token", "ey{}.e30.x"))
    subject: Canary = field(default_factory=lambda: _holding("login's subject", "auth0|{}", _SUBJECT))
    email: Canary = field(
        default_factory=lambda: _holding(
            "customer e-mail",
            "{}@example.com",
            {
                ("customers", "email"): _PROFILE,
                ("identities", "email"): "verified by the login's token, and reaches the seats given to it",
                REPLAYED: _PROFILE,
            },
        )
    )
    name: Canary = field(
        default_factory=lambda: _holding(
            "customer name", "Mara {} Muster", {("customers", "name"): _PROFILE, REPLAYED: _PROFILE}
        )
    )
    phone: Canary = field(
        default_factory=lambda: Canary(
            "customer phone",
            number := f"+49 30 {secrets.randbelow(10**9):09d}",
            (number, number.replace(" ", "")),
            {("customers", "phone"): _PROFILE, REPLAYED: _PROFILE},
        )
    )
    address: Canary = field(default_factory=lambda: _holding("customer address", "{} Street 1"))
    description: Canary = field(default_factory=lambda: _holding("customer description", "owes {}"))
    card_holder: Canary = field(default_factory=lambda: _holding("card holder", "{} Holder"))
    metadata: Canary = field(default_factory=lambda: _holding("foreign metadata value", "crm-{}"))
    odd_role: Canary = field(default_factory=lambda: _holding("odd role in the metadata", "boss {}"))
    typed_email: Canary = field(
        default_factory=lambda: _holding(
            "member e-mail", "{}@example.org", {**_TYPED_COLUMNS, REPLAYED: "names whom it added"}, told=True
        )
    )
    refused_email: Canary = field(
        default_factory=lambda: _holding(
            "refused member e-mail",
            "{}@example.net",
            _TYPED_COLUMNS,
            told=True,
        )
    )
    invited_email: Canary = field(
        default_factory=lambda: _holding(
            "invited e-mail",
            "{}@example.edu",
            {
                ("invitations", "email"): "what the invitation was typed for",
                REPLAYED: "names the person who was invited",
            },
            posted=True,
        )
    )
    searched: Canary = field(default_factory=lambda: _holding("search text", "{}"))
    idempotency_key: Canary = field(
        default_factory=lambda: _holding(
            "Idempotency-Key", "key-{}", {("idempotency_keys", "key"): "found again by it"}
        )
    )
    promotion_code: Canary = field(default_factory=lambda: _holding("promotion code", "{}"))
    reason: Canary = field(
        default_factory=lambda: _holding(
            "reason of a cancellation",
            "because {}",
            {("operations", "request"): "sent to Stripe again should its answer get lost"},
        )
    )
    bad_input: Canary = field(default_factory=lambda: _holding("text in bad input", "{}"))
    unknown_field: Canary = field(
        default_factory=lambda: _holding("name of an unknown field", "{}", told=True)
    )
    stripe_message: Canary = field(default_factory=lambda: _holding("Stripe's error message", "No such {}"))
    webhook_text: Canary = field(default_factory=lambda: _holding("text in a bad delivery", "{}"))

    def all(self) -> list[Canary]:
        return [getattr(self, name) for name in self.__dataclass_fields__]
