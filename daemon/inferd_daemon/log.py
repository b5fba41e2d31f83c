"""Structured log lines on standard error: JSON for machines, coloured text for people.

Prompts, answers and secrets have no field here: callers log ids, counts and reasons.
"""

import logging
import sys
from collections.abc import Callable

import msgspec
import structlog

from .config.schema import LogFormat, LogLevel

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure(log_format: LogFormat, level: LogLevel) -> None:
    """Set up structlog for the whole process; call once, before the first line.

    Modules get their logger by `structlog.get_logger(__name__)`.
    """
    human = log_format == "human" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=not human),
    ]
    renderer: structlog.typing.Processor
    if human:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    else:
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer(serializer=_to_json)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    # httpx logs every request's URL at INFO
    logging.getLogger("httpx").setLevel(logging.WARNING)


def _to_json(event: object, default: Callable[[object], object], **_: object) -> str:
    return msgspec.json.encode(event, enc_hook=default).decode()
