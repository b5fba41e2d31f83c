"""Wire requests to the daemon's own, and backend events to wire answers. Pure.

The wire has two shapes of `generate`; behind this file there is one.
"""

from abc import ABC, abstractmethod

from msgspec import UNSET

from inferd_proto import (
    BlockAnswer,
    DoneV1,
    DoneV2,
    Embed,
    GenerateV1,
    GenerateV2,
    Message,
    Rerank,
    ServerConnection,
    StopReason,
    StopReasonV1,
    Text,
    ToolUse,
    Usage,
    UsageV1,
)

from ..backends.base import (
    Batch,
    EmbedRequest,
    Finished,
    GenerateRequest,
    Media,
    RerankRequest,
    Sampling,
    TextDeltas,
    ThinkingDeltas,
    ToolCall,
)

NO_USAGE = Usage(0, 0)
"""A cancelled generation has no figures: the engine gives them with its last event."""


def generate_request(request: GenerateV1 | GenerateV2, blobs: tuple[bytes, ...]) -> GenerateRequest:
    """The daemon's own request; `blobs` are the attachments' bytes in their order."""
    if isinstance(request, GenerateV1):
        return GenerateRequest(
            messages=[Message(turn.role, [Text(turn.content)]) for turn in request.messages],
            sampling=Sampling(
                temperature=request.temperature,
                top_p=request.top_p,
                top_k=request.top_k,
                max_tokens=request.max_tokens,
            ),
            grammar=request.grammar,
        )
    # engines show tools to the model even where it may not call them: "none" means no tools
    tools = [] if request.tool_choice == "none" else request.tools
    pairs = zip(request.attachments, blobs, strict=True)
    response_format = request.response_format
    return GenerateRequest(
        messages=request.messages,
        sampling=Sampling(
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            min_p=request.min_p,
            seed=request.seed,
            stop=request.stop,
            max_tokens=request.max_tokens,
        ),
        tools=tools,
        tool_choice=request.tool_choice if tools else None,
        response_schema=response_format.schema if response_format is not None else None,
        thinking=request.thinking,
        media={attachment.id: Media(attachment, blob) for attachment, blob in pairs},
    )


def embed_request(request: Embed) -> EmbedRequest:
    """The daemon's own request."""
    return EmbedRequest(request.input, request.dimensions, request.task)


def rerank_request(request: Rerank) -> RerankRequest:
    """The daemon's own request; sorting and `top_n` are the front's."""
    return RerankRequest(request.query, request.documents)


class AnswerEncoder(ABC):
    """Turns the batches of one generation into the bytes of its answer."""

    def __init__(self, connection: ServerConnection, request_id: str, backend: str) -> None:
        self._connection = connection
        self._id = request_id
        self._backend = backend
        self.finished: Finished | None = None

    @abstractmethod
    def encode(self, batch: Batch) -> bytes:
        """The frames for `batch`; the terminal one for its `Finished`."""

    @abstractmethod
    def cancelled(self) -> bytes:
        """The terminal frame of a generation that its caller cancelled."""


class AnswerEncoderV2(AnswerEncoder):
    """`frame` … `done` (wire.md section 3.2)."""

    def __init__(
        self, connection: ServerConnection, request_id: str, backend: str, *, stream: bool
    ) -> None:
        super().__init__(connection, request_id, backend)
        self._withheld: list[str] | None = None if stream else []

    def encode(self, batch: Batch) -> bytes:
        """See AnswerEncoder."""
        connection = self._connection
        parts: list[bytes] = []
        for event in batch:
            match event:
                case TextDeltas(deltas):
                    if self._withheld is None:
                        parts.append(connection.send_deltas(self._id, deltas))
                    else:
                        self._withheld += deltas
                case ThinkingDeltas(deltas):
                    if self._withheld is None:
                        parts.append(connection.send_deltas(self._id, deltas, "thinking"))
                case ToolCall(call_id, name, arguments):
                    block = ToolUse(call_id, name, arguments)
                    parts.append(connection.send(BlockAnswer(self._id, block)))
                case Finished():
                    self.finished = event
                    parts.append(self._done(event))
        return b"".join(parts)

    def cancelled(self) -> bytes:
        """See AnswerEncoder."""
        return self._done(Finished("cancelled", NO_USAGE))

    def _done(self, end: Finished) -> bytes:
        content = UNSET if self._withheld is None else "".join(self._withheld)
        done = DoneV2(
            self._id,
            end.usage,
            end.stop_reason,
            self._backend,
            content=content,
            tool_choice_unsatisfied=end.tool_choice_unsatisfied,
        )
        return self._connection.send(done)


_STOP_REASONS_V1: dict[StopReason, StopReasonV1] = {
    "end_turn": "end",
    "stop_sequence": "end",
    "tool_use": "end",
    "max_tokens": "length",
    "cancelled": "cancelled",
    "error": "error",
}


class AnswerEncoderV1(AnswerEncoder):
    """`token` … `done` (wire.md section 3.1). The v1 wire has no place for reasoning."""

    def __init__(
        self, connection: ServerConnection, request_id: str, backend: str, *, stream: bool
    ) -> None:
        super().__init__(connection, request_id, backend)
        self._stream = stream
        self._text: list[str] = []

    def encode(self, batch: Batch) -> bytes:
        """See AnswerEncoder."""
        parts: list[bytes] = []
        for event in batch:
            match event:
                case TextDeltas(deltas):
                    self._text += deltas
                    if self._stream:
                        parts.append(self._connection.send_deltas(self._id, deltas))
                case Finished():
                    self.finished = event
                    parts.append(self._done(event))
                case _:
                    pass
        return b"".join(parts)

    def cancelled(self) -> bytes:
        """See AnswerEncoder."""
        return self._done(Finished("cancelled", NO_USAGE))

    def _done(self, end: Finished) -> bytes:
        usage = UsageV1(end.usage.input_tokens, end.usage.output_tokens)
        reason = _STOP_REASONS_V1[end.stop_reason]
        return self._connection.send(
            DoneV1(self._id, "".join(self._text), usage, reason, self._backend)
        )
