"""The people of a shared subscription, as each role may see them."""

from __future__ import annotations

from dataclasses import dataclass

from app.context import Context
from app.domain.ids import SubscriptionId
from app.domain.roles import Permission, Role
from app.domain.seats import Seats
from app.domain.views import MemberRow, SubscriptionView
from app.errors import Forbidden
from app.identity.actors import Actor
from app.mirror.store import members
from app.mirror.visibility import read


@dataclass(frozen=True, slots=True)
class People:
    """One page of people. `total_count` counts the owner's row too.

    `next_after`: the sort key that the next page begins after, None on the last page.
    """

    rows: list[MemberRow]
    total_count: int
    next_after: str | None
    seats: Seats


@dataclass(frozen=True, slots=True)
class PeopleQuery:
    """What to list: people whose e-mail or name contains `search`, in this role.

    `after`: the sort key of the last row of the page before. `limit`: rows a page, 1 to 100.
    """

    search: str | None
    role: Role | None
    after: str | None
    limit: int


async def people(
    context: Context, actor: Actor, subscription_id: SubscriptionId, query: PeopleQuery
) -> People:
    """Return the owner first, then the members by id.

    A user sees only themselves and the owner. A payer who is not the owner sees no members.

    Raises:
        NotFound: the actor may not see the subscription.
        Forbidden: `role_required` for a payer who is not the owner.
    """
    async with context.database.connection() as connection:
        seen = await read(connection, actor, subscription_id, context.rules)
        view, seats = seen.view, seen.view.seats(owner_uses_seat=context.rules.owner_uses_seat)
        owner = [row for row in _owner_row(view) if _matches(row, query)]
        owner_id = None if view.owner is None else view.owner.customer_id
        if Permission.SEE_MEMBERS not in seen.granted:
            if actor.customer_id is None or view.asker_role is None:
                raise Forbidden("Your role on this subscription does not show you its members.")
            own = await members.one(connection, subscription_id, actor.customer_id, owner_id=owner_id)
            rows = [*owner, *([own] if own is not None and _matches(own, query) else [])]
            return People(rows, len(rows), None, seats)
        role = None if query.role is None else query.role.value
        first = owner if query.after is None else []
        found = await members.page(
            connection,
            subscription_id,
            owner_id=owner_id,
            role=role,
            search=query.search,
            after=query.after,
            limit=query.limit + 1 - len(first),
        )
        total = await members.count(
            connection, subscription_id, owner_id=owner_id, role=role, search=query.search
        )
    kept = found[: query.limit - len(first)]
    # A page that the owner's row fills alone goes on from the start of the members.
    position = kept[-1][0] if kept else ""
    return People(
        rows=[*first, *(row for _, row in kept)],
        total_count=total + len(owner),
        next_after=position if len(found) > len(kept) else None,
        seats=seats,
    )


def _owner_row(view: SubscriptionView) -> list[MemberRow]:
    if view.owner is None:
        return []
    return [MemberRow(view.owner.customer_id, view.owner.email, view.owner.name, Role.OWNER, "active", None)]


def _matches(row: MemberRow, query: PeopleQuery) -> bool:
    if query.role is not None and row.role != query.role:
        return False
    needle = (query.search or "").lower()
    return any(needle in (text or "").lower() for text in (row.email, row.name))
