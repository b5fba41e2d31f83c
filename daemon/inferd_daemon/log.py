"""Structured log lines on standard error: JSON for machines, coloured text for people.

Prompts, answers and secrets have no field here: callers log ids, counts and reasons, and of an
exception only its type and its path through the code are shown. Never fails, or holds up, who logs.
"""

import logging
import sys
from collections.abc import Callable
from traceback import StackSummary, extract_tb
from typing import TextIO

import msgspec
import structlog
from structlog.typing import EventDict, ExcInfo, WrappedLogger

from .config.schema import LogFormat, LogLevel
from .log_stream import LogStream

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
        structlog.processors.ExceptionRenderer(describe_exception),
    ]
    renderer: structlog.typing.Processor
    if human:
        shared.append(_escape)
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    else:
        renderer = structlog.processors.JSONRenderer(serializer=_to_json)
    stream = _stream_to(sys.stderr)
    structlog.configure(
        processors=[_Losses(stream), *shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: _Lines(sys.stderr, stream),
        cache_logger_on_first_use=True,
    )
    # httpx logs every request's URL at INFO
    logging.getLogger("httpx").setLevel(logging.WARNING)


def describe_exception(exc_info: ExcInfo) -> str:
    """Types, files and lines of an exception and its causes.

    Not its text, which may quote a prompt.
    """
    return "\n".join(_describe(exc_info[1]))


def _describe(error: BaseException) -> list[str]:
    lines: list[str] = []
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        lines += [*_describe(before), "which led to:"]
    stack = StackSummary.from_list(extract_tb(error.__traceback__))
    lines += [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in stack]
    lines.append(f"{type(error).__module__}.{type(error).__qualname__}")
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            lines += [f"  {line}" for line in _describe(inner)]
    return lines


def _stream_to(file: TextIO) -> LogStream | None:
    try:
        return LogStream(file.fileno())
    except (OSError, ValueError):  # it has no descriptor, or a closed one
        return None


class _Losses:
    """Tells in the next line how many before it could not be written."""

    def __init__(self, stream: LogStream | None) -> None:
        self._stream = stream

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        if self._stream is not None and self._stream.lost:
            event["lines_lost"] = self._stream.lost
        return event


class _Lines:
    """Writes lines; one that nobody can take is lost, and the daemon goes on."""

    def __init__(self, file: TextIO, stream: LogStream | None) -> None:
        self._file = file
        self._stream = stream

    def msg(self, line: str) -> None:
        if self._stream is not None:
            self._stream.write(line + "\n")
            return
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except (OSError, ValueError):
            return  # a closed pipe, a full disk

    debug = info = warning = error = msg


def _escape(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """What a client wrote (an id) must not move the cursor of a terminal."""
    return {
        key: value.encode("unicode_escape").decode() if _is_raw(key, value) else value
        for key, value in event.items()
    }


def _is_raw(key: str, value: object) -> bool:
    return isinstance(value, str) and not value.isprintable() and key != "exception"


def _to_json(event: EventDict, default: Callable[[object], object], **_: object) -> str:
    try:
        return msgspec.json.encode(event, enc_hook=default).decode()
    except UnicodeEncodeError:  # a file name that is not UTF-8
        plain = {key: str(value).encode(errors="backslashreplace") for key, value in event.items()}
        return msgspec.json.encode({key: text.decode() for key, text in plain.items()}).decode()
