"""The body of `POST /v1/completions`, the older form: a prompt, and what follows it.

Pure. One prompt as text; several at once, and prompts as tokens, are refused by name.
"""

from math import isfinite
from typing import Annotated

from msgspec import Meta, Struct

from inferd_proto import Codec, Message, Text

from ....backends.base import GenerateRequest, Sampling
from .chat_request import (
    Count,
    Penalty,
    Probability,
    Seed,
    Temperature,
    TopK,
    fold_seed,
    read_stops,
)
from .json_body import FieldFault, decode_body


class CompletionRequest(Struct, frozen=True):
    """`generate` holds the prompt as what one user says, for backends that only chat."""

    prompt: str
    generate: GenerateRequest
    model: str | None
    stream: bool
    include_usage: bool


class _StreamOptions(Struct):
    include_usage: bool | None = None


class _Body(Struct, kw_only=True):
    prompt: str | list[str | int | list[int]]
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: Count | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: TopK | None = None
    min_p: Probability | None = None
    seed: Seed | None = None
    stop: str | list[str] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    # what is refused where it asks for something
    suffix: str | None = None
    echo: bool | None = None
    n: int | None = None
    best_of: Annotated[int, Meta(ge=0)] | None = None
    logprobs: int | bool | None = None
    logit_bias: dict[str, float] | None = None

    def __post_init__(self) -> None:
        if self.n not in (None, 1):
            raise ValueError("`n`: only 1 answer is made for a request; send it several times")
        if self.best_of not in (None, 1):
            raise ValueError("`best_of`: only 1 answer is made for a request")
        if self.echo:
            raise ValueError("`echo`: this server does not repeat the prompt")
        if self.suffix:
            raise ValueError("`suffix`: this server does not fill in between two texts")
        # 0 asks for the probability of the token itself
        if self.logprobs is not None and self.logprobs is not False:
            raise ValueError("`logprobs`: this server gives no probabilities")
        if self.logit_bias:
            raise ValueError("`logit_bias`: this server does not bias single tokens")
        if self.temperature is not None and not isfinite(self.temperature):
            raise ValueError("`temperature`: must be finite")


_BODY: Codec[_Body] = Codec(_Body)


def parse_completion(body: bytes) -> CompletionRequest:
    """Raises FieldFault."""
    asked = decode_body(_BODY, body)
    sampling = Sampling(
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        min_p=asked.min_p,
        seed=fold_seed(asked.seed),
        stop=read_stops(asked.stop),
        max_tokens=asked.max_tokens,
    )
    prompt = _read_prompt(asked.prompt)
    generate = GenerateRequest(
        [Message("user", [Text(prompt)])],
        sampling,
        frequency_penalty=asked.frequency_penalty or None,
        presence_penalty=asked.presence_penalty or None,
    )
    options = asked.stream_options
    return CompletionRequest(
        prompt,
        generate,
        asked.model or None,
        bool(asked.stream),
        bool(options is not None and options.include_usage),
    )


def _read_prompt(prompt: str | list[str | int | list[int]]) -> str:
    given = [prompt] if isinstance(prompt, str) else prompt
    texts = [text for text in given if isinstance(text, str)]
    if len(texts) != len(given):
        raise FieldFault("prompt", "arrays of tokens are not taken; give the text itself")
    if len(texts) != 1:
        raise FieldFault("prompt", "must be one text; send several requests for several prompts")
    if not texts[0]:
        raise FieldFault("prompt", "must not be empty")
    return texts[0]
