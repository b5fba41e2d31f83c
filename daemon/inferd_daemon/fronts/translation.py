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
    ErrorCode,
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
from ..errors import CallerFault

NO_USAGE = Usage(0, 0)
MAX_WHOLE_TEXT_BYTES = 8 * 1024 * 1024
"""Of an answer that must come in one frame: escaped as JSON (up to six times) it fits the cap."""


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


class WholeText:
    """The text of an answer that its last frame carries whole."""

    def __init__(self) -> None:
        self._utf8 = bytearray()

    def __str__(self) -> str:
        return self._utf8.decode(errors="surrogatepass")

    def add(self, deltas: list[str]) -> None:
        """Raises RequestError (`frame_too_large`) over `MAX_WHOLE_TEXT_BYTES`."""
        self._utf8 += "".join(deltas).encode(errors="surrogatepass")
        if len(self._utf8) > MAX_WHOLE_TEXT_BYTES:
            raise CallerFault(
                f"the answer is over the {MAX_WHOLE_TEXT_BYTES} bytes that one frame may carry:"
                " set `max_tokens`, or stream it by `api_version` 2",
                ErrorCode.FRAME_TOO_LARGE,
            )


class AnswerEncoder(ABC):
    """Turns the batches of one generation into the bytes of its answer.

    `finished` is true once the terminal frame is made; `usage` is then what the answer took.
    """

    def __init__(self, connection: ServerConnection, request_id: str, backend: str) -> None:
        self._connection = connection
        self._id = request_id
        self._backend = backend
        self.finished = False
        self.usage = NO_USAGE
        self._deltas = 0

    @abstractmethod
    def encode(self, batch: Batch) -> bytes:
        """The frames for `batch`; the terminal one for its `Finished`.

        Raises RequestError where the answer cannot be put in frames.
        """

    def cancelled(self) -> bytes:
        """The terminal frame of a generation that its caller cancelled.

        The engine gives its figures with its last event, which never came. What there is to say is
        how many deltas did: each holds a token at least.
        """
        self.usage = Usage(0, self._deltas)
        return self._done(Finished("cancelled", self.usage))

    @abstractmethod
    def _done(self, end: Finished) -> bytes:
        """The terminal frame of a generation that ended."""


class AnswerEncoderV2(AnswerEncoder):
    """`frame` … `done` (wire.md section 3.2)."""

    def __init__(
        self, connection: ServerConnection, request_id: str, backend: str, *, stream: bool
    ) -> None:
        super().__init__(connection, request_id, backend)
        self._withheld = None if stream else WholeText()

    def encode(self, batch: Batch) -> bytes:
        """See AnswerEncoder."""
        connection = self._connection
        parts: list[bytes] = []
        for event in batch:
            match event:
                case TextDeltas(deltas):
                    self._deltas += len(deltas)
                    if self._withheld is None:
                        parts.append(connection.send_deltas(self._id, deltas))
                    else:
                        self._withheld.add(deltas)
                case ThinkingDeltas(deltas):
                    self._deltas += len(deltas)
                    if self._withheld is None:
                        parts.append(connection.send_deltas(self._id, deltas, "thinking"))
                case ToolCall(call_id, name, arguments):
                    block = ToolUse(call_id, name, arguments)
                    parts.append(connection.send(BlockAnswer(self._id, block)))
                case Finished():
                    parts.append(self._done(event))
                    self.usage = event.usage
                    self.finished = True
        return b"".join(parts)

    def _done(self, end: Finished) -> bytes:
        content = UNSET if self._withheld is None else str(self._withheld)
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
        self._text = WholeText()

    def encode(self, batch: Batch) -> bytes:
        """See AnswerEncoder."""
        parts: list[bytes] = []
        for event in batch:
            match event:
                case TextDeltas(deltas):
                    self._deltas += len(deltas)
                    self._text.add(deltas)
                    if self._stream:
                        parts.append(self._connection.send_deltas(self._id, deltas))
                case Finished():
                    parts.append(self._done(event))
                    self.usage = event.usage
                    self.finished = True
                case _:
                    pass
        return b"".join(parts)

    def _done(self, end: Finished) -> bytes:
        usage = UsageV1(end.usage.input_tokens, end.usage.output_tokens)
        reason = _STOP_REASONS_V1[end.stop_reason]
        return self._connection.send(
            DoneV1(self._id, str(self._text), usage, reason, self._backend)
        )
