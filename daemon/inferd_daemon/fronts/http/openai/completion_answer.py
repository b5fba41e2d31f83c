"""A generation's batches as the older Completions: server-sent events, or one object.

Pure. Has no place for reasoning and tool calls, which are left out.
"""

import msgspec

from inferd_proto import ErrorCode, JsonObject, Usage

from ....backends.base import Batch, Finished, TextDeltas
from ....errors import CallerFault, UpstreamFault
from .chat_answer import (
    DONE,
    FINISH_REASONS,
    MAX_ANSWER_BYTES,
    FinishReason,
    encode_text,
    encode_value,
    usage_object,
)

_encode = msgspec.json.Encoder().encode


class CompletionAnswer:
    """As ChatAnswer: a stream by `encode`, or one object by `add` and `object`."""

    __slots__ = (
        "_between",
        "_bytes",
        "_counted",
        "_envelope",
        "_finish",
        "_head",
        "_include_usage",
        "_tail",
        "_texts",
        "finished",
        "usage",
    )

    def __init__(self, model: str, identity: str, created: int, include_usage: bool) -> None:
        self.finished = False
        self._envelope: JsonObject = {
            "id": identity,
            "object": "text_completion",
            "created": created,
            "model": model,
            "system_fingerprint": None,
        }
        self._include_usage = include_usage
        usage = b',"usage":null' if include_usage else b""
        self._head = b'data: %b,"choices":[{"index":0,"text":' % _encode(self._envelope)[:-1]
        self._tail = b',"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n"
        self._between = self._tail + self._head
        self._texts: list[str] = []
        self._bytes = 0
        self.usage = Usage(0, 0)
        self._counted = True
        self._finish: FinishReason = "stop"

    def encode(self, batch: Batch) -> bytes:
        """The events for `batch`; `[DONE]` after that of its `Finished`."""
        parts: list[bytes] = []
        for event in batch:
            match event:
                case TextDeltas(deltas) if deltas:
                    texts = self._between.join(map(encode_text, deltas))
                    parts += (self._head, texts, self._tail)
                case Finished():
                    self._note_finish(event)
                    parts.append(self._closing())
                case _:
                    pass
        return b"".join(parts)

    def add(self, batch: Batch) -> None:
        """Keep `batch` for `object`. Raises CallerFault over `MAX_ANSWER_BYTES`."""
        for event in batch:
            match event:
                case TextDeltas(deltas):
                    text = "".join(deltas)
                    self._texts.append(text)
                    self._bytes += len(text.encode(errors="replace"))
                    if self._bytes > MAX_ANSWER_BYTES:
                        raise CallerFault(
                            f"the answer is over the {MAX_ANSWER_BYTES} bytes that one object may"
                            " hold: set `max_tokens`, or stream it",
                            ErrorCode.FRAME_TOO_LARGE,
                        )
                case Finished():
                    self._note_finish(event)
                case _:
                    pass

    def object(self) -> bytes:
        """What `add` has gathered. Raises UpstreamFault where its end is missing."""
        if not self.finished:
            raise UpstreamFault("the backend ended its answer without saying why")
        choice = {
            "index": 0,
            "text": "".join(self._texts),
            "logprobs": None,
            "finish_reason": self._finish,
        }
        usage = usage_object(self.usage, counted=self._counted)
        return encode_value(self._envelope | {"choices": [choice], "usage": usage})

    def _note_finish(self, end: Finished) -> None:
        self._finish = FINISH_REASONS[end.stop_reason]
        self.usage = end.usage
        self._counted = end.counted
        self.finished = True

    def _closing(self) -> bytes:
        choice = {"index": 0, "text": "", "logprobs": None, "finish_reason": self._finish}
        chunks: list[JsonObject] = [self._envelope | {"choices": [choice]}]
        if self._include_usage:
            chunks[0]["usage"] = None
            usage = usage_object(self.usage, counted=self._counted)
            chunks.append(self._envelope | {"choices": [], "usage": usage})
        return b"".join(b"data: %b\n\n" % _encode(chunk) for chunk in chunks) + DONE
