"""Structured logs: one JSON object a line on standard error, with nothing of a person or a secret in it."""

from __future__ import annotations

import logging
import sys

import orjson
import structlog

from app.settings import LogLevel


def _serialize(event: object, **_: object) -> str:
    return orjson.dumps(event, default=str).decode()


def configure_logs(level: LogLevel) -> None:
    """For the whole process. Libraries' own loggers speak from `warning` on: at lower levels they print bodies."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(number),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_serialize),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        level=max(number, logging.WARNING), stream=sys.stderr, format="%(levelname)s %(name)s %(message)s"
    )
    for name in ("stripe", "httpx", "httpcore", "asyncpg"):
        logging.getLogger(name).setLevel(logging.WARNING)
