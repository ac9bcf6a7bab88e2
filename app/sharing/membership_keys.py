"""Choose the metadata keys by which a customer joins a subscription, gets another role there, or leaves it.

The guide's two keys name one membership. Each further membership has a key of its own. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Collection

from app.domain import metadata as keys
from app.domain.ids import SubscriptionId
from app.domain.snapshots import Customer


def changed(customer: Customer, subscription_id: SubscriptionId, role: str | None) -> dict[str, str]:
    """Return the metadata that gives a member this role, in each form that names the subscription.

    `role` None ends the membership. The result is empty if the customer is no member.
    """
    found: dict[str, str] = {}
    if customer.member_of == subscription_id:
        is_end = role is None
        found |= keys.no_membership_values() if is_end else keys.membership_values(subscription_id, str(role))
    further = keys.further_key(subscription_id)
    if further is not None and subscription_id in customer.further_memberships:
        found[further] = role or ""
    return found


def added(
    customer: Customer,
    subscription_id: SubscriptionId,
    role: str,
    *,
    live: Collection[SubscriptionId],
    held: Collection[str],
) -> dict[str, str] | None:
    """Return the metadata that makes the customer a member, None if no key is free for it.

    `live`: the customer's subscriptions that have not ended. The guide's keys are taken if they are free, or name a
    subscription that has ended. `held`: keys that other operations write. Memberships of ended subscriptions are
    cleared in the same write.
    """
    present = changed(customer, subscription_id, role)
    if present:
        return present
    ended = set(customer.memberships).difference(live)
    is_free = customer.member_of is None or customer.member_of in ended
    further = keys.further_key(subscription_id)
    if is_free and not {keys.MEMBER_OF, keys.MEMBER_ROLE}.intersection(held):
        written = keys.membership_values(subscription_id, role)
    elif further is None:
        return None
    else:
        written = {further: role}
    for name in sorted(ended.intersection(customer.further_memberships)):
        key = keys.further_key(SubscriptionId(name))
        if key is not None and key not in held:
            written[key] = ""
    return written


def slot(subscription_id: SubscriptionId, written: Collection[str]) -> str | None:
    """Return the key that names the membership in what an addition or a role change writes."""
    return keys.MEMBER_OF if keys.MEMBER_OF in written else keys.further_key(subscription_id)
