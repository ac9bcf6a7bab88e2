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
from app.mirror.store.members import MemberQuery, Pending
from app.mirror.visibility import read
from app.postgres.database import Connection


@dataclass(frozen=True, slots=True)
class People:
    """One page of people. `total_count` counts the owner's row too; None if a search cannot count its matches.

    `next_after`: the place that the next page begins after, None on the last page.
    """

    rows: list[MemberRow]
    total_count: int | None
    next_after: str | None
    seats: Seats


@dataclass(frozen=True, slots=True)
class PeopleQuery:
    """What to list: people whose e-mail or name contains `search`, in this role, and in one of these states.

    `states`: active, unclaimed, pending and invited; none of them means all. `after`: the place of the last row of the
    page before. `limit`: rows a page, 1 to 100.
    """

    search: str | None
    role: Role | None
    states: frozenset[str]
    after: str | None
    limit: int

    def shows(self, *states: str) -> bool:
        """Return True if people in one of these states are listed."""
        return not self.states or not self.states.isdisjoint(states)

    @property
    def unclaimed(self) -> bool | None:
        """Return whether the members that are listed have acted since they joined; None if both are listed."""
        is_active, is_unclaimed = self.shows("active"), self.shows("unclaimed")
        return None if is_active == is_unclaimed else is_unclaimed


_WITH_ADDRESS, _MEMBERS, _PENDING, _INVITED = "a", "m", "p", "i"
"""The sections of the list, in their order. A place is a section's letter and a key within the section."""


async def people(
    context: Context, actor: Actor, subscription_id: SubscriptionId, query: PeopleQuery
) -> People:
    """Return the owner first, then the members by id, the people who are being added, and the invited ones.

    A user sees only themselves and the owner. A payer who is not the owner sees no members. A search for a whole
    e-mail shows the members who have it before the others. A page of a search in a large team may have fewer rows than
    its limit, or none, although further pages follow.

    Raises:
        NotFound: the actor may not see the subscription.
        Forbidden: `role_required` for a payer who is not the owner.
    """
    async with context.database.reading() as connection:
        seen = await read(connection, actor, subscription_id, context.rules)
        view, seats = seen.view, seen.view.seats(owner_uses_seat=context.rules.owner_uses_seat)
        owner = [row for row in _owner_row(view) if _matches(row, query)]
        owner_id = None if view.owner is None else view.owner.customer_id
        if Permission.SEE_MEMBERS not in seen.granted:
            if actor.customer_id is None or view.asker_role is None:
                raise Forbidden("Your role on this subscription does not show you its members.")
            own = None
            if actor.customer_id != owner_id:
                own = await members.one(connection, subscription_id, actor.customer_id)
            return _own_rows(owner, [own] if own is not None and _matches(own, query) else [], query, seats)
        return await _all_rows(connection, view, query, owner, seats)


def _own_rows(owner: list[MemberRow], own: list[MemberRow], query: PeopleQuery, seats: Seats) -> People:
    """Return a page as a user sees it. After the owner's row the next page begins with the first member they see."""
    rows = [*owner, *own] if query.after is None else own
    more = len(rows) > query.limit
    return People(rows[: query.limit], len(owner) + len(own), _MEMBERS if more else None, seats)


async def _all_rows(
    connection: Connection, view: SubscriptionView, query: PeopleQuery, owner: list[MemberRow], seats: Seats
) -> People:
    """Return a page as the owner and managers see it. `owner`: the owner's row, if the query selects it."""
    selected = MemberQuery(
        view.id,
        None if view.owner is None else view.owner.customer_id,
        None if query.role is None else query.role.value,
        query.search.lower() if query.search else None,
        query.unclaimed,
    )
    first = owner if query.after is None else []
    adding = await members.pending(connection, selected) if query.shows("pending") else []
    found, next_after = await _listed(connection, selected, query, adding, query.limit - len(first))
    beside = len(owner) + len(adding)
    if view.reserved and query.shows("invited"):
        beside += await members.invited_count(connection, selected)
    total = await members.count(connection, selected) if query.shows("active", "unclaimed") else 0
    return People(
        rows=[*first, *found],
        total_count=None if total is None else total + beside,
        next_after=next_after,
        seats=seats,
    )


def _sections(query: PeopleQuery) -> list[str]:
    """Return the sections that the query shows, in their order. All of them, without a filter by state."""
    shown = {
        _WITH_ADDRESS: bool(query.search) and query.shows("active", "unclaimed"),
        _MEMBERS: query.shows("active", "unclaimed"),
        _PENDING: query.shows("pending"),
        _INVITED: query.shows("invited"),
    }
    return [section for section, is_shown in shown.items() if is_shown]


async def _listed(
    connection: Connection, selected: MemberQuery, query: PeopleQuery, adding: list[Pending], room: int
) -> tuple[list[MemberRow], str | None]:
    """Return up to `room` rows after the query's place, and the place of the last one if more may follow."""
    sections, after = _sections(query), query.after
    # A cursor is not signed: one that was made up begins at the first section.
    begin, key = (after[0], after[1:]) if after and after[0] in sections else (sections[0], "")
    found: list[tuple[str, MemberRow]] = []
    # If the owner's row fills the page, the next page begins with the first member.
    place = f"{begin}{key}"
    for section in sections[sections.index(begin) :]:
        goes_on_after = None
        if section == _PENDING:
            found += [(f"{_PENDING}{one.id}", one.row) for one in adding if one.id > _number(key)]
        elif section == _INVITED:
            asked = await members.invited(
                connection, selected, after=_number(key), limit=room + 1 - len(found)
            )
            found += [(f"{_INVITED}{number}", row) for number, row in asked]
        else:
            rows, goes_on_after = await _section(connection, selected, section, key, room + 1 - len(found))
            found += [(f"{section}{row.customer_id}", row) for row in rows]
        if len(found) > room:
            place = found[room - 1][0] if room else place
            return [row for _, row in found[:room]], place
        if goes_on_after is not None:
            return [row for _, row in found], f"{section}{goes_on_after}"
        key = ""
    return [row for _, row in found], None


def _number(key: str) -> int:
    return int(key) if key.isascii() and key.isdigit() else 0


async def _section(
    connection: Connection, selected: MemberQuery, section: str, after: str, limit: int
) -> tuple[list[MemberRow], str | None]:
    """Return up to `limit` members of a section, and where a bounded search goes on."""
    if section == _WITH_ADDRESS:
        return await members.with_address(connection, selected, after=after, limit=limit), None
    if selected.needle is None:
        return await members.page(connection, selected, after=after, limit=limit), None
    searched = await members.search(connection, selected, after=after, limit=limit)
    return searched.rows, searched.last_id


def _owner_row(view: SubscriptionView) -> list[MemberRow]:
    if view.owner is None:
        return []
    return [MemberRow(view.owner.customer_id, view.owner.email, view.owner.name, Role.OWNER, "active", None)]


def _matches(row: MemberRow, query: PeopleQuery) -> bool:
    if (query.role is not None and row.role != query.role) or not query.shows(row.state):
        return False
    needle = (query.search or "").lower()
    return any(needle in (text or "").lower() for text in (row.email, row.name))
