"""Reads chunks that differ from an earlier one in their text alone, without decoding each.

Pure. Of a long answer nearly all chunks are such. It must read what the decoder would have read, or
nothing: every template is proved with the decoder before it is used.
"""

from itertools import takewhile

import msgspec

from .chunks import Chunk, decode_chunk

_QUOTE = b'"'
_PROBE = "probe"
MAX_END = 4
"""What stands at a stream's end, usually: the reason of its finish, usage, perhaps timings."""
MAX_MISSES = 8
"""In a row: then the chunks of this stream differ in more than their text."""

_decode_texts = msgspec.json.Decoder(list[str]).decode


class TextTemplate:
    """What stands around the text in the chunks of one stream."""

    __slots__ = ("_after", "_before", "_between", "_misses")

    def __init__(self) -> None:
        self._before = b""
        self._after = b""
        self._between = b""
        self._misses = 0

    @property
    def given_up(self) -> bool:
        """Nothing can be gained in this stream."""
        return self._misses >= MAX_MISSES

    def learn(self, payload: bytes, chunk: Chunk) -> bool:
        """Take `payload`, which decodes to `chunk`, as the template; False where it is no use."""
        text = _only_text(chunk)
        if text is None:
            return False
        before, found, after = payload.partition(b'"%b"' % text.encode())
        if not found:
            return False
        before, after = before + _QUOTE, _QUOTE + after
        probe = decode_chunk(before + _PROBE.encode() + after)
        if probe is None or _only_text(probe) != _PROBE:
            return False
        assert probe.choices is not None
        assert probe.choices[0].delta is not None
        probe.choices[0].delta.content = text
        if probe != chunk:
            return False
        self._before, self._after = before, after
        self._between = after + b"\n" + before
        return True

    def read(self, payloads: list[bytes]) -> list[str]:
        """The texts of the payloads at the beginning that are like the template, maybe of none."""
        if not self._between:
            return []
        bodies = self._bodies(payloads)
        texts: list[str] = []
        if bodies:
            try:
                texts = _decode_texts(b'["%b"]' % b'","'.join(bodies))
            except (msgspec.DecodeError, UnicodeDecodeError):
                texts = []
        self._misses = 0 if texts else self._misses + 1
        return texts

    def _bodies(self, payloads: list[bytes]) -> list[bytes]:
        """What stands between the quotes, of as many payloads as hold no quote more."""
        if not self._fits(payloads[0]):
            return []
        end = len(payloads)
        while end > len(payloads) - MAX_END and not self._fits(payloads[end - 1]):
            end -= 1
        payloads = payloads[:end]
        start, stop = len(self._before), -len(self._after)
        bodies = [payload[start:stop] for payload in payloads]
        # Comparing the whole is much quicker than looking at each.
        if self._between.join(bodies) != b"\n".join(payloads)[start:stop]:
            fitting = takewhile(self._fits, payloads)
            bodies = [payload[start:stop] for payload in fitting]
        # A quote within would end the text early, a backslash at its end would not let it end.
        closed = _QUOTE.join((*bodies, b""))
        if closed.count(_QUOTE) != len(bodies) or b'\\"' in closed:
            return list(takewhile(_is_closed, bodies))
        return bodies

    def _fits(self, payload: bytes) -> bool:
        around = len(self._between) - 1
        return (
            len(payload) >= around
            and payload.startswith(self._before)
            and payload.endswith(self._after)
        )


def _is_closed(body: bytes) -> bool:
    return _QUOTE not in body and not body.endswith(b"\\")


def _only_text(chunk: Chunk) -> str | None:
    """The text of a chunk that brings nothing else, if it stands as it is in any JSON."""
    if chunk.usage is not None or chunk.error is not None or chunk.verbose is not None:
        return None
    if chunk.message is not None or chunk.choices is None or len(chunk.choices) != 1:
        return None
    choice = chunk.choices[0]
    delta = choice.delta
    if choice.index or choice.finish_reason or delta is None:
        return None
    if delta.reasoning_content or delta.reasoning or delta.refusal:
        return None
    if delta.tool_calls or delta.function_call:
        return None
    text = delta.content
    plain = text and text.isascii() and text.isprintable() and '"' not in text and "\\" not in text
    return text if plain else None
