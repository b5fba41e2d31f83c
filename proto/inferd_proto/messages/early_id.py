"""The id of a request of which only the beginning was kept, so that its refusal can name it.

Looks at the plain values that stand first; never guesses beyond the first list or object.
"""

import re

import msgspec

from ..frames import FrameType
from .limits import MAX_ID_CHARS
from .weight import end_of_value

_STRING = rb'"(?:[^"\\]|\\.)*"'
_JSON_ID = re.compile(
    rb'\s*\{(?:\s*"(?!id")[^"\\]*"\s*:\s*(?:' + _STRING + rb"|[-+.\w]+)\s*,)*"
    rb'\s*"id"\s*:\s*(' + _STRING + rb")",
    re.DOTALL,
)
_MAPS = {0xDE: 2, 0xDF: 4}
_LISTS_AND_MAPS = frozenset([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])


def find_id(frame_type: FrameType, head: bytes) -> str | None:
    """The id in the `head` of a payload, None where it does not stand there."""
    found = _in_msgpack(head) if frame_type is FrameType.MSGPACK else _in_json(head)
    return found if isinstance(found, str) and len(found) <= MAX_ID_CHARS else None


def _in_json(head: bytes) -> object:
    match = _JSON_ID.match(head)
    if match is None:
        return None
    try:
        return msgspec.json.decode(match[1])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _in_msgpack(head: bytes) -> object:
    if not head or not (0x80 <= head[0] < 0x90 or head[0] in _MAPS):
        return None
    position = 1 + _MAPS.get(head[0], 0)
    while position < len(head):
        name_end = end_of_value(head, position)
        value_end = end_of_value(head, name_end) if name_end < len(head) else len(head) + 1
        if value_end > len(head) or head[name_end] in _LISTS_AND_MAPS:
            return None
        if head[position:name_end] == b"\xa2id":
            try:
                return msgspec.msgpack.decode(head[name_end:value_end])
            except (msgspec.DecodeError, UnicodeDecodeError):
                return None
        position = value_end
    return None
