"""JSON and MessagePack payloads to structs and back; both carry the same messages.

Whatever a payload holds, decoding ends in a value or in a `RemoteProtocolError` that names the
path of the first mistake; it never raises anything else.
"""

import re
from typing import Generic, TypeVar

import msgspec

from .errors import RemoteProtocolError
from .frames import FrameType

T = TypeVar("T")

MAX_REASON_CHARS = 300
"""An error text quotes the peer's input; it must not be a way to have it echoed at length."""

_UNKNOWN_TAG = re.compile(r"^Invalid value '(.*)' - at `\$\.?(.*?)\.?(type|kind)`$", re.DOTALL)
_json_encoder = msgspec.json.Encoder()
_msgpack_encoder = msgspec.msgpack.Encoder()


class Codec(Generic[T]):
    """Decodes payloads of both encodings into one type."""

    def __init__(self, type_: type[T]) -> None:
        self._json = msgspec.json.Decoder(type_)
        self._msgpack = msgspec.msgpack.Decoder(type_)

    def decode(self, frame_type: FrameType, payload: bytes) -> T:
        """Raises RemoteProtocolError (`invalid_request`) that names the path of the mistake."""
        try:
            if frame_type is FrameType.MSGPACK:
                return self._msgpack.decode(payload)
            return self._json.decode(payload)
        except msgspec.DecodeError as error:
            raise RemoteProtocolError(_reason(str(error))) from None
        except UnicodeDecodeError:
            raise RemoteProtocolError("the message is not valid UTF-8") from None
        except RecursionError:
            raise RemoteProtocolError("the message nests too deep") from None


def encode(frame_type: FrameType, message: object) -> bytes:
    """`message` as a payload of that encoding."""
    if frame_type is FrameType.MSGPACK:
        return _msgpack_encoder.encode(message)
    return _json_encoder.encode(message)


def _reason(text: str) -> str:
    """msgspec's words, with our way to write a path."""
    unknown = _UNKNOWN_TAG.match(text)
    if unknown:
        value, path, _ = unknown.groups()
        text = f"`{path or 'message'}`: unknown type {value[:40]!r}"
    text = text.replace("`$.", "`").replace(" - at `$`", "")
    if len(text) > MAX_REASON_CHARS:
        text = text[:MAX_REASON_CHARS] + "…"
    return text
