"""How much free-form JSON a request carries, found without building it.

An empty list is three bytes on the wire and thirty times that in memory: what may hold anything
(schemas, tool inputs, arguments of operations) is weighed before it is decoded, never looked into.
"""

from msgspec import Raw, Struct

from ..codec import Codec
from ..errors import RemoteProtocolError
from ..frames import FrameType
from .limits import MAX_JSON_BYTES

_NOTHING = Raw(b"")


class _Block(Struct, gc=False):
    type: Raw
    input: Raw = _NOTHING
    content: "list[_Block]" = []


class _Turn(Struct, gc=False):
    role: Raw
    content: list[_Block] = []


class _Tool(Struct, gc=False):
    name: Raw
    input_schema: Raw = _NOTHING


class _Format(Struct, gc=False):
    schema: Raw = _NOTHING


class _Request(Struct, gc=False):
    """The shape of a v2 request, looser than its rules: what fits them fits this.

    Without a name for each object, millions of empty ones would be built.
    """

    messages: list[_Turn] | None = None
    tools: list[_Tool] | None = None
    response_format: _Format | None = None


_REQUEST = Codec(_Request)


def check_arguments(payload: bytes) -> None:
    """An operation is free-form as a whole. Raises RemoteProtocolError."""
    _check(len(payload))


def check_generate(frame_type: FrameType, payload: bytes) -> None:
    """The tool inputs and schemas of a v2 request. Raises RemoteProtocolError."""
    if len(payload) <= MAX_JSON_BYTES:
        return
    request = _REQUEST.decode(frame_type, payload)
    total = sum(_size(block) for turn in request.messages or [] for block in turn.content)
    total += sum(_length(tool.input_schema) for tool in request.tools or [])
    if request.response_format is not None:
        total += _length(request.response_format.schema)
    _check(total)


def _size(block: _Block) -> int:
    return _length(block.input) + sum(map(_size, block.content))


def _length(raw: Raw) -> int:
    return len(memoryview(raw))


def _check(total: int) -> None:
    if total > MAX_JSON_BYTES:
        raise RemoteProtocolError(
            f"{total} bytes of schemas, tool inputs or arguments are over the cap of"
            f" {MAX_JSON_BYTES}"
        )
