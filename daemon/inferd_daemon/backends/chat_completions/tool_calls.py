"""Tool calls gathered from fragments, by index, whatever was split and interleaved.

Pure. A call leaves only when it is whole; nothing is guessed into broken arguments. The calls of
servers that count each as 0, or count none, are told apart by what a fragment can belong to.
"""

import secrets

import msgspec

from inferd_proto import ErrorCode, JsonObject, ToolUse

from ...errors import ModelFault
from ..base import ToolCall
from .chunks import CallPiece, FunctionPiece

MAX_CALLS = 128
MAX_GATHERED_CHARS = 8 * 1024 * 1024
"""Of all calls of one answer; what is gathered is held in memory until the answer ends."""
MAX_LOOKS = 256
"""In vain, whether a call is whole before its answer is: each look reads all of its arguments."""
_SHORTEST_REPEAT = 4
"""A shorter fragment that equals what it follows is its next part, not a repetition."""

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class _Gathered:
    """One call so far."""

    __slots__ = ("arguments", "id", "index", "name")

    def __init__(self, index: int) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []


class ToolCallGatherer:
    """Takes fragments in the order of the stream, gives whole calls in the order of their index.

    `names` are those of the request's tools; without them a fragment tells less.
    """

    __slots__ = ("_calls", "_chars", "_last", "_looks", "_names", "_open")

    def __init__(self, names: frozenset[str] = frozenset()) -> None:
        self._names = names
        self._calls: list[_Gathered] = []
        self._open: dict[int, _Gathered] = {}
        self._last: _Gathered | None = None
        self._looks = 0
        self._chars = 0

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, piece: CallPiece) -> None:
        """Raises ModelFault where the calls outgrow their limit."""
        index = _number(piece.index)
        call = self._find(index, piece)
        if call is None or self._begins(call, piece):
            call = self._begin(index)
        self._open[call.index] = self._last = call
        function = piece.function or FunctionPiece()
        if not _is_again(call, piece):
            self._add_id(call, piece.id, function)
            self._add_name(call, function.name)
        self._add_arguments(call, function.arguments)

    def add_legacy(self, function: FunctionPiece) -> None:
        """A fragment of `function_call`, of which there is one."""
        self.add(CallPiece(index=0, function=function))

    def take(self, *, complete: bool) -> list[ToolCall]:
        """The calls, whole. With `complete` false the budget ran out: a broken one is left out.

        Raises ModelFault (`tool_call_malformed`).
        """
        calls: list[ToolCall] = []
        taken: set[str] = set()
        for place, call in enumerate(sorted(self._calls, key=lambda call: call.index)):
            try:
                calls.append(_finish(call, taken, complete=complete))
            except ValueError as error:
                if complete:
                    raise ModelFault(
                        f"the model's tool call {place} is malformed: {error}",
                        ErrorCode.TOOL_CALL_MALFORMED,
                    ) from None
        self._calls.clear()
        self._open.clear()
        self._last = None
        return calls

    def _find(self, index: int | None, piece: CallPiece) -> _Gathered | None:
        """The call that the fragment goes to unless it begins the next one."""
        call = self._last if index is None else self._open.get(index)
        if call is None or not _differs(call, piece):
            return call
        for other in self._calls:
            if other.id == piece.id and index in (None, other.index):
                return other
        # Where nothing is counted, an id is all that tells calls apart, so it comes whole.
        return None if index is None else call

    def _begin(self, index: int | None) -> _Gathered:
        if len(self._calls) >= MAX_CALLS:
            raise ModelFault(f"upstream sent more than {MAX_CALLS} tool calls in one answer")
        if index is None:
            index = max((call.index for call in self._calls), default=0)
        call = _Gathered(index)
        self._calls.append(call)
        return call

    def _begins(self, call: _Gathered, piece: CallPiece) -> bool:
        """Whether the fragment, though counted as a part of `call`, is the next call's first."""
        name = piece.function.name if piece.function is not None else None
        if not name or not call.name:
            return False
        if _is_again(call, piece):
            return False
        repeated = name == call.name
        joins = self._is_beginning(call.name + name)
        apart = call.name in self._names and self._is_beginning(name)
        if joins and not apart:
            return False
        if apart and not joins and not repeated:
            return True
        if _differs(call, piece):
            return bool(self._names or call.arguments)
        if piece.id and call.id:
            return False
        return (not repeated or _begins_arguments(piece)) and self._is_whole(call)

    def _is_beginning(self, text: str) -> bool:
        """Whether a tool's name begins so."""
        return any(name.startswith(text) for name in self._names)

    def _is_whole(self, call: _Gathered) -> bool:
        """Whether its arguments have come to their end."""
        if self._looks >= MAX_LOOKS:
            return False
        try:
            _parse("".join(call.arguments))
        except ValueError:
            self._looks += 1
            return False
        return True

    def _add_id(self, call: _Gathered, identity: str | None, function: FunctionPiece) -> None:
        """Ids come whole, in parts, or whole again with every fragment."""
        if not identity:
            return
        brings = bool(function.arguments) or len(identity) >= _SHORTEST_REPEAT
        if not (brings and identity == call.id):
            call.id += identity
            self._count(len(identity))

    def _add_name(self, call: _Gathered, name: str | None) -> None:
        if name and not (name == call.name and self._is_repeat(name)):
            call.name += name
            self._count(len(name))

    def _add_arguments(self, call: _Gathered, arguments: str | JsonObject | None) -> None:
        if isinstance(arguments, dict):
            arguments = _encode(arguments).decode()
        if arguments:
            call.arguments.append(arguments)
            self._count(len(arguments))

    def _is_repeat(self, name: str) -> bool:
        """Whether `name`, come twice, is meant once."""
        if self._is_beginning(name + name):
            return name in self._names
        return name in self._names or len(name) >= _SHORTEST_REPEAT

    def _count(self, chars: int) -> None:
        self._chars += chars
        if self._chars > MAX_GATHERED_CHARS:
            raise ModelFault("upstream sent tool calls of more than 8 MiB in one answer")


