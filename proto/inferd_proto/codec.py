"""JSON and MessagePack payloads to structs and back; both carry the same messages.

Whatever a payload holds, decoding ends in a value or in a `RemoteProtocolError` that names the
path of the first mistake; it never raises anything else.
"""

import re
from codecs import getincrementaldecoder
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from .errors import LocalProtocolError, RemoteProtocolError, quoted
from .frames import FrameType

T = TypeVar("T")

MAX_REASON_CHARS = 300
"""The longest error text, whatever the decoder has to say."""

_UTF8_PIECE_BYTES = 64 * 1024

_AT = re.compile(r"^(.*) - at `(?:(?:key|value)` in `)?\$\.?([^`]*)`$", re.DOTALL)
_OURS = re.compile(r"^`([^`]+)`: (.*)$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(\w+)`$")
_ENUM = re.compile(r"^Invalid enum value '(.*)'$", re.DOTALL)
_TAG = re.compile(r"^Invalid value '(.*)'$", re.DOTALL)
_TRUNCATED = "Input data was truncated"
_TAG_FIELD = re.compile(r"\.?(?:type|kind)$")

_encode_json = msgspec.json.Encoder().encode
_encode_msgpack = msgspec.msgpack.Encoder().encode

TEXT_ENCODERS: dict[FrameType, Callable[[str], bytes]] = {
    FrameType.JSON: _encode_json,
    FrameType.MSGPACK: _encode_msgpack,
}
"""One string at a time for the hot path; they raise UnicodeEncodeError for a lone surrogate."""


class Codec(Generic[T]):
    """Decodes payloads of both encodings into one type."""

    __slots__ = ("_json", "_msgpack")

    def __init__(self, type_: type[T]) -> None:
        self._json = msgspec.json.Decoder(type_)
        self._msgpack = msgspec.msgpack.Decoder(type_)

    def decode(self, frame_type: FrameType, payload: bytes | msgspec.Raw) -> T:
        """Raises RemoteProtocolError (`invalid_request`) that names the path of the mistake."""
        try:
            if frame_type is FrameType.MSGPACK:
                return self._msgpack.decode(payload)
            return self._json.decode(payload)
        except msgspec.DecodeError as error:
            reason = _reason(str(error)) if payload else "the message is empty"
            raise RemoteProtocolError(reason) from None
        except UnicodeDecodeError:
            raise RemoteProtocolError("the message is not valid UTF-8") from None
        except RecursionError:
            raise RemoteProtocolError("the message nests too deep") from None


def encode(frame_type: FrameType, message: object) -> bytes:
    """`message` as a payload of that encoding.

    Raises LocalProtocolError for what the encoding cannot carry: lone surrogates, values of
    unknown types, in MessagePack integers beyond 64 bits.
    """
    try:
        if frame_type is FrameType.MSGPACK:
            return _encode_msgpack(message)
        return _encode_json(message)
    except (OverflowError, UnicodeEncodeError, RecursionError, TypeError) as error:
        raise LocalProtocolError(f"a message that cannot be encoded: {error}") from None


def check_utf8(payload: bytes) -> None:
    """All of a JSON payload must be UTF-8, also where the decoder skips unknown fields.

    Works in pieces: a payload at the frame cap must not be held a second time as text. Raises
    RemoteProtocolError.
    """
    if payload.isascii():
        return
    decoder = getincrementaldecoder("utf-8")()
    view = memoryview(payload)
    try:
        for start in range(0, len(view), _UTF8_PIECE_BYTES):
            decoder.decode(view[start : start + _UTF8_PIECE_BYTES])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise RemoteProtocolError("the message is not valid UTF-8") from None


def _reason(text: str) -> str:
    """msgspec's words as `path`: reason, with what the peer wrote cut short."""
    at = _AT.match(text)
    text, path = at.groups() if at else (text, "")
    if text == _TRUNCATED:
        text = "the message ends in the middle of a value"
    elif ours := _OURS.match(text):
        path, text = _join(path, ours[1]), ours[2]
    elif missing := _MISSING.match(text):
        path, text = _join(path, missing[1]), "is missing"
    elif enum := _ENUM.match(text):
        text = f"{quoted(enum[1])} is not one of its values"
    elif tag := _TAG.match(text):
        path, text = _TAG_FIELD.sub("", path) or "message", f"unknown type {quoted(tag[1])}"
    elif not path and text.startswith("Expected "):
        path = "message"
    if len(text) > MAX_REASON_CHARS:
        text = text[:MAX_REASON_CHARS] + "…"
    return f"`{path}`: {text}" if path else text


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
