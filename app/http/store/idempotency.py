"""SQL statements for the stored answers of writes with an Idempotency-Key."""

from __future__ import annotations

from dataclasses import dataclass

from app.postgres.database import Connection

# The process of a first request can die before it answers. After a minute its key may be claimed again: the effects at
# Stripe have idempotency keys of their own.
_CLAIM = """
    insert into idempotency_keys as k (principal, route, key, request_hash) values ($1, $2, $3, $4)
    on conflict (principal, route, key) do update set
        request_hash = excluded.request_hash, status = null, headers = null, body = null,
        created_at = clock_timestamp()
    where k.created_at < clock_timestamp() - interval '24 hours'
       or (k.status is null and k.request_hash = excluded.request_hash
           and k.created_at < clock_timestamp() - interval '60 seconds')
    returning true"""


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """The row of a key. `status` is None while the first request still runs."""

    request_hash: bytes
    status: int | None
    headers: dict[str, str]
    body: bytes


async def claim(
    connection: Connection, principal: str, route: str, key: str, request_hash: bytes
) -> StoredAnswer | None:
    """Claim the key and return None, or return the row that holds it."""
    if await connection.fetchval(_CLAIM, principal, route, key, request_hash):
        return None
    row = await connection.fetchrow(
        """select request_hash, status, headers, body from idempotency_keys
        where principal = $1 and route = $2 and key = $3""",
        principal,
        route,
        key,
    )
    if row is None:
        return await claim(connection, principal, route, key, request_hash)
    return StoredAnswer(row["request_hash"], row["status"], row["headers"] or {}, row["body"] or b"")


async def store(
    connection: Connection,
    principal: str,
    route: str,
    key: str,
    *,
    status: int,
    headers: dict[str, str],
    body: bytes,
) -> None:
    """Store the answer of the request that claimed the key."""
    await connection.execute(
        """update idempotency_keys set status = $4, headers = $5, body = $6
        where principal = $1 and route = $2 and key = $3""",
        principal,
        route,
        key,
        status,
        headers,
        body,
    )


async def forget(connection: Connection, principal: str, route: str, key: str) -> None:
    """Release a key without an answer, so that the request may be sent again with it."""
    await connection.execute(
        "delete from idempotency_keys where principal = $1 and route = $2 and key = $3 and status is null",
        principal,
        route,
        key,
    )
