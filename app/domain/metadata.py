"""The keys that Coseat reads and writes in Stripe metadata: spelled here alone, parsed and built here alone.

Stripe does not trim what is typed in its Dashboard (the guide warns of it), so a value is read with ASCII white
space stripped and flags and roles in lower case. Anything odder gives no authority: an unknown role is a plain
user, an unreadable subscription id is no membership, and `metadata_problems` names what an operator should mend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.domain.ids import CustomerId, SubscriptionId, is_customer_id, is_subscription_id

SUPPORTS_SHARING = "billing_supports_shared_subscriptions"
# Stripe takes at most 40 characters for a key: with "uses" in it this one could never be set.
OWNER_USES_SEAT = "billing_shared_subscription_owner_seat"
SELLABLE = "billing_sellable"
OWNER = "billing_shared_subscription_owner"
MEMBER_OF = "billing_shared_subscription_id"
MEMBER_ROLE = "billing_shared_subscription_role"
USER_ID = "billing_user_id"
OPERATION_ID = "billing_operation_id"

ASCII_WHITE_SPACE = " \t\n\r\f\v"

Metadata = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Membership:
    """What a customer's metadata says of a seat: at most one subscription, and a role that is user or manager."""

    subscription_id: SubscriptionId
    role: str


def stripped(metadata: Metadata, key: str) -> str:
    value = metadata.get(key)
    return value.strip(ASCII_WHITE_SPACE) if isinstance(value, str) else ""


def flag(metadata: Metadata, key: str) -> bool:
    return stripped(metadata, key).lower() == "true"


def optional_flag(metadata: Metadata, key: str) -> bool | None:
    """None where the key says neither true nor false: the setting decides then."""
    return {"true": True, "false": False}.get(stripped(metadata, key).lower())


def owner_of(metadata: Metadata) -> CustomerId | None:
    value = stripped(metadata, OWNER)
    return CustomerId(value) if is_customer_id(value) else None


def membership_of(metadata: Metadata) -> Membership | None:
    value = stripped(metadata, MEMBER_OF)
    if not is_subscription_id(value):
        return None
    role = "manager" if stripped(metadata, MEMBER_ROLE).lower() == "manager" else "user"
    return Membership(SubscriptionId(value), role)


def text(metadata: Metadata, key: str) -> str | None:
    """A value of ours that is written by machines: trimmed, absent when empty."""
    return stripped(metadata, key) or None


def membership_values(subscription_id: SubscriptionId, role: str) -> dict[str, str]:
    return {MEMBER_OF: subscription_id, MEMBER_ROLE: role}


def no_membership_values() -> dict[str, str]:
    """Stripe removes a key that is set to the empty string; None would not be sent at all."""
    return {MEMBER_OF: "", MEMBER_ROLE: ""}


def shows(metadata: Metadata, written: Mapping[str, str]) -> bool:
    """Has this metadata what was written? Of a key that was removed, nothing."""
    return all(metadata.get(name, "") == value for name, value in written.items())


def membership_problems(metadata: Metadata) -> dict[str, str]:
    """What of a customer's membership keys confers less than its writer meant; the doctor's report lists it."""
    found: dict[str, str] = {}
    if stripped(metadata, MEMBER_OF) and membership_of(metadata) is None:
        found[MEMBER_OF] = "names no subscription id"
    role = stripped(metadata, MEMBER_ROLE).lower()
    if role not in ("", "user", "manager"):
        found[MEMBER_ROLE] = "is neither user nor manager: treated as user"
    if role and not stripped(metadata, MEMBER_OF):
        found[MEMBER_OF] = "is missing beside a role"
    return found


def owner_problems(metadata: Metadata) -> dict[str, str]:
    if stripped(metadata, OWNER) and owner_of(metadata) is None:
        return {OWNER: "names no customer id"}
    return {}
