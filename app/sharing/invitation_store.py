"""Statements about invitations. An open invitation has one live reservation, which names nobody.

An addition or an acceptance takes that reservation over (`app.operations.store.insert`), and gives it back if it fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.domain import emails as addresses
from app.domain.ids import CustomerId, SubscriptionId
from app.domain.snapshots import JsonObject
from app.postgres.database import Connection

_DAY_SECONDS = 86_400
_BATCH = 500
_ADDRESS_DAYS = 30
ACCEPT_INVITATION = "accept_invitation"
"""The kind of the operation that accepts an invitation."""
SYSTEM = "system:invitations"
"""The principal of what ends by itself."""
_NOT_RENEWABLE = frozenset({None, "added", "person_erased", "subscription_ended"})
"""Reasons of a revocation after which nobody would invite the address again. None: somebody revoked it."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation. `email` is null once it was blanked, `inviter_id` if a service key invited.

    `state`: open, accepted, declined, expired or revoked; expired from `expires_at` on, even if the row says open yet.
    `is_used`: an operation is filling its seat. `was_sent`: that operation has sent its request to Stripe.
    """

    id: str
    number: int
    subscription_id: SubscriptionId
    email: str | None
    role: str
    state: str
    reason: str | None
    generation: int
    inviter_id: CustomerId | None
    inviter_name: str | None
    created_at: datetime
    expires_at: datetime
    acceptor_id: CustomerId | None
    operation_id: str | None
    is_used: bool
    was_sent: bool

    @property
    def is_renewable(self) -> bool:
        """Return True if it ended in a way after which an owner may want to invite the address again."""
        is_over = self.state == "expired" or (self.state == "revoked" and self.reason not in _NOT_RENEWABLE)
        return is_over and self.email is not None


# A step that was sent may have taken effect, whatever its state is now.
_STATE = """case when i.state = 'open' and i.expires_at <= clock_timestamp() and not used.now then 'expired'
        else i.state end"""
_INVITATION = f"""
    select i.id, i.number, i.subscription_id, i.email, i.role, {_STATE} as state,
        i.reason, i.generation, i.inviter_id, c.name as inviter_name, i.created_at, i.expires_at, i.acceptor_id,
        i.operation_id, used.now as is_used, used.sent as was_sent
    from invitations i
    left join customers c on c.id = i.inviter_id
    cross join lateral (
        select count(*) > 0 as now, count(*) filter (where t.state <> 'planned' or t.attempt > 0) > 0 as sent
        from operation_steps t where t.invitation_id = i.id and t.settled_at is null) used
    where """

_PAGE = (
    _INVITATION
    + f"""i.subscription_id = $1 and i.number < coalesce($3, 9223372036854775807)
      and ($2::text[] = '{{}}' or {_STATE} = any($2))
    order by i.number desc limit $4"""
)


_RESERVE = "insert into reservations (subscription_id, invitation_id) values ($1, $2)"

_RELEASE = """
    update reservations set released_at = clock_timestamp() where invitation_id = $1 and released_at is null"""

_EXPIRE_DUE = """
    select end_invitations(array(
        select i.id from invitations i
        where i.state = 'open' and i.expires_at <= statement_timestamp() {of_subscription}
          and not exists (select from operation_steps t where t.invitation_id = i.id and t.settled_at is null)
        order by i.expires_at limit $1), 'expired', null, 'api', null, $2, null)"""
_OF_SUBSCRIPTION = "and i.subscription_id = $3"


async def create(
    connection: Connection,
    invitation_id: str,
    *,
    subscription_id: SubscriptionId,
    email: str,
    role: str,
    inviter_id: CustomerId | None,
    days: float,
) -> None:
    """Store an invitation, and reserve its seat. The caller holds the subscription's lock."""
    await connection.execute(
        """insert into invitations (id, subscription_id, email, role, state, inviter_id, expires_at)
        values ($1, $2, $3, $4, 'open', $5, clock_timestamp() + $6 * interval '1 second')""",
        invitation_id,
        subscription_id,
        email,
        role,
        inviter_id,
        days * _DAY_SECONDS,
    )
    await connection.execute(_RESERVE, subscription_id, invitation_id)


async def hold_inviter(
    connection: Connection, subscription_id: SubscriptionId, customer_id: CustomerId
) -> None:
    """Keep the membership of an inviter as it is until the transaction ends."""
    await connection.execute(
        "select from memberships where subscription_id = $1 and customer_id = $2 for share",
        subscription_id,
        customer_id,
    )


async def one(connection: Connection, invitation_id: str) -> Invitation | None:
    """Return an invitation, or None."""
    row = await connection.fetchrow(f"{_INVITATION} i.id = $1", invitation_id)
    return None if row is None else Invitation(**dict(row))


async def lock(connection: Connection, invitation_id: str) -> Invitation | None:
    """Lock the seat and the row of an invitation until the transaction ends, and return it.

    They are locked in this order everywhere.
    """
    await connection.execute(
        "select 1 from reservations where invitation_id = $1 and released_at is null for update",
        invitation_id,
    )
    await connection.execute("select 1 from invitations where id = $1 for update", invitation_id)
    return await one(connection, invitation_id)


