"""A stream of events that is passed on as it came: whole lines at a time, its end told from what
stands at the beginning of a line. What is malformed is left out, what tells of an error kept back.

Thinks only. It must never take a stream that broke off for one that ended.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from msgspec import Struct

from inferd_proto import Usage

from .chat_completions.chunks import ErrorDetail
from .sse import BOM, MAX_EVENT_BYTES, SseParser

_TAIL_BYTES = 4096
"""Of what went through: the last chunk that says why an answer ended fits in."""
_LAST_BYTES = 1024
"""Enough for the chunk that says why and one with the usage."""
_BLANK = (b"\n\n", b"\n\r\n")
_DONE = b"\ndata: [DONE]"
_BETWEEN = b"\n\ndata: "
_ERROR = b'"error"'  # not within a text, where quotes are escaped
_TOLD_ERROR = re.compile(rb'"error"(?!\s*:\s*null\b)')
_ERROR_EVENTS = (b"\nevent: error", b"\nevent:error")
_TYPE_ERROR = re.compile(rb'\{"type":\s?"error"')
_FIELDS = frozenset((b"data", b"event", b"id", b"retry"))
_STARTS = (b"\ndata:", b"\nevent:")
_USAGE = b'"usage":'  # not within a text, where quotes are escaped
_USAGE_BYTES = 512
_REASON = re.compile(rb'"finish_reason":\s?"[^"]')  # some servers have "" in every chunk
_TOKENS = re.compile(
    rb'"(prompt|completion|(?:cache_read_|cache_creation_)?input|output)_tokens":\s*(\d{1,15})\b'
)
_CACHED = (b"cache_read_input", b"cache_creation_input")
"""Anthropic's `input_tokens` are those that were neither read from a cache nor written to it."""


class _Protocol(NamedTuple):
    """How the events of one API say that the answer is over.

    `last` are the beginnings of the events that do. `reason` stands in an answer that is whole
    where some servers leave the last event out; `substitute` is it. With `checked` every payload is
    looked at, not only those that seem to tell of an error.
    """

    last: tuple[bytes, ...]
    reason: re.Pattern[bytes] | None = None
    substitute: bytes = b""
    checked: bool = False


_COMPLETIONS = _Protocol((_DONE,), _REASON, b"data: [DONE]\n\n", checked=True)
_PROTOCOLS = {
    "/v1/chat/completions": _COMPLETIONS,
    "/v1/completions": _COMPLETIONS,
    "/v1/responses": _Protocol(
        (
            b"\nevent: response.completed",
            b"\nevent: response.incomplete",
            b"\nevent: response.failed",
        )
    ),
    "/v1/messages": _Protocol((b"\nevent: message_stop",)),
}


class _Event(Struct, gc=False):
    error: ErrorDetail | str | None = None
    message: str | None = None


_QUIET = _Event()
_decoder = msgspec.json.Decoder(_Event)


