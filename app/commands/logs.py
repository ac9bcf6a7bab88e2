"""Structured logs without personal data or secrets.

Standard error gets one JSON object per line. Messages of exceptions can hold both: PostgreSQL repeats the row that it
refuses, pydantic the value, a client library the URL. So an exception is logged by its type and its lines of code. Only
messages of this service's own errors are logged.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import TextIO

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

from app.commands.log_sampling import Sampling
from app.errors import BillingError
from app.settings import LogLevel, SettingsError

_WITH_MESSAGE = (BillingError, SettingsError)
_SAFE_FACTS = ("sqlstate", "table_name", "column_name", "constraint_name", "errno")
"""Attributes of PostgreSQL's and the system's errors that hold names and codes, never values."""

_LONGEST_CHAIN = 8
_MOST_PLACES = 24


def _serialize(event: object, **_: object) -> str:
    try:
        return orjson.dumps(event, default=_type_name, option=orjson.OPT_UTC_Z).decode()
    except TypeError:
        # orjson refuses lone surrogates, numbers of more than 64 bits, and keys that are no texts.
        return json.dumps(event, default=_type_name, skipkeys=True)


def _type_name(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else type(value).__name__


def _stamp(_: WrappedLogger, level: str, event: EventDict) -> EventDict:
    event["level"] = level
    event["timestamp"] = datetime.now(UTC)
    return event


def described(error: BaseException) -> list[dict[str, object]]:
    """Return an exception and its causes, newest first.

    Each has its type, its places in the code, and facts without values. No exception is described twice: a member of a
    group may have the group as its cause.
    """
    return _described(error, set())


def _described(error: BaseException, seen: set[int]) -> list[dict[str, object]]:
    return [_one(link, seen) for link in _chain(error, seen)]


def _chain(error: BaseException, seen: set[int]) -> Iterator[BaseException]:
    current: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if current is None or id(current) in seen:
            return
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _one(error: BaseException, seen: set[int]) -> dict[str, object]:
    kind = type(error)
    found: dict[str, object] = {"type": f"{kind.__module__}.{kind.__qualname__}"}
    if isinstance(error, _WITH_MESSAGE):
        found["message"] = str(error)
    facts = {name: getattr(error, name, None) for name in _SAFE_FACTS}
    found |= {name: value for name, value in facts.items() if value is not None}
    if isinstance(error, BaseExceptionGroup):
        found["members"] = [_described(member, seen) for member in error.exceptions[:_LONGEST_CHAIN]]
    return {**found, "at": _places(error.__traceback__)}


def _places(trace: TracebackType | None) -> list[str]:
    """Return up to _MOST_PLACES of the innermost frames as `file:line function`, the failing one last."""
    found: deque[str] = deque(maxlen=_MOST_PLACES)
    while trace is not None:
        code = trace.tb_frame.f_code
        found.append(f"{code.co_filename}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return list(found)


def _describe_failure(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    given = event.pop("exc_info", None)
    error = sys.exc_info()[1] if given is True else given
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["failure"] = described(error)
    return event


class _Record(logging.Formatter):
    """Formats records of libraries as our own.

    Only the first line of a message is used, without its arguments.
    """

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {"logger": record.name, "level": record.levelname.lower()}
        lines = str(record.msg).strip().split("\n")
        first, last = lines[0], lines[-1]
        if isinstance(record.msg, BaseException):
            event |= {"event": "failed", "failure": described(record.msg)}
        elif first.startswith("Traceback"):
            # If the application does not start, uvicorn logs the traceback as text.
            kind, _, message = last.partition(": ")
            event |= {"event": "failed", "type": kind}
            event |= {"message": message} if kind.startswith("app.errors.") else {}
        else:
            event["event"] = first
        if record.exc_info and record.exc_info[1] is not None:
            event["failure"] = described(record.exc_info[1])
        return _serialize(event)


def configure_logs(level: LogLevel, stream: TextIO | None = None) -> None:
    """Set up the logs of the whole process.

    Loggers of libraries log from `warning` on, because at lower levels they print bodies of requests.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    sampling = Sampling()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(number),
        processors=[
            sampling.process,
            _stamp,
            _describe_failure,
            structlog.processors.JSONRenderer(serializer=_serialize),
        ],
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Record())
    handler.addFilter(sampling.filter)
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler])
    for name in ("stripe", "httpx", "httpcore", "asyncpg"):
        logging.getLogger(name).setLevel(logging.WARNING)
    sys.excepthook = _log_fatal_error


def _log_fatal_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Log the exception that ends the process in the same form."""
    event = {
        "event": "ended_by_error",
        "level": "critical",
        "failure": described(error.with_traceback(trace)),
    }
    print(_serialize(event), file=sys.stderr)
