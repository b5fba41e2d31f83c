"""The chunks of a streamed answer, with only the fields that are used.

Pure. What does not decode is dropped and counted by the caller, so every field that servers are
known to leave out, or to set to null, may be missing.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct, field

from inferd_proto import JsonObject

MAX_COUNT = 2**53
"""Beyond it is no count of tokens, and a frame could not carry it."""
TokenCount = Annotated[int, Meta(ge=0, le=MAX_COUNT)]


class FunctionPiece(Struct, gc=False):
    """Part of a call; most servers send `arguments` as text, some as the object itself."""

    name: str | None = None
    arguments: str | JsonObject | None = None


class CallPiece(Struct, gc=False):
    """Part of the call number `index`, which is a number in the words of most."""

    index: int | float | str | None = None
    id: str | None = None
    function: FunctionPiece | None = None


class Delta(Struct, gc=False):
    """What a chunk adds. `reasoning_content` and `reasoning` are two names for one thing; where
    there is one call, some servers send it without a list around it.
    """

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[CallPiece] | CallPiece | None = None
    function_call: FunctionPiece | None = None


class Choice(Struct, gc=False):
    """One answer. vLLM (`stop_reason`) and SGLang (`matched_stop`) name the stop word or token.

    `message` is the whole answer, of a server that streams it in one chunk.
    """

    index: int | None = None
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    matched_stop: str | int | list[int] | None = None


class ChunkUsage(Struct, gc=False):
    """Tokens as the engine counted them."""

    prompt_tokens: TokenCount | None = None
    completion_tokens: TokenCount | None = None


class Verbose(Struct, gc=False):
    """Of llama-server's debug record what `stop_details` asks for."""

    stop_type: str | None = None


class ErrorDetail(Struct):
    """An error as an object; `type` and `code` differ between servers."""

    message: str | None = None
    type: str | None = None
    code: int | str | None = None


class Chunk(Struct, gc=False):
    """One payload of the stream, or an error in the middle of it."""

    choices: list[Choice] | None = None
    usage: ChunkUsage | None = None
    error: ErrorDetail | str | None = None
    message: str | None = None
    verbose: Verbose | None = field(name="__verbose", default=None)


_NOTHING = Raw(b"null")


class _Part(Struct, gc=False):
    """A part of a content that comes as a list; `thinking` holds parts of its own."""

    text: str | None = None
    thinking: "str | list[_Part] | None" = None


class _CoreDelta(Delta, gc=False):
    """A delta whose content some servers (Mistral's) send as a list of parts, and whose reasoning
    may be anything: the text beside it must not go with it.
    """

    content: str | list[_Part] | None = None  # type: ignore[assignment]
    reasoning_content: Any = None
    reasoning: Any = None


class _CoreChoice(Struct, gc=False):
    """What the answer consists of."""

    index: int | None = None
    delta: _CoreDelta | None = None
    message: _CoreDelta | None = None
    finish_reason: str | None = None


class _CoreChunk(Struct, gc=False):
    """A chunk of the answer, whatever stands beside it."""

    choices: list[_CoreChoice]
    usage: Raw = _NOTHING
    error: Raw = _NOTHING


class _Counts(Struct, gc=False):
    """Tokens, counted in floats or below zero."""

    prompt_tokens: float | None = None
    completion_tokens: float | None = None


_decoder = msgspec.json.Decoder(Chunk)
_core_decoder = msgspec.json.Decoder(_CoreChunk)
_counts_decoder = msgspec.json.Decoder(_Counts | None)


def decode_chunks(payloads: list[bytes]) -> tuple[list[Chunk], list[bytes]]:
    """The chunks, and the payloads that were none."""
    try:
        # All at once: a raw line end stands in no JSON string, so it parts them safely.
        chunks = _decoder.decode_lines(b"\n".join(payloads))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _decode_each(payloads)
    return (chunks, []) if len(chunks) == len(payloads) else _decode_each(payloads)


def decode_chunk(payload: bytes) -> Chunk | None:
    """The chunk; None where the payload is none."""
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def _decode_each(payloads: list[bytes]) -> tuple[list[Chunk], list[bytes]]:
    chunks: list[Chunk] = []
    bad: list[bytes] = []
    for payload in payloads:
        chunk = decode_chunk(payload) or _decode_core(payload)
        if chunk is None:
            bad.append(payload)
        else:
            chunks.append(chunk)
    return chunks, bad


def _decode_core(payload: bytes) -> Chunk | None:
    """The chunk without what is wrong beside the answer itself: text must not go with a count."""
    try:
        core = _core_decoder.decode(payload)
        if bytes(core.error) != b"null":
            return None
        choices = [
            Choice(one.index, _joined(one.delta), _joined(one.message), one.finish_reason)
            for one in core.choices
        ]
        usage = _read_usage(core.usage)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return Chunk(choices, usage)


def _joined(delta: _CoreDelta | None) -> Delta | None:
    """With its content in one piece, thoughts apart."""
    if delta is None:
        return None
    if not isinstance(delta.reasoning_content, str):
        delta.reasoning_content = None
    if not isinstance(delta.reasoning, str):
        delta.reasoning = None
    if isinstance(delta.content, list):
        thoughts = "".join(_text(part.thinking) for part in delta.content)
        delta.reasoning_content = (delta.reasoning_content or "") + thoughts
        delta.content = _text(delta.content)
    return delta


def _text(content: str | list[_Part] | None) -> str:
    if isinstance(content, list):
        return "".join(part.text or "" for part in content)
    return content or ""


def _read_usage(counts: Raw) -> ChunkUsage | None:
    try:
        told = _counts_decoder.decode(counts)
    except msgspec.DecodeError:
        return None
    if told is None:
        return None
    return ChunkUsage(_whole(told.prompt_tokens), _whole(told.completion_tokens))


def _whole(count: float | None) -> int | None:
    return int(count) if count is not None and 0 <= count <= MAX_COUNT else None
