"""Who may do what to a subscription: one table, and the one place where a customer's role is found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import NamedTuple

from app.domain.ids import CustomerId
from app.errors import Forbidden


class Role(StrEnum):
    """`payer`: pays for a shared subscription that somebody else owns, or that nobody does."""

    OWNER = "owner"
    MANAGER = "manager"
    USER = "user"
    PAYER = "payer"


class Permission(StrEnum):
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
    """The settings that widen the table for managers; both are off by default."""

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
"""What costs the payer, or ends what they have paid for: the owner's only if they pay or were allowed to buy."""


class Relations(NamedTuple):
    """How people stand to one subscription, as far as roles need it.

    `owner_id` is the customer named in metadata if that customer exists, else None. `shareable`: a product of it
    carries the sharing flag.
    """

    payer_id: CustomerId
    owner_id: CustomerId | None
    shareable: bool


def role_of(customer_id: CustomerId, relations: Relations, member_role: str | None) -> Role | None:
    """The strongest role of a customer; `member_role` is what his own metadata gives him here, None for nothing.

    A subscription that cannot be shared and names no owner is simply its payer's own.
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
    """All that a customer is at once: the payer may hold a seat, and keeps both rights."""
    strongest = role_of(customer_id, relations, member_role)
    found = set() if strongest is None else {strongest}
    if found and Role.OWNER not in found:
        if customer_id == relations.payer_id:
            found.add(Role.PAYER)
        if member_role is not None:
            found.add(Role.MANAGER if member_role == Role.MANAGER else Role.USER)
    return frozenset(found)


def permissions(role: Role, policy: RolePolicy, *, owner_may_purchase: bool) -> frozenset[Permission]:
    """What a role may do.

    `owner_may_purchase`: the owner is the payer, or the payer allowed them to buy. A manager who may buy seats buys in
    the owner's place, so the same condition holds for them.
    `TAKE_BACK_END` of an owner who is not the payer holds only for an end that an owner set
    (`app.subscriptions.ending`).
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
    """Whoever has several roles may do what any of them may."""
    return frozenset[Permission]().union(
        *(permissions(role, policy, owner_may_purchase=owner_may_purchase) for role in roles)
    )


def require(granted: frozenset[Permission], *needed: Permission) -> None:
    """Raises Forbidden `role_required`; call it only after visibility is settled, else it tells what exists."""
    for permission in needed:
        if permission not in granted:
            raise Forbidden(f"Your role on this subscription does not allow you to {permission.value}.")