def _number(index: float | str | None) -> int | None:
    """Some servers count in text, or in floats."""
    try:
        return None if index is None else int(index)
    except (ValueError, OverflowError):
        return None


def _differs(call: _Gathered, piece: CallPiece) -> bool:
    """Whether the fragment brings an id, and `call` has another one, or its beginning."""
    return bool(piece.id) and call.id not in ("", piece.id)


def _is_again(call: _Gathered, piece: CallPiece) -> bool:
    """Whether the fragment repeats both the id and the name of `call`."""
    if not piece.id or piece.function is None:
        return False
    return piece.id == call.id and piece.function.name == call.name


def _begins_arguments(piece: CallPiece) -> bool:
    arguments = piece.function.arguments if piece.function is not None else None
    return isinstance(arguments, dict) or (arguments or "").lstrip().startswith("{")


def _finish(call: _Gathered, taken: set[str], *, complete: bool) -> ToolCall:
    """Adds its id to those `taken`, which is one of our own where it has none to itself.

    Raises ValueError saying what is wrong, without repeating what the model wrote.
    """
    if not call.name:
        raise ValueError("it has no name")
    text = "".join(call.arguments)
    # A tool without parameters is often called with nothing at all.
    arguments = _parse(text) if text.strip() or not complete else {}
    own = call.id and call.id not in taken
    identity = call.id if own else f"call_{secrets.token_hex(8)}"
    ToolUse(tool_call_id=identity, name=call.name, input=arguments)
    taken.add(identity)
    return ToolCall(identity, call.name, arguments)


def _parse(text: str) -> JsonObject:
    try:
        value = _decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise ValueError("its arguments are not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("its arguments are not a JSON object")
    return value
