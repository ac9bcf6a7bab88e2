"""Read and build the metadata keys that Coseat uses at Stripe. No other module names them.

Stripe does not trim values that are entered in its Dashboard. So values are read without surrounding ASCII white
space, and flags and roles in lower case. A value with any other error gives no rights: an unknown role is a plain
user, and an unreadable subscription id is no membership. `membership_problems` and `owner_problems` return what an
operator should correct.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from app.domain.ids import NOBODY, CustomerId, SubscriptionId, is_free_id, is_subscription_id

SUPPORTS_SHARING = "billing_supports_shared_subscriptions"
# Stripe accepts at most 40 characters for a key, so the name has no room for "uses".
# https://docs.stripe.com/api/metadata
OWNER_USES_SEAT = "billing_shared_subscription_owner_seat"
SELLABLE = "billing_sellable"
OWNER = "billing_shared_subscription_owner"
MEMBER_OF = "billing_shared_subscription_id"
MEMBER_ROLE = "billing_shared_subscription_role"
FURTHER_PREFIX = "billing_"
"""A further membership's key is this prefix and the subscription's id; its value is the role."""
USER_ID = "billing_user_id"
OPERATION_ID = "billing_operation_id"

REPLACED = "\ufffd"
"""What a text holds in place of characters that cannot be stored."""
ASCII_WHITE_SPACE = " \t\n\r\f\v"
# The prefix leaves 32 of the 40 characters of a key. Letters and digits exclude the ids of schedules (`sub_sched_`).
_FURTHER_KEY = re.compile(rf"{FURTHER_PREFIX}(sub_[A-Za-z0-9]{{1,28}})", re.ASCII)
_LOOKS_FURTHER = f"{FURTHER_PREFIX}sub_"
_SEAT_KEYS = frozenset({MEMBER_OF, MEMBER_ROLE, OPERATION_ID})
_ROLES = frozenset({"user", "manager"})

Metadata = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Membership:
    """The seat that the guide's two keys name: one subscription, and the role `user` or `manager`."""

    subscription_id: SubscriptionId
    role: str


def stripped(metadata: Metadata, key: str) -> str:
    """Return the value of `key` without surrounding ASCII white space, "" if it is missing."""
    value = metadata.get(key)
    return value.strip(ASCII_WHITE_SPACE) if isinstance(value, str) else ""


def flag(metadata: Metadata, key: str) -> bool:
    """Return True if the value of `key` is true."""
    return stripped(metadata, key).lower() == "true"


def optional_flag(metadata: Metadata, key: str) -> bool | None:
    """Return the value of `key`, or None if it is neither true nor false, so that the setting decides."""
    return {"true": True, "false": False}.get(stripped(metadata, key).lower())


def owner_of(metadata: Metadata) -> CustomerId | None:
    """Return the owner that a subscription's metadata names.

    None if the key is missing: then the customer who pays is the owner. NOBODY if no customer can have such an id. Any
    other value is judged by whether that customer exists, because ids from before 2018 have no form.
    """
    if OWNER not in metadata:
        return None
    value = stripped(metadata, OWNER)
    return CustomerId(value) if is_free_id(value) else NOBODY


def membership_of(metadata: Metadata) -> Membership | None:
    """Return the membership that the guide's two keys name.

    None if they name no subscription id, or if the role holds characters that cannot be stored.
    """
    value = stripped(metadata, MEMBER_OF)
    if not is_subscription_id(value) or REPLACED in metadata.get(MEMBER_ROLE, ""):
        return None
    role = "manager" if stripped(metadata, MEMBER_ROLE).lower() == "manager" else "user"
    return Membership(SubscriptionId(value), role)


def further_memberships_of(metadata: Metadata) -> dict[str, str]:
    """Return the roles of the further keys by subscription id, those of the guide's subscription included."""
    found: dict[str, str] = {}
    for key in metadata:
        named = _FURTHER_KEY.fullmatch(key)
        role = stripped(metadata, key).lower()
        if named is not None and role in _ROLES:
            found[named[1]] = role
    return found


def further_key(subscription_id: SubscriptionId) -> str | None:
    """Return the key of a further membership of this subscription, None if its id is too long for a key."""
    key = f"{FURTHER_PREFIX}{subscription_id}"
    return key if _FURTHER_KEY.fullmatch(key) else None


def is_seat_key(key: str) -> bool:
    """Return True for the keys that the service writes to a customer that it creates for a seat, or gives a seat."""
    return key in _SEAT_KEYS or key.startswith(_LOOKS_FURTHER)


def text(metadata: Metadata, key: str) -> str | None:
    """Return the stripped value of a key that only programs write, None if it is empty."""
    return stripped(metadata, key) or None


def membership_values(subscription_id: SubscriptionId, role: str) -> dict[str, str]:
    """Return the metadata that makes a customer a member. `role` is `user` or `manager`."""
    return {MEMBER_OF: subscription_id, MEMBER_ROLE: role}


def no_membership_values() -> dict[str, str]:
    """Return the metadata that ends a membership. Stripe removes a key that is set to the empty string."""
    return {MEMBER_OF: "", MEMBER_ROLE: ""}


def shows(metadata: Metadata, written: Mapping[str, str]) -> bool:
    """Return True if the metadata has the values that were written. A written "" means that the key is missing."""
    return all(metadata.get(name, "") == value for name, value in written.items())


def membership_problems(metadata: Metadata) -> dict[str, str]:
    """Return the problems of a customer's membership keys, by key, for the report of `coseat doctor`.

    A problem is a value that gives the customer less than its author probably intended.
    """
    found: dict[str, str] = {}
    if (value := stripped(metadata, MEMBER_OF)) and not is_subscription_id(value):
        found[MEMBER_OF] = "names no subscription id"
    role = stripped(metadata, MEMBER_ROLE).lower()
    if REPLACED in role:
        found[MEMBER_ROLE] = "is neither user nor manager: gives no seat"
    elif role not in ("", "user", "manager"):
        found[MEMBER_ROLE] = "is neither user nor manager: treated as user"
    if role and not stripped(metadata, MEMBER_OF):
        found[MEMBER_OF] = "is missing beside a role"
    guide = membership_of(metadata)
    for key in metadata:
        if key.startswith(_LOOKS_FURTHER) and stripped(metadata, key):
            problem = _further_problem(key, stripped(metadata, key).lower(), guide)
            if problem is not None:
                found[key] = problem
    return found


def _further_problem(key: str, role: str, guide: Membership | None) -> str | None:
    named = _FURTHER_KEY.fullmatch(key)
    if named is None:
        return "names no subscription id"
    if role not in _ROLES:
        return "is neither user nor manager: gives no seat"
    if guide is not None and guide.subscription_id == named[1] and guide.role != role:
        return f"differs from {MEMBER_ROLE}, which counts"
    return None


def owner_problems(metadata: Metadata) -> dict[str, str]:
    """Return the problem of a subscription's owner key, by key, for the report of `coseat doctor`."""
    return {OWNER: "names no customer id"} if owner_of(metadata) == NOBODY else {}
