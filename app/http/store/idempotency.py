"""SQL statements for the stored answers of writes with an Idempotency-Key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from app.postgres.database import Connection

# The process of a first request can die before it answers. After a minute its key may be claimed again: the effects at
# Stripe have idempotency keys of their own.
#
# A key lasts a day. What it began is kept for longer, under ids that are derived from the key. If that has ended, the
# new use of the key is told apart by its time; what is still open goes on. An endpoint that a key made is there until
# somebody deletes it, so the same key makes no second one.
_CLAIM = """
    insert into idempotency_keys as k (principal, route, key, request_hash, reused_at) values ($1, $2, $3, $4,
        case when exists (select from operations where id = 'op_' || $5 and settled_at is not null
                and created_at < clock_timestamp() - interval '24 hours')
            or exists (select from invitations where id = 'inv_' || $5
                and created_at < clock_timestamp() - interval '24 hours')
        then clock_timestamp() end)
    on conflict (principal, route, key) do update set
        request_hash = excluded.request_hash, status = null, headers = null, body = null,
        created_at = clock_timestamp(),
        reused_at = case when k.created_at < clock_timestamp() - interval '24 hours'
            then excluded.reused_at else k.reused_at end
    where k.created_at < clock_timestamp() - interval '24 hours'
       or (k.status is null and k.request_hash = excluded.request_hash
           and k.created_at < clock_timestamp() - interval '60 seconds')
    returning created_at, reused_at"""

# A use that is told apart by its time keeps its row. Otherwise the next request would begin another one.
_FORGET = """
    with free as (
        update idempotency_keys set created_at = clock_timestamp() - interval '61 seconds'
        where principal = $1 and route = $2 and key = $3 and status is null and created_at = $4
          and reused_at is not null
    )
    delete from idempotency_keys
    where principal = $1 and route = $2 and key = $3 and status is null and created_at = $4 and reused_at is null"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A key that a request holds.

    `claimed_at` tells it from the claims of other requests. `reused_at`: when the key was used again after its day,
    None for its first use.
    """

    principal: str
    route: str
    key: str
    claimed_at: datetime
    reused_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """The row of a key. `status` is None while the first request still runs."""

    request_hash: bytes
    status: int | None
    headers: dict[str, str]
    body: bytes


async def claim(
    connection: Connection, principal: str, route: str, key: str, request_hash: bytes, *, digits: str
) -> Claim | StoredAnswer:
    """Claim the key, or return the row that holds it. `digits`: those of the ids that its first use derived."""
    claimed = await connection.fetchrow(_CLAIM, principal, route, key, request_hash, digits)
    if claimed is not None:
        return Claim(principal, route, key, claimed["created_at"], claimed["reused_at"])
    row = await connection.fetchrow(
        """select request_hash, status, headers, body from idempotency_keys
        where principal = $1 and route = $2 and key = $3""",
        principal,
        route,
        key,
    )
    if row is None:
        return await claim(connection, principal, route, key, request_hash, digits=digits)
    return StoredAnswer(row["request_hash"], row["status"], row["headers"] or {}, row["body"] or b"")


async def store(
    connection: Connection, claim: Claim, *, status: int, headers: dict[str, str], body: bytes
) -> None:
    """Store the answer of the request that holds the key."""
    await connection.execute(
        """update idempotency_keys set status = $5, headers = $6, body = $7
        where principal = $1 and route = $2 and key = $3 and created_at = $4""",
        claim.principal,
        claim.route,
        claim.key,
        claim.claimed_at,
        status,
        headers,
        body,
    )


async def forget(connection: Connection, claim: Claim) -> None:
    """Release a key without an answer, so that the request may be sent again with it."""
    await connection.execute(_FORGET, claim.principal, claim.route, claim.key, claim.claimed_at)
