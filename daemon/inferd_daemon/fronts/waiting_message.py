"""The message that waits in a paused client's socket: looked at, and taken out only if it is short
work: what keeps or ends a lease, or tells of the daemon. Whatever else waits stays unread, for
whoever has the socket next.
"""

import socket
from enum import Enum

from inferd_proto import (
    Cancel,
    Control,
    Frame,
    FrameReader,
    FrameType,
    RemoteProtocolError,
    decode_held,
    pack,
)

SHORT = frozenset(
    {
        "lease.renew",
        "lease.release",
        "lease.get",
        "lease.list",
        "runtime.get",
        "runtime.list",
        "status",
    }
)
"""Answered in milliseconds, and needed while the daemon's requests take their time to end."""
LOOK_BYTES = 4096
"""Each of these is a few hundred at most."""


class Unread(Enum):
    """Why nothing was taken."""

    PARTIAL = "the rest of a short message may come"
    LATER = "it is for the next owner of the socket"


def take_short(sock: socket.socket) -> bytes | Unread:
    """A whole short message out of the socket; b"" at the end of the stream.

    Raises BlockingIOError where nothing is there, OSError where the client is gone.
    """
    seen = sock.recv(LOOK_BYTES, socket.MSG_PEEK)
    if not seen:
        return seen
    found = _first_message(seen)
    if isinstance(found, bytes):
        return sock.recv(len(found))
    return found


def _first_message(seen: bytes) -> bytes | Unread:
    reader = FrameReader(max_frame_bytes=LOOK_BYTES, admit=_no_blob)
    reader.feed(seen)
    try:
        frame = reader.next()
    except RemoteProtocolError:
        return Unread.LATER
    if frame is None:
        return Unread.PARTIAL if len(seen) < LOOK_BYTES else Unread.LATER
    whole = b"" if frame.payload is None else pack(frame.type, frame.payload)
    # A length may be written in more bytes than it takes.
    if whole and seen.startswith(whole) and _is_short(frame):
        return whole
    return Unread.LATER


def _is_short(frame: Frame) -> bool:
    assert frame.payload is not None
    message = decode_held(frame.type, frame.payload)
    return isinstance(message, Cancel) or (isinstance(message, Control) and message.op in SHORT)


def _no_blob(frame_type: FrameType, _length: int) -> bool:
    if frame_type is FrameType.BLOB:
        raise RemoteProtocolError("a blob is no short message")
    return True
