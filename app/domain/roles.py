"""Find a customer's roles on a subscription, and the permissions that the roles give."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import NamedTuple

from app.domain.ids import CustomerId
from app.errors import Forbidden


class Role(StrEnum):
    """A customer's role on a subscription.

    The payer pays for a shared subscription that another customer owns, or whose owner does not exist.
    """

    OWNER = "owner"
    MANAGER = "manager"
    USER = "user"
    PAYER = "payer"


class Permission(StrEnum):
    """One thing that a role may do. The value completes the sentence "Your role does not allow you to"."""

    SEE_SUBSCRIPTION = "see the subscription"
    SEE_AMOUNTS = "see its amounts and invoices"
    SEE_MEMBERS = "see its members"
    CHANGE_USERS = "add or remove users"
    CHANGE_MANAGERS = "add, remove or change managers"
    BUY_SEATS = "buy seats"
    LOWER_QUANTITY = "lower its quantity"
    CHANGE_SUBSCRIPTION = "change the subscription"
    CANCEL = "cancel it at the period's end"
    CANCEL_NOW = "cancel it at once"
    TAKE_BACK_END = "take its end back"
    RESUME = "resume it while it is paused"
    SEE_PURCHASES = "see what was bought and ended"
    GRANT_PURCHASES = "give or withdraw the right to buy"
    LEAVE = "leave it"
    REPAIR_OWNER = "name its owner"


@dataclass(frozen=True, slots=True)
class RolePolicy:
    """The settings that give managers more permissions than the table. Both are off by default."""

    managers_manage_managers: bool = False
    managers_buy_seats: bool = False


_P = Permission
_TABLE: dict[Role, frozenset[Permission]] = {
    Role.OWNER: frozenset(
        {
            _P.SEE_SUBSCRIPTION,
            _P.SEE_AMOUNTS,
            _P.SEE_MEMBERS,
            _P.CHANGE_USERS,
            _P.CHANGE_MANAGERS,
            _P.CANCEL,
            _P.TAKE_BACK_END,
            _P.SEE_PURCHASES,
        }
    ),
    Role.MANAGER: frozenset(
        {_P.SEE_SUBSCRIPTION, _P.SEE_AMOUNTS, _P.SEE_MEMBERS, _P.CHANGE_USERS, _P.LEAVE, _P.SEE_PURCHASES}
    ),
    Role.USER: frozenset({_P.SEE_SUBSCRIPTION, _P.LEAVE}),
    Role.PAYER: frozenset(
        {
            _P.SEE_SUBSCRIPTION,
            _P.SEE_AMOUNTS,
            _P.LOWER_QUANTITY,
            _P.CANCEL,
            _P.CANCEL_NOW,
            _P.TAKE_BACK_END,
            _P.RESUME,
            _P.SEE_PURCHASES,
            _P.GRANT_PURCHASES,
            _P.REPAIR_OWNER,
        }
    ),
}
_PURCHASES = frozenset({_P.BUY_SEATS, _P.LOWER_QUANTITY, _P.CHANGE_SUBSCRIPTION, _P.CANCEL_NOW, _P.RESUME})
"""Changes that cost the payer money or end what they paid for. The owner has them only if they pay or may buy."""


class Relations(NamedTuple):
    """The facts of a subscription on which roles depend.

    `owner_id` is the customer that the metadata names, or None if that customer does not exist. It is the payer if the
    metadata names nobody. `shareable` is True if a product of the subscription has the sharing flag.
    """

    payer_id: CustomerId
    owner_id: CustomerId | None
    shareable: bool


def role_of(customer_id: CustomerId, relations: Relations, member_role: str | None) -> Role | None:
    """Return a customer's strongest role, None without one.

    `member_role` is the role that the customer's own metadata gives on this subscription, or None. The payer of a
    subscription that cannot be shared is its owner if the named owner does not exist.
    """
    if customer_id == relations.owner_id:
        return Role.OWNER
    if customer_id == relations.payer_id and relations.owner_id is None and not relations.shareable:
        return Role.OWNER
    if member_role == Role.MANAGER:
        return Role.MANAGER
    if customer_id == relations.payer_id:
        return Role.PAYER
    return Role.USER if member_role is not None else None


def roles_of(customer_id: CustomerId, relations: Relations, member_role: str | None) -> frozenset[Role]:
    """Return all roles of a customer.

    A payer who also has a seat has both roles. A payer who is the owner because nothing gives seats and the named owner
    does not exist is the payer too, and may repair that.
    """
    strongest = role_of(customer_id, relations, member_role)
    found = set() if strongest is None else {strongest}
    is_named_owner = strongest is Role.OWNER and relations.owner_id is not None
    if customer_id == relations.payer_id and not is_named_owner:
        found.add(Role.PAYER)
    if member_role is not None and strongest is not Role.OWNER:
        found.add(Role.MANAGER if member_role == Role.MANAGER else Role.USER)
    return frozenset(found)


def permissions(role: Role, policy: RolePolicy, *, owner_may_purchase: bool) -> frozenset[Permission]:
    """Return the permissions of one role.

    `owner_may_purchase` is True if the owner is the payer, or if the payer allowed them to buy. A manager buys seats on
    behalf of the owner, so the condition holds for managers too. An owner who is not the payer may take back only an
    end that an owner set (`app.subscriptions.ending`).
    """
    granted = _TABLE[role]
    if role is Role.OWNER and owner_may_purchase:
        granted |= _PURCHASES
    if role is Role.MANAGER and policy.managers_manage_managers:
        granted |= {_P.CHANGE_MANAGERS}
    if role is Role.MANAGER and policy.managers_buy_seats and owner_may_purchase:
        granted |= {_P.BUY_SEATS, _P.LOWER_QUANTITY}
    return granted


@cache
def permissions_of_all(
    roles: frozenset[Role], policy: RolePolicy, *, owner_may_purchase: bool
) -> frozenset[Permission]:
    """Return the permissions that at least one of the roles gives."""
    return frozenset[Permission]().union(
        *(permissions(role, policy, owner_may_purchase=owner_may_purchase) for role in roles)
    )


def require(granted: frozenset[Permission], *needed: Permission) -> None:
    """Check that every needed permission was granted.

    Call it only for a subscription that the caller may see, because the error reveals that it exists.

    Raises:
        Forbidden: `role_required`, naming the first missing permission.
    """
    for permission in needed:
        if permission not in granted:
            raise Forbidden(f"Your role on this subscription does not allow you to {permission.value}.")
