"""`generate`, `api_version` 1: plain text in, plain text out (wire.md section 3.1)."""

from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import force_setattr

from .limits import (
    MAX_GRAMMAR_ALTERNATIVES,
    MAX_GRAMMAR_BYTES,
    Count,
    Label,
    Probability,
    Temperature,
    TopK,
    check_temperature,
)

ImageTokenBudget = Literal[70, 140, 280, 560, 1120]
StopReasonV1 = Literal["end", "length", "cancelled", "error"]


class TextMessage(Struct, frozen=True, gc=False):
    """One turn of the conversation, text alone."""

    role: Literal["system", "user", "assistant"]
    content: str


class GenerateV1(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A v1 request. Fields that are missing take the defaults written here."""

    id: str = ""
    messages: Annotated[list[TextMessage], Meta(min_length=1)]
    temperature: Temperature = 1.0
    top_p: Probability = 0.95
    top_k: TopK = 64
    max_tokens: Count = 1000
    stream: bool = True
    grammar: str | None = None
    image_token_budget: ImageTokenBudget | None = None
    model: str | None = None
    client: Label = ""
    queue_events: bool = False

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        if self.grammar == "":  # published clients write it for "no grammar"
            force_setattr(self, "grammar", None)
        if self.grammar is not None:
            if len(self.grammar.encode()) > MAX_GRAMMAR_BYTES:
                raise ValueError(f"`grammar`: is over {MAX_GRAMMAR_BYTES} bytes")
            if self.grammar.count("|") > MAX_GRAMMAR_ALTERNATIVES:
                raise ValueError(f"`grammar`: has over {MAX_GRAMMAR_ALTERNATIVES} `|`")


class UsageV1(Struct, frozen=True, gc=False):
    """Tokens, as the engine counted them."""

    prompt_tokens: int
    completion_tokens: int


class Token(Struct, frozen=True, gc=False, tag_field="type", tag="token"):
    """A piece of the answer's text."""

    id: str
    content: str


class DoneV1(Struct, frozen=True, tag_field="type", tag="done"):
    """The end of a v1 answer; `content` is the full text."""

    id: str
    content: str
    usage: UsageV1
    stop_reason: StopReasonV1
    backend: str = ""