class EventRelay:
    """Feed it until it is `complete` or has an `error`; what it gives back may be passed on.

    `began`: the first event is there, comments are none. `error` is what the upstream says of its
    failure, "" where it does not say. `dropped` counts malformed lines. At the end of the body
    `feed_eof` tells whether all came.
    """

    __slots__ = (
        "_ending",
        "_failing",
        "_head",
        "_held",
        "_protocol",
        "_redact",
        "_tail",
        "began",
        "complete",
        "dropped",
        "error",
    )

    def __init__(self, path: str, redact: Callable[[str], str]) -> None:
        """Of `path`, one of the APIs that stream; `redact` takes secrets out of error messages."""
        self._protocol = _PROTOCOLS[path]
        self._redact = redact
        self._held = b""
        self._head = b""
        self._tail = b"\n"
        self._failing: bytes | None = None
        self._ending = False
        self.began = False
        self.complete = False
        self.dropped = 0
        self.error: ErrorDetail | str | None = None

    @property
    def usage(self) -> Usage | None:
        """What the upstream has told of it, with its first event or its last."""
        return read_usage(self._head, self._tail)

    @property
    def ending(self) -> bool:
        """The answer has said why it ended: no more of it than its usage is due."""
        reason = self._protocol.reason
        return self._ending or (
            reason is not None and reason.search(self._tail[-_LAST_BYTES:]) is not None
        )

    def feed(self, data: bytes) -> bytes:
        """What may be passed on of all that came so far and was not."""
        if self._failing is not None:
            self._fail(self._failing + data)
            return b""
        if self._held:
            data = self._held + data
        if not self.began:
            data = data.removeprefix(BOM)
        end = data.rfind(b"\n") + 1
        self._held = data[end:]
        if len(self._held) > MAX_EVENT_BYTES:
            self.error = f"a line of more than {MAX_EVENT_BYTES} bytes"
            return b""
        if self._held:
            data = data[:end]
        if not data:
            return b""
        if self._protocol.checked:
            harmless = self._is_plain(data)
        else:
            harmless = _ERROR not in data and _first(data, _ERROR_EVENTS) < 0
        failing = b""
        if not harmless:
            data, failing = self._sift(data)
        self._look(data)
        if failing:
            self._fail(failing)
        return data

    def feed_eof(self) -> bytes:
        """What is left to be passed on; the answer is not whole where this leaves `complete` and
        `error` as they are.
        """
        rest = self.feed(b"\n\n") if self._held or self._failing is not None else b""
        if self._failing is not None and self.error is None:
            self.error = ""
        protocol = self._protocol
        if self.complete or self.error is not None or protocol.reason is None:
            return rest
        if self._ending:
            self.complete = True
        elif protocol.reason.search(self._tail):
            self.complete = True
            rest += (
                protocol.substitute
                if self._tail.endswith(_BLANK)
                else (b"\n" + protocol.substitute)
            )
        return rest

    def _is_plain(self, data: bytes) -> bool:
        """Whether it is nothing but one chunk after the other, none of which tells of a failure.

        That is the rule, and quickly told; what else there may be is looked at line by line.
        """
        lines = data.strip(b"\n")
        done = lines.endswith(_DONE)
        if done:
            lines = lines[: -len(_DONE)].rstrip(b"\n")
        if not lines.startswith(b"data: {"):
            return False
        # a line end stands in no JSON string, so it parts them safely
        payloads = lines.replace(_BETWEEN, b"\n")
        count = 1 + (len(lines) - len(payloads)) // (len(_BETWEEN) - 1)
        try:
            events = _decoder.decode_lines(payloads[len(b"data: ") :])
            if not data.isascii():
                data.decode()
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return False
        plain = len(events) == count == events.count(_QUIET)
        self._ending |= done and plain
        return plain

    def _sift(self, data: bytes) -> tuple[bytes, bytes]:
        """Its good lines up to the first that tells of a failure, and all from there."""
        good: list[bytes] = []
        at = end = 0
        for line in data.splitlines(keepends=True):
            at, end = end, end + len(line)
            name, _, value = line.strip(b"\r\n").partition(b":")
            payload = value.strip()
            if name == b"event" and payload == b"error":
                return b"".join(good), data[at:]
            if name == b"data":
                if self._protocol.checked and payload == b"[DONE]":
                    self._ending = True
                elif self._protocol.checked or _ERROR in payload:
                    event = _decode(payload)
                    if self._tells_of_failure(event, payload):
                        return b"".join(good), data[at:]
                    line = b"" if event is None else self._redacted(line)
            elif name and name not in _FIELDS:
                line = b""
            self.dropped += not line
            good.append(line)
        return b"".join(good), b""

    def _tells_of_failure(self, event: _Event | None, payload: bytes) -> bool:
        if event is None:
            return _ERROR in payload
        if event.error is None and event.message is not None:
            return self._protocol.checked or _TYPE_ERROR.match(payload) is not None
        return event.error is not None

    def _redacted(self, line: bytes) -> bytes:
        """An error that stands deeper is for the client to understand, but not what it quotes."""
        if _TOLD_ERROR.search(line) is None:
            return line
        text = line.decode()
        redacted = self._redact(text)
        return line if redacted == text else redacted.encode()

    def _look(self, data: bytes) -> None:
        if not data:
            return
        if not self.began:
            self.began = _first(data, _STARTS) >= 0
            self._head = data[:_TAIL_BYTES]
        if not self._ending and not self._protocol.checked:
            self._ending = _first(data, self._protocol.last) >= 0
        kept = data if len(data) >= _TAIL_BYTES else self._tail + data
        self._tail = kept[-_TAIL_BYTES:]
        if self._ending and self._tail.endswith(_BLANK):
            self.complete = True

    def _fail(self, event: bytes) -> None:
        """Keep the event that tells of a failure until it is whole."""
        self._failing = event
        payloads = SseParser(max_event_bytes=2 * MAX_EVENT_BYTES).feed(event)
        if payloads:
            self.error = _read_error(payloads[0])
        elif len(event) > MAX_EVENT_BYTES:
            self.error = ""


def _decode(payload: bytes) -> _Event | None:
    try:
        payload.decode()
        return _decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def read_usage(*parts: bytes) -> Usage | None:
    """What stands last in each of `parts`, by the names that all of the APIs have for it."""
    counts: dict[bytes, int] = {}
    for part in parts:
        at = part.rfind(_USAGE)
        if at >= 0:
            figures = _TOKENS.findall(part[at : at + _USAGE_BYTES])
            counts |= {name: int(count) for name, count in figures}
    if not counts:
        return None
    asked = counts.get(b"input", 0) + sum(counts.get(name, 0) for name in _CACHED)
    return Usage(
        counts.get(b"prompt", asked),
        counts.get(b"completion", counts.get(b"output", 0)),
    )


def _first(data: bytes, marks: tuple[bytes, ...]) -> int:
    """Where the first line begins that begins with one of `marks`, which hold the line end before
    it; -1 where there is none. `data` begins with a line.
    """
    first = -1
    for mark in marks:
        if data.startswith(mark[1:]):
            return 0
        at = data.find(mark)
        if at >= 0 and (first < 0 or at < first):
            first = at + 1
    return first


def _read_error(payload: bytes) -> ErrorDetail | str:
    event = _decode(payload) or _QUIET
    return event.error or event.message or ""
