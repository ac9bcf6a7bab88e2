"""Transfers of ownership, and the audit trail."""

from __future__ import annotations

from typing import Literal

from app.domain.snapshots import JsonObject
from app.http.schemas import Answer, CustomerIdText, Instant, Page, Request


class TransferRequest(Request):
    """`allow_purchases`: the new owner may buy on the paying customer's account. `keep_me_as`: stay as a member."""

    to_customer_id: CustomerIdText
    allow_purchases: bool = False
    keep_me_as: Literal["user", "manager"] | None = None


class Transfer(Answer):
    """An offer of ownership; it expires 14 days after it was made."""

    subscription_id: str
    from_customer_id: str | None
    to_customer_id: str
    allow_purchases: bool
    keep_me_as: Literal["user", "manager"] | None
    state: Literal["offered", "accepted", "declined", "withdrawn", "expired"]
    operation_id: str | None
    created_at: Instant
    expires_at: Instant


class TransferAnswer(Answer):
    """The newest offer; null if no offer concerns the caller."""

    transfer: Transfer | None


class OfferedTransfer(TransferAnswer):
    """The offer as it was made. `transfer` is null if the payer has become the owner at once."""

    pending: Literal[False]


class AuditEvent(Answer):
    """`source`: api for what this service did, dashboard or stripe for what it saw; `service` names a service key.

    `late_effect`: a write that took effect after its operation had been settled. A payer who is not owner sees the
    entries about the subscription itself, and as actors only themselves and the owner.
    """

    id: str
    at: Instant
    source: Literal["api", "dashboard", "reconcile"]
    action: Literal[
        "member_added",
        "member_removed",
        "role_changed",
        "subscription_changed",
        "purchases_allowed",
        "purchases_withdrawn",
        "late_effect",
        "invitation_created",
        "invitation_resent",
        "invitation_accepted",
        "invitation_declined",
        "invitation_expired",
        "invitation_revoked",
    ]
    customer_id: str | None
    before: JsonObject
    after: JsonObject
    operation_id: str | None
    actor_customer_id: str | None
    service: str | None


class AuditEventList(Page):
    """Entries of the audit trail, newest first."""

    data: list[AuditEvent]
