"""What must hold when an order has come to rest, judged by Stripe's objects and by answers.

A, answers: no 5xx, and no address is ambiguous. C, count: each seat is counted once. G, ghosts: no customer of ours is
left without a login, a seat or an open invitation. N, nobody else: each seat is held by one customer of the person to
whose address it was given. R, reaches: a person whose address was verified reaches their seats, and an addition by
that address names the customer of their login. S, stands: every given seat has a holder. X, erased: nothing is left to
erase.
"""

from __future__ import annotations

from typing import Any

import httpx

from testkit.company import Company
from verification.people.orders import Order, memberships


async def verdicts(order: Order) -> list[str]:
    """Return what is wrong, each with the letter of its invariant."""
    found = list(order.bad)
    customers = await order.customers()
    for on, company in enumerate(order.companies):
        found += await _seats(order, on, company, customers)
    for number, person in enumerate(order.people):
        if person.is_verified:
            found += await _reached(order, number)
    found += await _left(order, customers)
    return found


async def _seats(order: Order, on: int, company: Company, customers: list[dict[str, Any]]) -> list[str]:
    found = []
    ours = {company.manager.customer_id, company.owner.customer_id}
    members = [one for one in customers if company.subscription_id in memberships(one.get("metadata") or {})]
    holders: dict[int | None, int] = {}
    for one in members:
        if one["id"] in ours:
            continue
        number = order.person_of(one)
        holders[number] = holders.get(number, 0) + 1
        if number is None or (number, on) not in order.given:
            found.append(f"N {one['id']} of person {number} has a seat on {on}")
    found += [
        f"N person {number} has {count} seats on {on}" for number, count in holders.items() if count > 1
    ]
    found += [f"S person {number} has lost the seat on {on}" for number, place in order.given
              if place == on and number not in holders]  # fmt: skip
    answer = await order.service.get(company.path, company.owner.headers)
    seats = answer.json()["subscription"]["shared"]["seats"]
    open_invitations = await order.service.fetch(
        "select 1 from invitations where subscription_id = $1 and state = 'open'", company.subscription_id
    )
    if (seats["used"], seats["reserved"]) != (len(members), len(open_invitations)):
        found.append(f"C {seats} on {on} for {len(members)} members and {len(open_invitations)} invitations")
    return found


async def _reached(order: Order, number: int) -> list[str]:
    person = order.people[number]
    who = person.token(verified=True)
    answer = await order.service.get("/v1/customers/me", who)
    if answer.status_code != httpx.codes.OK:
        return [f"R person {number} has no customer: {answer.status_code}"]
    own, found = answer.json()["customer"]["id"], []
    for on in sorted(place for one, place in order.given if one == number):
        company = order.companies[on]
        access = await order.service.get("/v1/customers/me/access", who, product_id=company.product_id)
        if own not in await order.holders(number, on) or not access.json()["has_access"]:
            found.append(f"R person {number} does not reach the seat on {on}")
    return found


async def _left(order: Order, customers: list[dict[str, Any]]) -> list[str]:
    rows = await order.service.fetch("select customer_id from identities where customer_id is not null")
    linked = {row["customer_id"] for row in rows}
    rows = await order.service.fetch("select email from invitations where state = 'open'")
    invited = {row["email"] for row in rows}
    found = []
    for one in customers:
        metadata = one.get("metadata") or {}
        is_ours = "billing_operation_id" in metadata and order.person_of(one) is not None
        # An addition of an invited address would use the customer, so an open invitation keeps it.
        if is_ours and one["email"] not in invited and one["id"] not in linked and not memberships(metadata):
            found.append(f"G {one['id']} has neither a login nor a seat")
    if await order.service.fetch("select 1 from erasures"):
        found.append("X a deleted customer is not erased")
    return found
