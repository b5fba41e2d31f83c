"""Bytes cut into lines, however they come in; a line has a greatest length."""

from collections.abc import Iterator

MAX_LINE_BYTES = 16 << 20
"""The longest line of an honest CLI repeats a whole prompt or a whole answer, escaped."""


class OverlongLine(Exception):
    """A line is longer than it may be, whether or not its end was seen."""


class Lines:
    """Feed it bytes; it gives whole lines without their ends."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self.max_line_bytes = max_line_bytes
        self._partial = bytearray()

    @property
    def unfinished(self) -> bool:
        """Whether a line has begun that has no end yet."""
        return bool(self._partial)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Lines that are whole by now. Use it to its end. Raises OverlongLine after those before.

        After that nothing more may be fed.
        """
        *ends, rest = data.split(b"\n")
        for end in ends:
            self._extend(end)
            line = bytes(self._partial)
            self._partial.clear()
            yield line
        self._extend(rest)

    def _extend(self, data: bytes) -> None:
        self._partial += data
        if len(self._partial) > self.max_line_bytes:
            raise OverlongLine(f"it wrote a line of more than {self.max_line_bytes} bytes")
