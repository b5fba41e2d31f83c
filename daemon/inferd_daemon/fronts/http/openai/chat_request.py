"""The body of `POST /v1/chat/completions` as a generation.

Pure. What the daemon cannot do as asked is refused by its name; a wish that changes nothing (a
label, a tier, a store) is ignored.
"""

from math import isfinite
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from inferd_proto import Codec, JsonObject, Tool, ToolChoice

from ....backends.base import GenerateRequest, Media, Sampling
from .chat_messages import MAX_JSON_BYTES, MediaSource, Turn, read_turns
from .json_body import FieldFault, decode_body, decode_object

MAX_STOPS = 64
MAX_TOOLS = 1024
_SEEDS = 2**32
"""What engines take; a larger one is folded, so that it still means the same answer each time."""
_NO_THINKING = ("none", "minimal")
"""Local models think or do not: the least of effort is none."""
_ABSENT = Raw(b"")

Temperature = Annotated[float, Meta(ge=0, le=100)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
TopK = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class ChatRequest(Struct, frozen=True):
    """`generate` lacks its media: `complete` adds them once `media` are decoded."""

    generate: GenerateRequest
    model: str | None
    stream: bool
    include_usage: bool
    media: dict[str, MediaSource] = {}

    def complete(self, media: dict[str, Media]) -> GenerateRequest:
        """The generation with its media, which have the ids of `self.media`."""
        return msgspec.structs.replace(self.generate, media=media) if media else self.generate


# -- as it comes -----------------------------------------------------------------------------


class _StreamOptions(Struct):
    include_usage: bool | None = None


class _Function(Struct):
    name: Annotated[str, Meta(min_length=1, max_length=256)]
    description: str | None = None
    parameters: Raw = _ABSENT


class _FunctionTool(Struct, tag_field="type", tag="function"):
    function: _Function


class _Named(Struct):
    name: str


class _NamedChoice(Struct, tag_field="type", tag="function"):
    function: _Named


class _PlainText(Struct, tag_field="type", tag="text"):
    pass


class _AnyJson(Struct, tag_field="type", tag="json_object"):
    pass


class _Schema(Struct):
    schema: Raw
    name: str = ""


class _JsonSchema(Struct, tag_field="type", tag="json_schema"):
    json_schema: _Schema


class _TemplateArguments(Struct):
    enable_thinking: bool | None = None


class _Body(Struct, kw_only=True):
    messages: list[Turn]
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: TopK | None = None
    min_p: Probability | None = None
    seed: Seed | None = None
    stop: str | list[str] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    tools: list[_FunctionTool] | None = None
    tool_choice: Literal["auto", "none", "required"] | _NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: _PlainText | _AnyJson | _JsonSchema | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: _TemplateArguments | None = None
    # what is refused where it asks for something
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    modalities: list[str] | None = None
    functions: list[Raw] | None = None

    def __post_init__(self) -> None:
        if self.n not in (None, 1):
            raise ValueError("`n`: only 1 answer is made for a request; send it several times")
        if self.logprobs or self.top_logprobs:
            raise ValueError("`logprobs`: this server gives no probabilities")
        if self.logit_bias:
            raise ValueError("`logit_bias`: this server does not bias single tokens")
        if self.modalities is not None and self.modalities != ["text"]:
            raise ValueError('`modalities`: this server answers with ["text"] only')
        if self.functions:
            raise ValueError("`functions`: give them as `tools`")
        if self.temperature is not None and not isfinite(self.temperature):
            raise ValueError("`temperature`: must be finite")


_BODY: Codec[_Body] = Codec(_Body)


# -- as the daemon knows it --------------------------------------------------------------------


def parse_chat(body: bytes) -> ChatRequest:
    """Raises FieldFault that names the field."""
    asked = decode_body(_BODY, body)
    conversation = read_turns(asked.messages)
    tools, choice = _read_tools(asked)
    schema = _read_format(asked)
    if schema is not None and choice == "required":
        raise FieldFault("tool_choice", "a forced call excludes `response_format`")
    generate = GenerateRequest(
        conversation.messages,
        _read_sampling(asked),
        tools=tools,
        tool_choice=choice,
        response_schema=schema,
        thinking=_read_thinking(asked),
        frequency_penalty=asked.frequency_penalty or None,
        presence_penalty=asked.presence_penalty or None,
        parallel_tool_calls=asked.parallel_tool_calls if tools else None,
    )
    options = asked.stream_options
    return ChatRequest(
        generate,
        asked.model or None,
        bool(asked.stream),
        bool(options is not None and options.include_usage),
        conversation.media,
    )


def read_stops(stop: str | list[str] | None) -> list[str] | None:
    """Raises FieldFault."""
    words = [stop] if isinstance(stop, str) else stop
    if not words:
        return None
    if len(words) > MAX_STOPS:
        raise FieldFault("stop", f"takes at most {MAX_STOPS} texts")
    if not all(words):
        raise FieldFault("stop", "no text in it may be empty")
    return words


def fold_seed(seed: int | None) -> int | None:
    """As engines take it; -1 means a random one."""
    return seed if seed is None or -1 <= seed < _SEEDS else seed % _SEEDS


def _read_sampling(asked: _Body) -> Sampling:
    most = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
    return Sampling(
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        min_p=asked.min_p,
        seed=fold_seed(asked.seed),
        stop=read_stops(asked.stop),
        max_tokens=most,
    )


def _read_tools(asked: _Body) -> tuple[list[Tool], ToolChoice | None]:
    """Engines show tools to the model even where it may not call them: "none" means no tools; one
    that is named means that one alone.
    """
    given, choice = asked.tools or [], asked.tool_choice
    if len(given) > MAX_TOOLS:
        raise FieldFault("tools", f"takes at most {MAX_TOOLS}")
    if sum(len(memoryview(tool.function.parameters)) for tool in given) > MAX_JSON_BYTES:
        raise FieldFault("tools", f"the schemas are over the cap of {MAX_JSON_BYTES} bytes")
    tools = [_read_tool(tool.function, index) for index, tool in enumerate(given)]
    names = [tool.name for tool in tools]
    if len(set(names)) != len(names):
        raise FieldFault("tools", "two of them have the same name")
    if isinstance(choice, _NamedChoice):
        named = [tool for tool in tools if tool.name == choice.function.name]
        if not named:
            raise FieldFault("tool_choice.function.name", "names none of `tools`")
        return named, "required"
    if not tools:
        if choice == "required":
            raise FieldFault("tool_choice", "needs `tools`")
        return [], None
    return ([], None) if choice == "none" else (tools, choice)


def _read_tool(function: _Function, index: int) -> Tool:
    path = f"tools[{index}].function.parameters"
    raw = bytes(memoryview(function.parameters))
    schema: JsonObject = {"type": "object", "properties": {}}
    if raw not in (b"", b"null"):
        schema = decode_object(function.parameters, path)
    try:
        return Tool(function.name, schema, function.description or "")
    except ValueError as error:
        raise FieldFault(path, str(error)) from None


def _read_format(asked: _Body) -> JsonObject | None:
    match asked.response_format:
        case _AnyJson():
            return {"type": "object"}
        case _JsonSchema(json_schema=given):
            path = "response_format.json_schema.schema"
            if len(memoryview(given.schema)) > MAX_JSON_BYTES:
                raise FieldFault(path, f"is over the cap of {MAX_JSON_BYTES} bytes")
            return decode_object(given.schema, path)
        case _:
            return None


def _read_thinking(asked: _Body) -> bool | None:
    arguments = asked.chat_template_kwargs
    if arguments is not None and arguments.enable_thinking is not None:
        return arguments.enable_thinking
    effort = asked.reasoning_effort
    return None if effort is None else effort not in _NO_THINKING
