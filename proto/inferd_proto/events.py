"""What a connection tells its owner: the whole vocabulary, in past tense."""

from typing import NamedTuple

from .errors import ErrorCode
from .frames import FrameType
from .messages import Request
from .messages.answers import Answer


class RequestReceived(NamedTuple):
    """A whole request, its attachments' bytes in the order of `attachments`.

    `charged` bytes of it are on the connection's account until whoever serves it gives them back.
    """

    id: str
    request: Request
    blobs: tuple[bytes, ...]
    charged: int = 0


class MessageHeld(NamedTuple):
    """A long message is whole and waits: `decode_held` makes something of it, wherever that holds
    up nobody, and `ServerConnection.resume` goes on with that."""

    encoding: FrameType
    payload: bytes


class CancelReceived(NamedTuple):
    """The peer wants the request `id`, which is in flight, to end."""

    id: str


class UploadCancelled(NamedTuple):
    """The peer cancelled the request `id` before its attachments were complete.

    It has ended: write `data`, its last frame. The blobs that are on their way are read past.
    """

    id: str
    data: bytes


class Refused(NamedTuple):
    """A message was refused: write `data` (an error frame), then close where `close` is true."""

    id: str
    code: ErrorCode
    message: str
    data: bytes
    close: bool


class AnswerReceived(NamedTuple):
    """A part or, where `terminal`, the end of the answer to the request `id`."""

    id: str
    answer: Answer
    terminal: bool


class Closed(NamedTuple):
    """The peer's stream ended; `clean` is false where that was inside a frame or an upload."""

    clean: bool


Event = RequestReceived | MessageHeld | CancelReceived | UploadCancelled | Refused | Closed
ClientEvent = AnswerReceived | Closed
