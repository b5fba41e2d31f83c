"""Server-sent events from bytes, however they were split: `SseParser.feed` gives data payloads.

Thinks only. Ids, event names and retry times are read and ignored. A line or an event may not grow
without a bound.
"""

MAX_EVENT_BYTES = 1024 * 1024
"""A chunk of an answer is well under 1 KiB; a whole tool call in one piece can be long."""

BOM = b"\xef\xbb\xbf"
"""Some servers begin with it; it is no part of the first line."""

_DATA = b"data: "
_BETWEEN = b"\n\n" + _DATA
_KNOWN_FIELDS = frozenset((b"data", b"event", b"id", b"retry"))


class SseOverflowError(Exception):
    """A line or an event is longer than the limit."""


class SseParser:
    """Incremental; one for each stream. `dropped` counts lines that are no field at all."""

    __slots__ = ("_after_cr", "_begun", "_event", "_event_bytes", "_limit", "_tail", "dropped")

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit = max_event_bytes
        self._tail = bytearray()  # a line that has not ended
        self._event: list[bytes] = []  # data lines of an event that has not ended
        self._event_bytes = 0
        self._after_cr = False
        self._begun = False
        self.dropped = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads of the events that `data` completes. Raises SseOverflowError."""
        if not self._begun:
            data = self._begin(data)
        if self._after_cr or b"\r" in data:
            data = self._unify_line_ends(data)
        if b"\n" not in data:
            self._keep(data)
            return []
        if self._tail:
            data = bytes(self._tail) + data
            self._tail.clear()
        if not self._event and data.startswith(_DATA):
            return self._feed_plain(data)
        return self._feed_lines(data)

    def feed_eof(self) -> list[bytes]:
        """The stream ended: the payload of the event that only lacks its blank line, if any."""
        return self.feed(b"\n\n")

    def _feed_plain(self, data: bytes) -> list[bytes]:
        """What servers really send, one `data: ` line and a blank one, costs one split in all."""
        end = data.rfind(b"\n\n")
        if end < 0:
            return self._feed_lines(data)
        block = data[len(_DATA) : end]
        payloads = block.split(_BETWEEN)
        if block.count(b"\n") != 2 * (len(payloads) - 1) or len(block) > self._limit:
            return self._feed_lines(data)
        rest = data[end + 2 :]
        return payloads + self._feed_lines(rest) if rest else payloads

    def _feed_lines(self, data: bytes) -> list[bytes]:
        payloads: list[bytes] = []
        *lines, tail = data.split(b"\n")
        for line in lines:
            self._take_line(line, payloads)
        if tail:
            self._keep(tail)
        return payloads

    def _take_line(self, line: bytes, payloads: list[bytes]) -> None:
        if len(line) > self._limit:
            raise SseOverflowError(f"a line of more than {self._limit} bytes")
        if not line:
            if self._event:
                payloads.append(b"\n".join(self._event))
                self._event.clear()
                self._event_bytes = 0
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            value = value.removeprefix(b" ")
            # One more for its newline: data lines may be empty, and endless.
            self._event_bytes += len(value) + 1
            if self._event_bytes > self._limit:
                raise SseOverflowError(f"an event of more than {self._limit} bytes")
            self._event.append(value)
        elif name and name not in _KNOWN_FIELDS:
            self.dropped += 1

    def _keep(self, data: bytes) -> None:
        self._tail += data
        if len(self._tail) > self._limit:
            raise SseOverflowError(f"a line of more than {self._limit} bytes")

    def _begin(self, data: bytes) -> bytes:
        """What follows the byte order mark, which some servers begin with; its part is kept."""
        data = bytes(self._tail) + data
        self._tail.clear()
        self._begun = not (len(data) < len(BOM) and BOM.startswith(data))
        if self._begun:
            return data.removeprefix(BOM)
        self._tail += data
        return b""

    def _unify_line_ends(self, data: bytes) -> bytes:
        """A CR ends a line at once; an LF after it, maybe in the next feed, belongs to it."""
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if data.endswith(b"\r"):
            self._after_cr = True
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
