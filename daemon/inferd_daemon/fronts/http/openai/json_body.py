"""The JSON body of a request as a typed struct, or the error that names the field.

Pure. What a request may not hold is refused with its path; fields that no struct names are ignored.
"""

import re
from typing import TypeVar

import msgspec

from inferd_proto import Codec, FrameType, RemoteProtocolError, check_utf8

from ....errors import CallerFault

MAX_TEXTS = 400_000
"""Texts and field names of one body together: a text of one letter takes sixty bytes decoded."""

T = TypeVar("T")
_PATH = re.compile(r"`([^`]+)`: ")
_WHOLE = "message"
"""What the decoder calls the body itself."""
_TAKEN_FOR = ("ends in the middle of a value", "unexpected end of hex escape")
_SURROGATE = "surrogate pair"
_HALF = "the body holds half a surrogate pair, which is no character"
_LONE_HIGH = re.compile(
    rb"(?<!\\)(?:\\\\)*\\u[dD][89abAB][0-9a-fA-F]{2}(?:[^\\]|\\[^u])", re.DOTALL
)
"""The decoder has other names for such a one at the end of the body, or where it only skips."""


class FieldFault(CallerFault):
    """The field `param` of the body is at fault (None: the body as a whole)."""

    def __init__(self, param: str | None, why: str) -> None:
        super().__init__(f"`{param}`: {why}" if param else why)
        self.param = param


def decode_body(codec: Codec[T], body: bytes) -> T:
    """Raises FieldFault."""
    if not body:
        raise FieldFault(None, "the body is empty; it must be a JSON object")
    if _is_heavy(body):
        raise FieldFault(None, f"the body holds more than {MAX_TEXTS} texts and field names")
    try:
        check_utf8(body)  # what is passed on undecoded is text as a whole, too
        return codec.decode(FrameType.JSON, body)
    except RemoteProtocolError as error:
        path = _PATH.match(error.message)
        if path is None:
            raise FieldFault(None, _whole_reason(error.message, body)) from None
        why = error.message[path.end() :]
        if path[1] == _WHOLE:
            raise FieldFault(None, f"the body: {why}") from None
        raise FieldFault(path[1], why) from None


def decode_object(raw: msgspec.Raw, param: str) -> dict[str, object]:
    """A free-form object that was left undecoded. Raises FieldFault."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise FieldFault(param, "is not JSON that can be read") from None
    if not isinstance(value, dict):
        raise FieldFault(param, "must be an object")
    return value


def _whole_reason(message: str, body: bytes) -> str:
    if _SURROGATE in message:
        return _HALF
    if any(words in message for words in _TAKEN_FOR) and _LONE_HIGH.search(body):
        return _HALF
    return message.replace("the message", "the body")


def _is_heavy(body: bytes) -> bool:
    if len(body) <= MAX_TEXTS:
        return False
    quotes = body.count(b'"')
    return quotes > 2 * MAX_TEXTS and quotes - body.count(b'\\"') > 2 * MAX_TEXTS
