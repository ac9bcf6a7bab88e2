"""Say shortly why PostgreSQL takes no connection or refuses a right, and what to do about it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
from sqlalchemy.exc import DBAPIError

_SECONDS = 5.0
_CORRECT = "correct DATABASE_URL"
_NO_RIGHT = (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidSchemaNameError)
"""Without `usage` on a schema, PostgreSQL says that there is no schema to create in."""


def is_of_database(error: BaseException) -> bool:
    """Return True for an error of the driver, or of the connection."""
    return isinstance(
        error,
        asyncpg.PostgresError | asyncpg.InterfaceError | asyncpg.InternalClientError | DBAPIError | OSError,
    )


async def explain(url: str) -> str | None:
    """Try to connect, and return why it fails with what to do. None if the connection can be made.

    The text names host, role and database of `url`, and never its password.
    """
    plain = url.replace("postgresql+asyncpg://", "postgresql://", 1)
    try:
        async with asyncio.timeout(_SECONDS):
            connection = await asyncpg.connect(plain, timeout=_SECONDS)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        return _sentence(error, plain)
    connection.terminate()
    return None


def lacking_right(error: BaseException, url: str) -> str | None:
    """Return which right the role lacks for a statement that failed with `error`, and what to do. None otherwise."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, _NO_RIGHT):
        cause = cause.__cause__
    if cause is None:
        return None
    role, name = _role_and_database(url)
    return (
        f"PostgreSQL at {_host(url)} refuses the role {role}: {cause} (database {name}). `coseat migrate` needs "
        "usage and create on the schema, every other command the rights to read and write its tables. Grant them, or "
        "name the role that owns the schema in DATABASE_URL."
    )


def _role_and_database(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return unquote(parts.username or "") or "of this user", unquote(parts.path.strip("/"))


def _sentence(error: Exception, url: str) -> str:
    host, (role, name) = _host(url), _role_and_database(url)
    match error:
        case asyncpg.InvalidPasswordError():
            return f"PostgreSQL at {host} refuses the password of the role {role}: {_CORRECT}."
        case asyncpg.InvalidAuthorizationSpecificationError():
            return f"PostgreSQL at {host} does not let the role {role} in: create the role, or {_CORRECT}."
        case asyncpg.InvalidCatalogNameError():
            return (
                f"PostgreSQL at {host} has no database {name}: create it (`createdb {name}`), or {_CORRECT}."
            )
        case asyncpg.TooManyConnectionsError():
            return (
                f"PostgreSQL at {host} has no free connection: lower DATABASE_POOL_SIZE, start fewer processes, or "
                "raise max_connections."
            )
        case asyncpg.CannotConnectNowError():
            return f"PostgreSQL at {host} is starting or stopping: try again when it is ready."
        case asyncpg.InsufficientPrivilegeError():
            return f"The role {role} has no right to use the database {name} at {host}: grant it connect and create."
        case ssl.SSLError():
            return f"TLS with PostgreSQL at {host} fails: check its certificate, or sslmode in DATABASE_URL."
        case socket.gaierror():
            return f"The host {host} of DATABASE_URL is unknown: correct its name, or the resolver of this machine."
        case TimeoutError():
            return f"PostgreSQL at {host} does not answer: check the way to it, or {_CORRECT}."
        case OSError():
            return f"Nothing answers as PostgreSQL at {host}: start PostgreSQL, or {_CORRECT}."
        case asyncpg.PostgresError():
            return f"PostgreSQL at {host} refuses the connection (SQLSTATE {error.sqlstate}): see its log."
        case _:
            return f"What answers at {host} does not speak as PostgreSQL does: {_CORRECT}."


def _host(url: str) -> str:
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    return query["host"][0] if "host" in query else parts.netloc.rpartition("@")[2]
