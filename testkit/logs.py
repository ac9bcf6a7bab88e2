"""Capture the log lines that a process with a log level writes, or write none."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from app.commands.logs import configure_logs
from app.settings import LogLevel


@contextmanager
def captured_logs(level: LogLevel) -> Iterator[io.StringIO]:
    """Yield the stream to which logs go during the block; what was configured before is restored at its end."""
    before = structlog.get_config()
    root = logging.getLogger()
    handlers, former_level = root.handlers[:], root.level
    root.handlers = []
    hook = sys.excepthook
    stream = io.StringIO()
    configure_logs(level, stream)
    # The loggers of modules outlive the block.
    structlog.configure(cache_logger_on_first_use=False)
    try:
        yield stream
    finally:
        root.handlers, root.level = handlers, former_level
        sys.excepthook = hook
        structlog.configure(**before)


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Write critical lines only during the block; what was configured before is restored at its end."""
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), cache_logger_on_first_use=False
    )
    try:
        yield
    finally:
        structlog.configure(**before)
