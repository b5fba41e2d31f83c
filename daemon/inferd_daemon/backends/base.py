"""The interface of a backend, and the types that pass through it.

A backend answers a request as an async stream of batches: a batch is what was ready at one
moment, and is written to the client in one send. Nothing waits for a batch to fill.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, NamedTuple

from msgspec import Raw, Struct

from inferd_proto import (
    AudioAttachment,
    ErrorCode,
    ImageAttachment,
    JsonObject,
    Message,
    StopReason,
    Tool,
    ToolChoice,
    Usage,
    VideoAttachment,
)

from ..errors import RequestError

# -- what is asked -------------------------------------------------------------------------


class Sampling(Struct, frozen=True):
    """How to choose tokens; None leaves the backend's default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    max_tokens: int | None = None


class Media(Struct, frozen=True):
    """One attachment with its bytes (wire.md section 3.2 fixes their layout)."""

    attachment: ImageAttachment | AudioAttachment | VideoAttachment
    data: bytes


class GenerateRequest(Struct, frozen=True):
    """One generation, whichever version of the wire asked for it.

    `media` maps attachment ids, as the image and audio blocks of `messages` name them.
    `response_schema` is a JSON Schema the answer must satisfy; `grammar` is GBNF. The penalties
    (-2 to 2) and `parallel_tool_calls` are wishes: a backend that knows nothing of them ignores
    them.
    """

    messages: list[Message]
    sampling: Sampling = Sampling()
    tools: list[Tool] = []
    tool_choice: ToolChoice | None = None
    response_schema: JsonObject | None = None
    grammar: str | None = None
    thinking: bool | None = None
    media: dict[str, Media] = {}
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    parallel_tool_calls: bool | None = None


class EmbedRequest(Struct, frozen=True):
    """Texts to turn into vectors."""

    input: list[str]
    dimensions: int | None = None
    task: str | None = None


class RerankRequest(Struct, frozen=True):
    """Documents to score against a query. The caller sorts and cuts."""

    query: str
    documents: list[str]


class RelayRequest(Struct, frozen=True):
    """A request whose answer is to be passed on as its bytes come, undecoded.

    `path` names the API; `body` is a generation for `/v1/chat/completions`, else the fields of a
    JSON object, of which the backend sets `model`. `stream` says whether events are asked for,
    `include_usage` whether a generation's end with its usage. `response_format` is what Responses
    have asked for as `text.format`, in the words of Chat Completions, for who knows only these.
    """

    path: str
    body: GenerateRequest | dict[str, Raw]
    stream: bool
    include_usage: bool = False
    response_format: Raw | None = None


# -- what is answered ----------------------------------------------------------------------


class TextDeltas(NamedTuple):
    """Pieces of text, one for each token that was ready."""

    deltas: list[str]


class ThinkingDeltas(NamedTuple):
    """Pieces of reasoning."""

    deltas: list[str]


class ToolCall(NamedTuple):
    """A whole tool call; `input` is the parsed arguments object."""

    id: str
    name: str
    input: JsonObject


class Finished(NamedTuple):
    """The end of a generation: always the last event, exactly once.

    `counted`: `usage` is the engine's own count. Where it is not, that is the best there is for
    wires that must have figures, and others leave it out.
    """

    stop_reason: StopReason
    usage: Usage
    tool_choice_unsatisfied: bool = False
    counted: bool = True


GenerateEvent = TextDeltas | ThinkingDeltas | ToolCall | Finished
Batch = list[GenerateEvent]


class EmbedResult(Struct, frozen=True):
    """One vector for each input, in order; the name of the model that made them."""

    embeddings: list[list[float]]
    model: str
    input_tokens: int


class RerankResult(Struct, frozen=True):
    """One raw score for each document, in the order of the documents."""

    scores: list[float]
    model: str
    input_tokens: int


