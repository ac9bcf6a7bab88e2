"""Name the errors of the driver after which a connection is thrown away, and what the caller is told.

`BROKEN` and `LOST` are tuples of exception classes, for `except` and `isinstance`.
"""

from __future__ import annotations

import asyncpg

from app.errors import ServiceUnavailable

UniqueViolation = asyncpg.UniqueViolationError
StatementRefused = asyncpg.PostgresError
"""An error that PostgreSQL answers while it is available: a value that it cannot store, a deadlock."""

ValueRefused = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)
"""A StatementRefused because of a value, which PostgreSQL refuses again: it cannot be stored, or is too long."""

ReadOnly = asyncpg.ReadOnlySQLTransactionError
NoRoom = asyncpg.InsufficientResourcesError
"""No disk space, no memory, or no free connection: SQLSTATE class 53."""

BROKEN = (
    asyncpg.PostgresConnectionError,
    # PostgreSQL ended the session: an operator, a shutdown, a time-out of the session.
    asyncpg.OperatorInterventionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
    # The server takes no writes: it was demoted or is full. Another server, or the same one later, may take them.
    ReadOnly,
    NoRoom,
    asyncpg.PostgresSystemError,
    # The server lets the role in no more, or has lost the database.
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    # The driver no longer knows the state of the session, for example when a session's end arrives inside an answer.
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    # A statement without an answer is an OSError too, because TimeoutError is one.
    OSError,
)
"""The session has ended, its state is unknown, or it cannot write. Its connection is closed and never used again."""

STATEMENT_ENDED = asyncpg.QueryCanceledError
"""An error whose session goes on, although its base class is one of `BROKEN`."""

LOCKED = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)
"""A row was locked for longer than a statement waits, or its transactions waited for each other."""

LOST = BROKEN
"""It is unknown whether the statement took effect. The caller gets `database_unavailable`."""

MOVED = (ReadOnly, OSError)
"""Errors that suggest that the server has changed its role or is gone, so that all connections are replaced."""


class RowLocked(ServiceUnavailable):
    """Another session holds the lock of a row for longer than a statement waits. Nothing was changed."""


class PoolerNotSet(Exception):
    """Raised if a connection leads to a pooler and DATABASE_POOLER does not say so."""


def database_unavailable() -> ServiceUnavailable:
    """Return the error for a caller whose statement was not answered."""
    return ServiceUnavailable("The database does not answer.", code="database_unavailable", retry_after=2)


def row_locked() -> RowLocked:
    """Return the error for a caller whose statement waited too long for the lock of a row."""
    return RowLocked(
        "Another change of the same object is still running. Send the request again.",
        code="database_unavailable",
        retry_after=1,
    )


def pooler_not_set() -> ServiceUnavailable:
    """Return the error for an operator whose process would not work behind its pooler."""
    return ServiceUnavailable(
        "DATABASE_URL leads to a connection pooler, and this process keeps state in its sessions. "
        "Set DATABASE_POOLER=transaction, or set DATABASE_URL to PostgreSQL's own address.",
        code="database_unavailable",
    )
