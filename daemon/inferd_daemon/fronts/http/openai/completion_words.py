"""A runtime's older Completions, in the words that its clients know them by.

Pure. llama-server gives the figures in the last chunk of the text, asked for or not, with timings
of its own, and names the answer as if it were a chat's.
"""

import msgspec

from inferd_proto import JsonObject

from ....backends.base import Pieces

_CHAT_ID = b'"id":"chatcmpl-'
_ID = b'"id":"cmpl-'
# in a text quotes are escaped
_MARKS = (b'"usage":', b'"timings":')
_DATA = b"data:"
_encode = msgspec.json.Encoder().encode


class CompletionWords(Pieces):
    """`pieces` of a stream (whole lines) or, without `stream`, of one object."""

    def __init__(self, pieces: Pieces, *, stream: bool, include_usage: bool) -> None:
        self._pieces = pieces
        self._stream = stream
        self._include_usage = include_usage

    async def __anext__(self) -> bytes:
        """Raises as `pieces` does."""
        piece = await self._pieces.__anext__()
        self.over, self.usage = self._pieces.over, self._pieces.usage
        return self._reword(piece)

    def _reword(self, piece: bytes) -> bytes:
        piece = piece.replace(_CHAT_ID, _ID)
        if not any(mark in piece for mark in _MARKS):
            return piece
        if self._stream:
            return b"".join(map(self._reword_line, piece.splitlines(keepends=True)))
        whole = _read(piece)
        return piece if whole is None else _encode(_without(whole, "timings"))

    def _reword_line(self, line: bytes) -> bytes:
        """The event of the text without the figures, and they as an event of their own."""
        if not line.startswith(_DATA) or not any(mark in line for mark in _MARKS):
            return line
        chunk = _read(line[len(_DATA) :])
        if chunk is None:
            return line
        usage = chunk.get("usage")
        events = []
        if chunk.get("choices") or usage is None:
            events.append(_without(chunk, "timings", *(() if usage is None else ("usage",))))
        if usage is not None and self._include_usage:
            events.append(_without(chunk, "timings") | {"choices": [], "usage": usage})
        # what ends the last event is the next line
        return b"\n\n".join(b"data: " + _encode(event) for event in events) + b"\n" * bool(events)


def _read(data: bytes) -> JsonObject | None:
    try:
        return msgspec.json.decode(data, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _without(value: JsonObject, *names: str) -> JsonObject:
    return {name: kept for name, kept in value.items() if name not in names}
