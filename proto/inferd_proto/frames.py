"""Length-prefixed frames (wire.md section 2): bytes to frames and back, nothing else.

    +----------------------+--------------+---------------------------+
    | payload_len          | frame_type   | payload                   |
    | LEB128, 1 to 5 bytes | 1 byte       | exactly payload_len bytes |
    +----------------------+--------------+---------------------------+

A length is judged when its header is complete, before one payload byte is kept. Never looks
into a payload.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from .errors import ErrorCode, RemoteProtocolError

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""Cap on one payload, fixed by wire.md section 2."""

MAX_LENGTH_BYTES = 5
"""A varint of five bytes reaches 2**35; a sixth byte is malformed (wire.md section 2)."""

HEAD_BYTES = 2048
"""So much of a message that is read past is kept, until the next frame: to tell whose it was."""


class FrameType(IntEnum):
    """The byte after the length."""

    JSON = 0x01
    BLOB = 0x02
    MSGPACK = 0x03


class Frame(NamedTuple):
    """One whole frame. `payload` is None where the reader was told to drop it (see `Admit`)."""

    type: FrameType
    payload: bytes | None


Admit = Callable[[FrameType, int], bool]
"""Called once a header: type and payload length in bytes. True keeps the payload, False reads
past it, keeping its head at most; it may raise `RemoteProtocolError` to refuse the frame."""

_FRAME_TYPES = {member.value: member for member in FrameType}


def encode_length(length: int) -> bytes:
    """`length` as unsigned LEB128."""
    out = bytearray()
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out)


def frame_header(frame_type: FrameType, length: int) -> bytes:
    """What stands before a payload of `length` bytes.

    Raises ValueError over `MAX_FRAME_BYTES`: a peer would close the connection on it.
    """
    if length > MAX_FRAME_BYTES:
        raise ValueError(f"payload of {length} bytes is over the cap of {MAX_FRAME_BYTES}")
    return encode_length(length) + frame_type.to_bytes(1, "little")


def pack(frame_type: FrameType, payload: bytes) -> bytes:
    """One frame as bytes. Raises ValueError over `MAX_FRAME_BYTES`."""
    return frame_header(frame_type, len(payload)) + payload


def _admit_all(_type: FrameType, _length: int) -> bool:
    return True


class FrameReader:
    """Cuts a byte stream into frames, whatever the sizes of the pieces it comes in.

    Call `feed` with what was received, then `next` until it returns None; at the end of the
    stream call `finish`. After an exception the reader is spent: there is no resync.
    """

    __slots__ = ("_admit", "_buffer", "_keep", "_need", "_pos", "_type", "head", "max_frame_bytes")

    def __init__(
        self, *, max_frame_bytes: int = MAX_FRAME_BYTES, admit: Admit = _admit_all
    ) -> None:
        self.max_frame_bytes = max_frame_bytes
        self._admit = admit
        self._buffer = bytearray()
        self._pos = 0
        self._need = -1  # payload bytes still to come; -1 while the header is incomplete
        self._type = FrameType.JSON
        self._keep = True
        self.head: bytes | None = None
        """The first bytes of a dropped message, at most `HEAD_BYTES`; None before they came."""

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take received bytes. What belongs to a dropped payload is not kept, but for its head."""
        if self._pos:
            del self._buffer[: self._pos]
            self._pos = 0
        if self._need > 0 and self.head is not None and not self._keep and not self._buffer:
            skipped = min(self._need, len(data))
            self._need -= skipped
            data = memoryview(data)[skipped:]
        self._buffer += data

    def next(self) -> Frame | None:
        """The next whole frame, or None when more bytes are needed.

        Raises RemoteProtocolError (with `close`): a varint over five bytes, an unknown type, a
        payload over the cap (`frame_too_large`), or what `admit` raises.
        """
        if self._need < 0 and not self._read_header():
            return None
        if not self._keep:
            if self.head is None and not self._read_head():
                return None
            skipped = min(self._need, len(self._buffer) - self._pos)
            self._pos += skipped
            self._need -= skipped
            if self._need:
                return None
            self._need = -1
            return Frame(self._type, None)
        end = self._pos + self._need
        if len(self._buffer) < end:
            return None
        payload = bytes(memoryview(self._buffer)[self._pos : end])
        self._pos = end
        self._need = -1
        if end == len(self._buffer):  # an idle connection keeps nothing of its last frame
            self._buffer.clear()
            self._pos = 0
        return Frame(self._type, payload)

    def finish(self) -> None:
        """The stream ended. Raises RemoteProtocolError if that was inside a frame."""
        if self.within_frame:
            raise RemoteProtocolError("the stream ended inside a frame", close=True)

    def clear(self) -> None:
        """Let go of what is kept. The reader is spent."""
        self._buffer = bytearray()
        self._pos = 0

    @property
    def within_frame(self) -> bool:
        """Whether a frame has begun that is not whole yet."""
        return self._need >= 0 or self._pos < len(self._buffer)

    @property
    def buffered_bytes(self) -> int:
        """Bytes kept for a frame that is not whole yet."""
        return len(self._buffer) - self._pos

    def _read_head(self) -> bool:
        end = self._pos + min(self._need, HEAD_BYTES)
        if len(self._buffer) < end:
            return False
        self.head = bytes(memoryview(self._buffer)[self._pos : end])
        return True

    def _read_header(self) -> bool:
        buffer, start = self._buffer, self._pos
        length = shift = 0
        for pos in range(start, min(start + MAX_LENGTH_BYTES, len(buffer))):
            byte = buffer[pos]
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        else:
            if len(buffer) - start < MAX_LENGTH_BYTES:
                return False
            raise RemoteProtocolError(
                f"malformed frame: its length takes more than {MAX_LENGTH_BYTES} bytes", close=True
            )
        if length > self.max_frame_bytes:
            raise RemoteProtocolError(
                f"frame of {length} bytes is over the cap of {self.max_frame_bytes}",
                code=ErrorCode.FRAME_TOO_LARGE,
                close=True,
            )
        if pos + 1 == len(buffer):
            return False
        frame_type = _FRAME_TYPES.get(buffer[pos + 1])
        if frame_type is None:
            raise RemoteProtocolError(
                f"malformed frame: unknown type 0x{buffer[pos + 1]:02x}", close=True
            )
        self.head = b"" if frame_type is FrameType.BLOB else None
        self._keep = self._admit(frame_type, length)
        self._type = frame_type
        self._need = length
        self._pos = pos + 2
        return True