class Pieces(ABC, AsyncIterator[bytes]):
    """The bytes of an answer: whole lines, as many in a piece as came at once; or one object.

    `over` is true from the last piece on; `usage` is then what the upstream has told of it.
    Iterating raises RequestError where the upstream fails or ends before the answer does.
    """

    over: bool = False
    usage: Usage | None = None


class Relayed(NamedTuple):
    """An answer of status 200."""

    content_type: str
    pieces: Pieces


# -- the interface -------------------------------------------------------------------------


class Capabilities(Struct, frozen=True):
    """What a backend can do; what is false is refused before it is asked.

    `tool_choice` is true only where the backend enforces it. `audio_sample_rate` in Hz, None
    where any rate is taken or `audio` is false. `accelerator` is "cpu", "cuda", …. `apis` are the
    paths of other APIs whose answers it relays (`/v1/responses`, …).
    """

    generate: bool = True
    tools: bool = False
    tool_choice: bool = False
    response_format: bool = False
    grammar: bool = False
    thinking: bool = False
    vision: bool = False
    audio: bool = False
    embed: bool = False
    rerank: bool = False
    audio_sample_rate: int | None = None
    accelerator: str | None = None
    gpu_layers: int | None = None
    n_ctx: int | None = None
    apis: tuple[str, ...] | None = None


class Readiness(Struct, frozen=True):
    """Whether a backend takes requests now; `reason` says in one sentence why not.

    `pending`: it is not ready but on its way; a request may be sent and waits a while.
    """

    ready: bool
    reason: str = ""
    pending: bool = False


class Backend(ABC):
    """One way to answer requests. Methods run in the daemon's trio loop and never block it.

    Cancelling a `generate` (its scope, or closing its generator) stops the work behind it at
    once. Every failure is a `RequestError`; nothing else leaves a backend.
    """

    kind: ClassVar[str]
    name: str

    @property
    def slots(self) -> int:
        """How many requests it works on at once; more would only wait inside it."""
        return 1

    @property
    def dropped(self) -> int | None:
        """Malformed lines of streams that it has left out so far; None where it reads no lines."""
        return None

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What it can do, as known now (a model may have to be loaded first)."""

    @abstractmethod
    def readiness(self) -> Readiness:
        """Whether it takes requests now; cheap, no I/O."""

    @abstractmethod
    def generate(self, request: GenerateRequest) -> AsyncGenerator[Batch, None]:
        """The answer as batches, `Finished` last.

        Raises RequestError before the first batch or after any. Use it within
        `contextlib.aclosing`.
        """

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """Raises RequestError (`embed_unsupported` by default)."""
        raise RequestError(ErrorCode.EMBED_UNSUPPORTED, f"backend {self.name} makes no embeddings")

    async def rerank(self, request: RerankRequest) -> RerankResult:
        """Raises RequestError (`rerank_unsupported` by default)."""
        raise RequestError(ErrorCode.RERANK_UNSUPPORTED, f"backend {self.name} does not rerank")

    def relays(self, request: RelayRequest) -> bool:
        """Whether `relay` takes the generation in `request`, with nothing lost by not decoding."""
        return False

    def relay(self, request: RelayRequest) -> AbstractAsyncContextManager[Relayed]:
        """The answer while the block lasts; leaving it stops the work behind it at once.

        Raises RequestError (`invalid_request` by default). A request that is no generation needs
        its path in `capabilities.apis`.
        """
        raise RequestError(
            ErrorCode.INVALID_REQUEST, f"backend {self.name} does not serve {request.path}"
        )

    async def run(self) -> None:  # noqa: B027 (most backends own nothing)
        """Own what the backend needs (a process, a probe) until cancelled; then end it.

        Runs in the daemon's nursery from start to stop. Never raises for a failed model or
        upstream: that is what `readiness` tells.
        """

    async def close(self) -> None:  # noqa: B027 (most backends hold nothing to let go of)
        """Let go of connections. Running requests were ended before."""
