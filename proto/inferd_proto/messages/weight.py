"""How many values a message holds, counted without building one of them.

A text of one letter is four bytes on the wire, sixty in memory, and as long to build as a page: a
message at the frame cap could keep the daemon from everybody else for seconds.
"""

from ..errors import RemoteProtocolError
from ..frames import FrameType
from .limits import MAX_VALUES

_HEADS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
"""MessagePack kinds that tell their length: how many bytes of it follow the kind."""
_EXTENSIONS = (0xC7, 0xC8, 0xC9)
_FIXED = {
    **{0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8},
    **{0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4},
}
_SIZES = bytes(
    1 + (kind & 0x1F if 0xA0 <= kind < 0xC0 else _FIXED.get(kind, 0)) for kind in range(256)
)
"""Bytes of a MessagePack value without what it contains, for kinds that do not tell a length."""


def check_weight(frame_type: FrameType, payload: bytes) -> None:
    """Refuse a message of more than `MAX_VALUES`. Raises RemoteProtocolError.

    In JSON the texts are counted, field names with them; in MessagePack every value and name.
    """
    if len(payload) <= MAX_VALUES:
        return  # no value takes less than a byte
    heavy = _is_heavy_msgpack if frame_type is FrameType.MSGPACK else _is_heavy_json
    if heavy(payload):
        raise RemoteProtocolError(
            f"the message holds more than {MAX_VALUES} texts and field names; ask in several"
            " requests"
        )


def _is_heavy_json(payload: bytes) -> bool:
    quotes = payload.count(b'"')
    if quotes <= 2 * MAX_VALUES:
        return False
    if quotes - payload.count(b'\\"') > 2 * MAX_VALUES:
        return True
    # `\\"` ends a text: pairs of backslashes go first, so that those left escape something
    plain = payload.replace(b"\\\\", b"")
    return plain.count(b'"') - plain.count(b'\\"') > 2 * MAX_VALUES


def _is_heavy_msgpack(payload: bytes) -> bool:
    """One walk from value to value; it stops at the cap. Never mind what is malformed."""
    end = len(payload)
    position = values = 0
    while position < end:
        values += 1
        if values > MAX_VALUES:
            return True
        position = end_of_value(payload, position)
    return False


def end_of_value(payload: bytes, position: int) -> int:
    """Where the MessagePack value at `position` ends, of a list or map where its first item begins.

    That may lie beyond the end of a payload that is cut short.
    """
    kind = payload[position]
    if not 0xC4 <= kind <= 0xDB or kind not in _HEADS:
        return position + _SIZES[kind]
    begin = position + 1 + _HEADS[kind]
    length = int.from_bytes(payload[position + 1 : begin], "big")
    return begin + length + (kind in _EXTENSIONS)
