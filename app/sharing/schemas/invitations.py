"""Invitations: requests, and answers to inviters and invited people."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from app.http.schemas import Answer, Email, Instant, Page, Request, Seats
from app.operations.schemas import MemberRole

InvitationState = Literal["open", "accepted", "declined", "expired", "revoked"]


class NewInvitationRequest(Request):
    """Invite an address; its seat is reserved until the invitation ends."""

    email: Email
    role: MemberRole = "user"


class ResendRequest(Request):
    """Nothing is needed."""


class TokenRequest(Request):
    """The token of an invitation. It is sent in the body, so that it stands in no log of addresses."""

    token: Annotated[str, Field(min_length=1, max_length=200)]


class Inviter(Answer):
    """The customer who invited."""

    customer_id: str
    name: str | None


class Invitation(Answer):
    """An invitation.

    `email` is as it was typed, and null 30 days after the end. `invited_by` is null if a service key invited. `reason`
    says why it was revoked, and is null if somebody revoked it. `renewable`: it expired, or its inviter lost the right
    to invite, so an owner may want to invite the address again.
    """

    id: str
    subscription_id: str
    email: str | None
    role: MemberRole
    state: InvitationState
    reason: (
        Literal[
            "added",
            "inviter_removed",
            "inviter_demoted",
            "owner_changed",
            "right_lost",
            "subscription_ended",
            "person_erased",
        ]
        | None
    )
    created: Instant
    expires_at: Instant
    invited_by: Inviter | None
    renewable: bool


class InvitationAnswer(Answer):
    """An invitation, and the seats of its subscription.

    `token` is given to a service key with the scope `write`, which sends it to the person. It is null for end users.
    """

    invitation: Invitation
    seats: Seats
    token: str | None


class InvitationList(Page):
    """Invitations, newest first."""

    data: list[Invitation]


class InvitationProduct(Answer):
    """The product that the seat is for. `name` is null until the product is mirrored."""

    id: str
    name: str | None


class InviterName(Answer):
    """The name of the customer who invited."""

    name: str | None


class InvitationLookup(Answer):
    """What an invitation is for. `inviter` is null if a service key invited."""

    product: InvitationProduct
    inviter: InviterName | None
    role: MemberRole
    expires_at: Instant
