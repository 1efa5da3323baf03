"""Where this package's log lines go: to standard error, one line each, so that standard output stays a program's."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import EventDict, WrappedLogger

from easyremote.terminal import plain

__all__ = ["configure_logging"]


def configure_logging(level: str) -> None:
    """Send log lines of `level` (DEBUG, INFO, WARNING or ERROR) and above to standard error."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _plainly,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _plainly(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    # Names and errors in it are what callers sent; a stack keeps its lines.
    return {
        name: plain(value, lines=name == "exception") if isinstance(value, str) else value
        for name, value in event.items()
    }