async def page(
    connection: Connection,
    subscription_id: SubscriptionId,
    *,
    states: Sequence[str],
    before: int | None,
    limit: int,
) -> list[Invitation]:
    """Return up to `limit` invitations older than number `before`, newest first. No `states`: all of them."""
    rows = await connection.fetch(
        _PAGE,
        subscription_id,
        list(states),
        before,
        limit,
    )
    return [Invitation(**dict(row)) for row in rows]


async def open_to(
    connection: Connection, subscription_id: SubscriptionId, emails: Sequence[str]
) -> dict[str, Invitation]:
    """Return the open invitations to these addresses (ASCII-lowered) by address.

    One whose term is over is open while an operation is filling its seat.
    """
    if not emails:
        return {}
    rows = await connection.fetch(
        f"""{_INVITATION} i.subscription_id = $1 and i.state = 'open' and lower(i.email collate "C") = any($2)""",
        subscription_id,
        list(emails),
    )
    return {
        addresses.ascii_lowered(row["email"]): Invitation(**dict(row))
        for row in rows
        if row["state"] == "open"
    }


async def lock_open_to(
    connection: Connection, subscription_id: SubscriptionId, emails: Sequence[str]
) -> None:
    """Lock the seats and the rows of the open invitations to these addresses until the transaction ends."""
    if not emails:
        return
    invited = """i.subscription_id = $1 and i.state = 'open' and lower(i.email collate "C") = any($2)"""
    for statement in (
        f"""select from reservations r join invitations i on i.id = r.invitation_id
            where {invited} and r.released_at is null order by r.id for update of r""",
        f"select from invitations i where {invited} order by i.id for update",
    ):
        await connection.execute(statement, subscription_id, list(emails))


async def restart(connection: Connection, invitation_id: str, *, days: float) -> None:
    """Begin the next generation and a new term of an open invitation."""
    await connection.execute(
        """update invitations set generation = generation + 1,
            expires_at = clock_timestamp() + $2 * interval '1 second'
        where id = $1 and state = 'open'""",
        invitation_id,
        days * _DAY_SECONDS,
    )


async def end(
    connection: Connection,
    invitation_id: str,
    state: str,
    *,
    principal: str,
    actor_id: CustomerId | None = None,
    reason: str | None = None,
    operation_id: str | None = None,
) -> None:
    """End an open invitation without an acceptance, free its seat, and record it."""
    await connection.execute(
        "select end_invitations(array[$1::text], $2, $3, 'api', $4, $5, $6)",
        invitation_id,
        state,
        reason,
        operation_id,
        principal,
        actor_id,
    )


async def expire_due(connection: Connection, *, subscription_id: SubscriptionId | None = None) -> int:
    """End up to 500 invitations whose term is over; return their number.

    One whose seat an operation is filling goes on until that is settled. Without `subscription_id`, those of all
    subscriptions.
    """
    condition, arguments = ("", []) if subscription_id is None else (_OF_SUBSCRIPTION, [subscription_id])
    statement = _EXPIRE_DUE.format(of_subscription=condition)
    return int(await connection.fetchval(statement, _BATCH, SYSTEM, *arguments))


async def begin_acceptance(
    connection: Connection, invitation_id: str, *, acceptor_id: CustomerId, operation_id: str
) -> None:
    """Store who accepts an open invitation, by which operation."""
    await connection.execute(
        "update invitations set acceptor_id = $2, operation_id = $3 where id = $1",
        invitation_id,
        acceptor_id,
        operation_id,
    )


async def accepted(connection: Connection, invitation_id: str, *, principal: str) -> None:
    """Store that an acceptance took effect, free the seat if it is still reserved, and record it.

    Stripe's object shows the effect, so this holds even if the invitation was revoked after the request was sent.
    """
    await connection.execute(_RELEASE, invitation_id)
    await connection.execute(
        """with accepted as (
            update invitations set state = 'accepted', reason = null,
                ended_at = coalesce(ended_at, clock_timestamp())
            where id = $1 and state <> 'accepted' returning *
        )
        insert into audit_events (subscription_id, source, operation_id, principal, actor_id, action, customer_id,
            before, after)
        select subscription_id, 'api', operation_id, $2, acceptor_id, 'invitation_accepted', acceptor_id,
            jsonb_build_object('role', role), jsonb_build_object('invitation_id', id)
        from accepted""",
        invitation_id,
        principal,
    )


async def is_open(connection: Connection, invitation_id: str) -> bool:
    """Return True if the invitation is open, and keep it so until the transaction ends."""
    return (
        await connection.fetchval(
            "select 1 from invitations where id = $1 and state = 'open' for share", invitation_id
        )
        is not None
    )


async def blank_old_addresses(connection: Connection) -> int:
    """Blank the addresses of invitations that ended over 30 days ago, up to 500; return their number."""
    done = await connection.execute(
        """update invitations set email = null where id = any(array(
            select id from invitations
            where email is not null and ended_at < statement_timestamp() - $1 * interval '1 day'
            order by ended_at limit $2))""",
        _ADDRESS_DAYS,
        _BATCH,
    )
    return int(str(done).rpartition(" ")[2])


def recorded(invitation: Invitation) -> JsonObject:
    """Return what the audit trail says of an invitation. It never holds the address."""
    return {"invitation_id": invitation.id, "role": invitation.role}
