"""Tool calls gathered from fragments, by index, whatever was split and interleaved.

Pure. A call leaves only when it is whole; nothing is guessed into broken arguments.
"""

from secrets import token_hex

import msgspec

from inferd_proto import ErrorCode, JsonObject, ToolUse

from ...errors import ModelFault
from ..base import ToolCall
from .chunks import CallPiece, FunctionPiece

MAX_CALLS = 128
MAX_GATHERED_CHARS = 8 * 1024 * 1024
"""Of all calls of one answer; what is gathered is held in memory until the answer ends."""
_SHORTEST_REPEAT = 4
"""A shorter fragment that equals what it follows is its next part, not a repetition."""

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class _Gathered:
    """One call so far."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []


class ToolCallGatherer:
    """Takes fragments in the order of the stream, gives whole calls in the order of their index."""

    __slots__ = ("_calls", "_chars", "_last")

    def __init__(self) -> None:
        self._calls: dict[int, _Gathered] = {}
        self._last = -1
        self._chars = 0

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, piece: CallPiece) -> None:
        """Raises ModelFault where the calls outgrow their limit."""
        index = self._index(piece)
        call = self._calls.get(index)
        if call is None:
            if len(self._calls) >= MAX_CALLS:
                raise ModelFault(f"upstream sent more than {MAX_CALLS} tool calls in one answer")
            call = self._calls[index] = _Gathered()
        self._last = index
        if piece.id:
            call.id = _extend(call.id, piece.id)
            self._count(len(piece.id))
        if piece.function is not None:
            self._add_function(call, piece.function)

    def add_legacy(self, function: FunctionPiece) -> None:
        """A fragment of `function_call`, of which there is one."""
        self.add(CallPiece(index=0, function=function))

    def take(self, *, complete: bool) -> list[ToolCall]:
        """The calls, whole. With `complete` false the budget ran out: a broken one is left out.

        Raises ModelFault (`tool_call_malformed`).
        """
        calls: list[ToolCall] = []
        for index in sorted(self._calls):
            try:
                calls.append(_finish(self._calls[index], complete=complete))
            except ValueError as error:
                if complete:
                    raise ModelFault(
                        f"the model's tool call {index} is malformed: {error}",
                        ErrorCode.TOOL_CALL_MALFORMED,
                    ) from None
        self._calls.clear()
        return calls

    def _index(self, piece: CallPiece) -> int:
        """Where the fragment belongs; servers that leave the index out begin each call with an id.

        Some count every call as 0, and tell them apart by ids that are whole.
        """
        index = piece.index
        if index is None:
            index = self._last
            if index < 0 or (piece.id and self._calls[index].id not in ("", piece.id)):
                index = max(self._calls, default=-1) + 1
            return index
        call = self._calls.get(index)
        begins = piece.id and piece.function is not None and piece.function.name
        if call is not None and begins and call.arguments and call.id not in ("", piece.id):
            return max(self._calls) + 1
        return index

    def _add_function(self, call: _Gathered, function: FunctionPiece) -> None:
        if function.name:
            call.name = _extend(call.name, function.name)
            self._count(len(function.name))
        arguments = function.arguments
        if isinstance(arguments, dict):
            arguments = _encode(arguments).decode()
        if arguments:
            call.arguments.append(arguments)
            self._count(len(arguments))

    def _count(self, chars: int) -> None:
        self._chars += chars
        if self._chars > MAX_GATHERED_CHARS:
            raise ModelFault("upstream sent tool calls of more than 8 MiB in one answer")


def _extend(text: str, piece: str) -> str:
    """Ids and names come whole, in parts, or whole again with every fragment."""
    repeated = piece == text and len(piece) >= _SHORTEST_REPEAT
    return text if repeated else text + piece


def _finish(call: _Gathered, *, complete: bool) -> ToolCall:
    """Raises ValueError saying what is wrong, without repeating what the model wrote."""
    if not call.name:
        raise ValueError("it has no name")
    text = "".join(call.arguments)
    # A tool without parameters is often called with nothing at all.
    arguments = _parse(text) if text.strip() or not complete else {}
    identity = call.id or f"call_{token_hex(8)}"
    ToolUse(tool_call_id=identity, name=call.name, input=arguments)
    return ToolCall(identity, call.name, arguments)


def _parse(text: str) -> JsonObject:
    try:
        value = _decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise ValueError("its arguments are not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("its arguments are not a JSON object")
    return value
