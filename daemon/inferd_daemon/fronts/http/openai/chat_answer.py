"""A generation's batches as Chat Completions: server-sent events, or one object.

Pure. Every token keeps a chunk of its own, and a batch is one piece of bytes.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

from inferd_proto import ErrorCode, JsonObject, StopReason, Usage

from ....backends.base import Batch, Finished, TextDeltas, ThinkingDeltas, ToolCall
from ....errors import CallerFault, UpstreamFault

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
FINISH_REASONS: dict[StopReason, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "cancelled": "stop",
    "error": "content_filter",
}
DONE = b"data: [DONE]\n\n"
MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""Of an answer that is one object: it is held in memory until it is whole."""

_encode = msgspec.json.Encoder().encode


class ChatAnswer:
    """The answer `identity` of `model`, made at `created` (seconds since 1970).

    Use it as a stream (`encode`) or as one object (`add` and `object`, or `whole`), not both.
    `finished` is true once `Finished` went in. `usage` then holds the figures.
    """

    __slots__ = (
        "_between",
        "_bytes",
        "_calls",
        "_counted",
        "_finish",
        "_head",
        "_include_usage",
        "_opening",
        "_tail",
        "_texts",
        "_thoughts",
        "created",
        "finished",
        "identity",
        "model",
        "usage",
    )

    def __init__(self, model: str, identity: str, created: int, include_usage: bool) -> None:
        self.model = model
        self.identity = identity
        self.created = created
        self.finished = False
        self.usage = Usage(0, 0)
        self._counted = True
        self._include_usage = include_usage
        envelope = _encode(self._envelope("chat.completion.chunk"))[:-1]
        usage = b',"usage":null' if include_usage else b""
        self._head = b"data: " + envelope + b',"choices":[{"index":0,"delta":'
        self._tail = b',"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n"
        self._opening = self._chunk(b'{"role":"assistant","content":""}')
        self._between = {
            name: b"}" + self._tail + self._head + b'{"' + name + b'":'
            for name in (b"content", b"reasoning_content")
        }
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[ToolCall] = []
        self._bytes = 0
        self._finish: FinishReason = "stop"

    # -- as a stream -------------------------------------------------------------------------

    def encode(self, batch: Batch) -> bytes:
        """The events for `batch`; `[DONE]` after those of its `Finished`."""
        parts: list[bytes] = []
        if self._opening:
            parts.append(self._opening)
            self._opening = b""
        for event in batch:
            match event:
                case TextDeltas(deltas):
                    self._add_deltas(parts, b"content", deltas)
                case ThinkingDeltas(deltas):
                    self._add_deltas(parts, b"reasoning_content", deltas)
                case ToolCall():
                    self._calls.append(event)
                    call = _call_object(event) | {"index": len(self._calls) - 1}
                    parts.append(self._chunk(_encode({"tool_calls": [call]})))
                case Finished():
                    self._note_finish(event)
                    parts.append(self._closing())
        return b"".join(parts)

    def _add_deltas(self, parts: list[bytes], name: bytes, deltas: list[str]) -> None:
        if deltas:
            texts = self._between[name].join(map(encode_text, deltas))
            parts += (self._head, b'{"', name, b'":', texts, b"}", self._tail)

    def _chunk(self, delta: bytes) -> bytes:
        return self._head + delta + self._tail

    def _closing(self) -> bytes:
        end = self._chunk(b"{}").replace(
            b'"finish_reason":null', b'"finish_reason":"%s"' % self._finish.encode()
        )
        if not self._include_usage:
            return end + DONE
        last = self._envelope("chat.completion.chunk") | {
            "choices": [],
            "usage": usage_object(self.usage, counted=self._counted),
        }
        return b"%bdata: %b\n\n%b" % (end, _encode(last), DONE)

    # -- as one object -----------------------------------------------------------------------

    def add(self, batch: Batch) -> None:
        """Keep `batch` for `object`. Raises CallerFault over `MAX_ANSWER_BYTES`."""
        for event in batch:
            match event:
                case TextDeltas(deltas):
                    self._gather(self._texts, deltas)
                case ThinkingDeltas(deltas):
                    self._gather(self._thoughts, deltas)
                case ToolCall():
                    self._calls.append(event)
                case Finished():
                    self._note_finish(event)

    def object(self) -> bytes:
        """What `add` has gathered. Raises UpstreamFault where its end is missing."""
        if not self.finished:
            raise UpstreamFault("the backend ended its answer without saying why")
        text = "".join(self._texts)
        message: JsonObject = {
            "role": "assistant",
            "content": text if text or not self._calls else None,
            "refusal": None,
        }
        if self._thoughts:
            message["reasoning_content"] = "".join(self._thoughts)
        if self._calls:
            message["tool_calls"] = [_call_object(call) for call in self._calls]
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": self._finish,
        }
        whole = self._envelope("chat.completion") | {
            "choices": [choice],
            "usage": usage_object(self.usage, counted=self._counted),
        }
        return encode_value(whole)

    def whole(self, batches: Iterable[Batch]) -> bytes:
        """The object for all of `batches`. Raises RequestError as `add` and `object` do."""
        for batch in batches:
            self.add(batch)
        return self.object()

    def _gather(self, texts: list[str], deltas: list[str]) -> None:
        text = "".join(deltas)
        texts.append(text)
        self._bytes += len(text.encode(errors="replace"))
        if self._bytes > MAX_ANSWER_BYTES:
            raise CallerFault(
                f"the answer is over the {MAX_ANSWER_BYTES} bytes that one object may hold:"
                " set `max_tokens`, or stream it",
                ErrorCode.FRAME_TOO_LARGE,
            )

    def _note_finish(self, end: Finished) -> None:
        self._finish = FINISH_REASONS[end.stop_reason]
        self.usage = end.usage
        self._counted = end.counted
        self.finished = True

    def _envelope(self, kind: str) -> JsonObject:
        return {
            "id": self.identity,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": None,
        }


def usage_object(usage: Usage, *, counted: bool = True) -> JsonObject | None:
    """As OpenAI counts; null where nobody did."""
    if not counted:
        return None
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def encode_text(text: str) -> bytes:
    """A JSON string; half a surrogate pair, which no JSON can carry, is replaced."""
    try:
        return _encode(text)
    except UnicodeEncodeError:
        return _encode(text.encode(errors="replace").decode())


def encode_value(value: JsonObject) -> bytes:
    """As JSON; half a surrogate pair anywhere in it is replaced."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(_whole_characters(value))


def _whole_characters(value: object) -> object:
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case dict():
            return {_whole_characters(key): _whole_characters(item) for key, item in value.items()}
        case list():
            return [_whole_characters(item) for item in value]
        case _:
            return value


def _call_object(call: ToolCall) -> JsonObject:
    arguments = encode_value(call.input).decode()
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}
