"""A runtime's Responses, in the words that its clients know them by.

Pure. llama-server says of every answer that it is complete, also of one that was cut at the limit,
and leaves out of its events where in the answer they belong. An upstream that tells is left alone.
"""

from typing import NamedTuple

import msgspec
from msgspec import Raw, Struct

from ....backends.base import Pieces

MAX_HELD_BYTES = 16 * 1024 * 1024
"""Of an object, or of one line of a stream; what is longer passes as it is."""
_COMPLETED = "response.completed"
_INCOMPLETE = "response.incomplete"
_PREFIX = "response."
_IN_CONTENT = ("response.content_part.", "response.output_text.", "response.reasoning_text.")
_IN_ITEM = (*_IN_CONTENT, "response.output_item.", "response.function_call_arguments.")
_WITH_LOGPROBS = frozenset(("response.output_text.delta", "response.output_text.done"))
_FIRST = Raw(b"0")
_NONE = Raw(b"null")
_EMPTY = Raw(b"[]")
_EVENT, _DATA = b"event:", b"data:"
_Fields = dict[str, Raw]
_encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(_Fields).decode
_list = msgspec.json.Decoder(list[Raw]).decode


class Limits(NamedTuple):
    """What may have cut an answer, in tokens: its own limit, and the context of its slot."""

    max_tokens: int | None = None
    n_ctx: int | None = None


class _Usage(Struct):
    input_tokens: int = 0
    output_tokens: int = 0


class _Named(Struct):
    """What says where an event belongs."""

    type: str = ""
    item_id: str | None = None
    item: "_Item | None" = None


class _Item(Struct):
    id: str | None = None


_named = msgspec.json.Decoder(_Named).decode
_usage = msgspec.json.Decoder(_Usage).decode


class ResponseWords:
    """Feed it the bytes of an answer of status 200: a stream, or one object, as they come."""

    def __init__(self, limits: Limits, *, stream: bool) -> None:
        self._limits = limits
        self._stream = stream
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._name = b""
        """The line that names an event whose data have not come."""
        self._items: dict[str, int] = {}
        self._count = 0
        self._gave_up = False

    def feed(self, data: bytes) -> bytes:
        """What can be passed on by now."""
        if self._gave_up:
            return data
        end = data.rfind(b"\n") + 1 if self._stream else 0
        lines = b"".join((*self._take(), data[:end])) if end else b""
        self._hold(data[end:])
        if self._held_bytes > MAX_HELD_BYTES:
            self._gave_up = True
            return self._reworded(lines) + b"".join((self._take_name(), *self._take()))
        return self._reworded(lines)

    def feed_eof(self) -> bytes:
        """What is left."""
        rest = b"".join(self._take())
        if self._stream:
            return self._reworded(rest) + self._take_name()
        whole = None if self._gave_up else _read(rest)
        return rest if whole is None else _encode(self._response(whole))

    def _reworded(self, lines: bytes) -> bytes:
        return b"".join(map(self._line, lines.splitlines(keepends=True)))

    def _line(self, line: bytes) -> bytes:
        if line.startswith(_EVENT):
            before, self._name = self._name, line
            return before
        name = self._take_name()
        if not line.startswith(_DATA):
            return name + line
        event = self._event(line[len(_DATA) :])
        return name + line if event is None else event + line[len(line.rstrip(b"\r\n")) :]

    def _event(self, payload: bytes) -> bytes | None:
        """Both its lines; None for what is none of the API."""
        fields = _read(payload)
        if fields is None:
            return None
        try:
            named = _named(payload)
        except msgspec.DecodeError:
            return None
        kind = named.type
        if not kind.startswith(_PREFIX):
            return None
        fields.setdefault("sequence_number", Raw(b"%d" % self._count))
        self._count += 1
        if kind.startswith(_IN_ITEM):
            item = named.item_id or (named.item.id if named.item else None) or ""
            index = self._items.setdefault(item, len(self._items))
            fields.setdefault("output_index", Raw(b"%d" % index))
        if kind.startswith(_IN_CONTENT):
            fields.setdefault("content_index", _FIRST)
        if kind in _WITH_LOGPROBS:
            fields.setdefault("logprobs", _EMPTY)
        response = _read(fields.get("response", _NONE))
        if response is not None:
            cut = kind == _COMPLETED and self._is_cut(response)
            fields["response"] = Raw(_encode(self._response(response)))
            if cut:
                kind, fields["type"] = _INCOMPLETE, Raw(_encode(_INCOMPLETE))
        return b"event: %b\ndata: %b" % (kind.encode(), _encode(fields))

    def _response(self, response: _Fields) -> _Fields:
        cut = self._is_cut(response)
        if "status" in response:
            response.setdefault("output", _EMPTY)
            response.setdefault("incomplete_details", _NONE)
        if cut:
            response["status"] = Raw(b'"incomplete"')
            response["incomplete_details"] = Raw(b'{"reason":"max_output_tokens"}')
            response.pop("completed_at", None)
            response["output"] = _cut_last(response["output"])
        return response

    def _is_cut(self, response: _Fields) -> bool:
        if "incomplete_details" in response or response.get("status") != _SAYS_COMPLETED:
            return False
        try:
            usage = _usage(response.get("usage", _NONE))
        except msgspec.DecodeError:
            return False
        limit, context = self._limits
        whole = usage.input_tokens + usage.output_tokens
        return bool((limit and usage.output_tokens >= limit) or (context and whole >= context))

    def _hold(self, data: bytes) -> None:
        if data:
            self._held.append(data)
            self._held_bytes += len(data)

    def _take(self) -> list[bytes]:
        held, self._held, self._held_bytes = self._held, [], 0
        return held

    def _take_name(self) -> bytes:
        name, self._name = self._name, b""
        return name


class RewordedPieces(Pieces):
    """`pieces` in these words."""

    def __init__(self, pieces: Pieces, words: ResponseWords) -> None:
        self._pieces = pieces
        self._words = words

    async def __anext__(self) -> bytes:
        """Raises as `pieces` does."""
        pieces, words = self._pieces, self._words
        data = b""
        while not data and not self.over:
            data = words.feed(await pieces.__anext__())
            self.over, self.usage = pieces.over, pieces.usage
            if self.over:
                data += words.feed_eof()
        if not data:
            raise StopAsyncIteration
        return data


_SAYS_COMPLETED = Raw(b'"completed"')


def _cut_last(output: Raw) -> Raw:
    """The last of the answer is what was not finished."""
    try:
        items = _list(output)
    except msgspec.DecodeError:
        return output
    last = _read(items[-1]) if items else None
    if last is None or "status" not in last:
        return output
    items[-1] = Raw(_encode(last | {"status": Raw(b'"incomplete"')}))
    return Raw(_encode(items))


def _read(data: bytes | Raw) -> _Fields | None:
    try:
        return _fields(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
