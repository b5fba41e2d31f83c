"""A call's arguments to a request message; pure.

Each builder returns a `Build`: given the id that the connection chose, the message and its
attachments' bytes. Ranges and names are checked by the daemon, once, for every client.
"""

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, TypedDict

from inferd_proto import (
    Control,
    Embed,
    GenerateV1,
    GenerateV2,
    JsonObject,
    Message,
    Request,
    Rerank,
    ResponseFormat,
    Text,
    TextMessage,
    Tool,
    ToolChoice,
)

from .content import Assembly, Prompt

Build: TypeAlias = Callable[[str], tuple[Request, tuple[bytes, ...]]]

EmbedTask = Literal[
    "retrieval_query",
    "retrieval_document",
    "similarity",
    "classification",
    "clustering",
    "question_answering",
    "fact_verification",
    "code_retrieval_query",
]


class GenerateOptions(TypedDict, total=False):
    """What `generate` takes besides the prompt; what is left out is the backend's default."""

    model: str | None
    """A route's name; None is the default route."""
    system: str | None
    """Put before the conversation as a system message."""
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    seed: int | None
    stop: Sequence[str] | None
    tools: Sequence[Tool]
    tool_choice: ToolChoice | None
    """"auto", "required" or "none": enforced, not a hint."""
    response_format: ResponseFormat | None
    thinking: bool | None
    """True asks for the reasoning as `ThinkingDelta` events."""
    stream: bool
    """False: the text comes whole, with the last event."""
    queue_events: bool
    """True: `Queued` events tell the place in the queue."""


class GenerateV1Options(TypedDict, total=False):
    """What `generate_v1` takes besides the messages; the daemon fills in the rest."""

    model: str | None
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    stream: bool
    grammar: str | None
    """GBNF; at most 64 KiB."""


def generate(prompt: Prompt, options: GenerateOptions, label: str) -> Build:
    """A v2 generation. Raises ValueError for a prompt without content or options at odds."""
    assembly = Assembly()
    messages = assembly.messages(prompt)
    fields: dict[str, object] = dict(options)
    system = fields.pop("system", None)
    if system:
        messages.insert(0, Message("system", [Text(str(system))]))
    for name in ("tools", "stop"):
        value = fields.get(name)
        if isinstance(value, Sequence) and not isinstance(value, str):
            fields[name] = list(value)
    blobs = tuple(assembly.blobs)

    def build(request_id: str) -> tuple[Request, tuple[bytes, ...]]:
        request = GenerateV2(
            id=request_id,
            messages=messages,
            attachments=assembly.attachments,
            client=label,
            **fields,  # type: ignore[arg-type]
        )
        return request, blobs

    build("")  # a mistake is raised where it was made, not at the first event
    return build


def generate_v1(
    messages: str | Sequence[TextMessage], options: GenerateV1Options, label: str
) -> Build:
    """A v1 generation: text in, text out. Raises ValueError as `generate` does."""
    turns = [TextMessage("user", messages)] if isinstance(messages, str) else list(messages)
    if not turns:
        raise ValueError("the prompt has no messages")

    def build(request_id: str) -> tuple[Request, tuple[bytes, ...]]:
        return GenerateV1(id=request_id, messages=turns, client=label, **options), ()

    build("")
    return build


def embed(
    texts: str | Sequence[str],
    *,
    model: str | None,
    dimensions: int | None,
    task: EmbedTask | None,
    label: str,
) -> Build:
    """Texts to vectors."""
    inputs = [texts] if isinstance(texts, str) else list(texts)
    return lambda request_id: (
        Embed(
            id=request_id, input=inputs, model=model, dimensions=dimensions, task=task, client=label
        ),
        (),
    )


def rerank(
    query: str, documents: Sequence[str], *, model: str | None, top_n: int | None, label: str
) -> Build:
    """Documents against a query. Raises ValueError where the text is over the wire's cap."""
    texts = list(documents)

    def build(request_id: str) -> tuple[Request, tuple[bytes, ...]]:
        request = Rerank(
            id=request_id, query=query, documents=texts, model=model, top_n=top_n, client=label
        )
        return request, ()

    build("")
    return build


def control(op: str, arguments: JsonObject) -> Build:
    """An operation on the daemon."""
    return lambda request_id: (Control(request_id, op, arguments), ())
