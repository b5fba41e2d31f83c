"""Requests that a runtime answers in its own words: Responses, and Anthropic's Messages.

Pure. Passes on the fields that the API defines, and looks at no more of them than must be right for
everybody: nothing empty, no unknown role, nothing that would make a runtime fetch a URL or read a
file of this machine.
"""

from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta, Raw, Struct

from inferd_proto import Codec

from ....backends.base import GenerateRequest, RelayRequest, Sampling
from ....backends.chat_completions.upstream import COMPLETIONS, COUNT_TOKENS, MESSAGES, RESPONSES
from ....routing.presets import Presets
from .chat_request import Count, Probability, Temperature, TopK
from .completion_request import CompletionRequest
from .json_body import FieldFault, decode_body

_MEDIA = frozenset(
    ("image", "image_url", "input_image", "document", "file", "input_file", "video_url")
)
_URLS = ("url", "image_url", "file_url")
_RESPONSES_FIELDS = frozenset(
    (
        *("input", "instructions", "max_output_tokens", "metadata", "model", "reasoning", "stream"),
        *("parallel_tool_calls", "previous_response_id", "store", "temperature", "text", "tools"),
        *("tool_choice", "top_p", "truncation", "user", "include", "prompt_cache_key"),
    )
)
_MESSAGES_FIELDS = frozenset(
    (
        *("max_tokens", "messages", "metadata", "model", "stop_sequences", "stream", "system"),
        *("temperature", "thinking", "tool_choice", "tools", "top_k", "top_p", "output_config"),
    )
)
_NO_FORMAT = (
    "no schema is enforced on /v1/messages; ask /v1/chat/completions (`response_format`) or "
    "/v1/responses (`text.format`)"
)
_FIELDS: Codec[dict[str, Raw]] = Codec(dict[str, Raw])
_NULL = Raw(b"null")
_encode = msgspec.json.Encoder().encode


class RawAsked(NamedTuple):
    """What came; `names` are the API's words for our sampling fields."""

    request: RelayRequest
    model: str | None
    sampling: Sampling
    names: dict[str, str]
    says_thinking: bool


class _TextFormat(Struct, tag_field="type", tag="text"):
    pass


class _JsonFormat(Struct, tag_field="type", tag="json_object"):
    pass


class _SchemaFormat(Struct, tag_field="type", tag="json_schema"):
    schema: dict[str, Raw]
    name: str = ""
    strict: bool | None = None


class _Text(Struct):
    format: _TextFormat | _JsonFormat | _SchemaFormat | None = None


class _WithText(Struct):
    text: _Text | None = None


class _Responses(Struct):
    input: Annotated[str, Meta(min_length=1)] | Annotated[list[Raw], Meta(min_length=1)]
    model: str | None = None
    stream: bool | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    max_output_tokens: Count | None = None
    text: _Text | None = None


class _OutputConfig(Struct):
    format: Raw = _NULL


class _Turn(Struct):
    role: Literal["user", "assistant", "system"]
    content: Annotated[str, Meta(min_length=1)] | Annotated[list[Raw], Meta(min_length=1)]


class _Messages(Struct):
    messages: Annotated[list[_Turn], Meta(min_length=1)]
    model: str | None = None
    stream: bool | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: TopK | None = None
    stop_sequences: list[str] | None = None
    max_tokens: Count | None = None
    output_config: _OutputConfig | None = None
    output_format: Raw = _NULL


_TEXT: Codec[_WithText] = Codec(_WithText)
_RESPONSES: Codec[_Responses] = Codec(_Responses)
_MESSAGES: Codec[_Messages] = Codec(_Messages)


def parse_responses(body: bytes) -> RawAsked:
    """`POST /v1/responses`. Raises FieldFault."""
    asked = decode_body(_RESPONSES, body)
    fields = _read_fields(body, _RESPONSES_FIELDS)
    _check_media(fields["input"], "input")
    sampling = Sampling(
        temperature=asked.temperature, top_p=asked.top_p, max_tokens=asked.max_output_tokens
    )
    names = {"max_tokens": "max_output_tokens", "temperature": "temperature", "top_p": "top_p"}
    stream = bool(asked.stream)
    format_ = _chat_format(asked.text)
    request = RelayRequest(RESPONSES, fields, stream, response_format=format_)
    return RawAsked(request, asked.model or None, sampling, names, "reasoning" in fields)


def parse_messages(body: bytes) -> RawAsked:
    """`POST /v1/messages`. Raises FieldFault."""
    return _parse_messages(body, MESSAGES)


def parse_count(body: bytes) -> RawAsked:
    """`POST /v1/messages/count_tokens`, which never streams. Raises FieldFault."""
    return _parse_messages(body, COUNT_TOKENS)


def _parse_messages(body: bytes, path: str) -> RawAsked:
    asked = decode_body(_MESSAGES, body)
    _refuse_format(asked)
    fields = _read_fields(body, _MESSAGES_FIELDS)
    _check_media(fields["messages"], "messages")
    sampling = Sampling(
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        stop=asked.stop_sequences or None,
        max_tokens=asked.max_tokens,
    )
    names = {name: name for name in ("max_tokens", "temperature", "top_p", "top_k")}
    names["stop"] = "stop_sequences"
    stream = bool(asked.stream) and path == MESSAGES
    request = RelayRequest(path, fields, stream)
    return RawAsked(request, asked.model or None, sampling, names, "thinking" in fields)


def with_chat_format(body: bytes) -> bytes:
    """A body of Responses that says its `text.format` in the words of Chat Completions, too.

    Raises FieldFault where that is none; looks at nothing else.
    """
    form = _chat_format(decode_body(_TEXT, body).text)
    if form is None:
        return body
    return _encode(decode_body(_FIELDS, body) | {"response_format": form})


def with_presets(asked: RawAsked, presets: Presets) -> RelayRequest:
    """With what the route adds and cuts, where the API has a word for it."""
    thinking = True if asked.says_thinking else None
    before = GenerateRequest([], asked.sampling, thinking=thinking)
    after = presets.apply(before)
    if after is before or asked.request.path == COUNT_TOKENS:
        return asked.request
    assert not isinstance(asked.request.body, GenerateRequest)
    fields = dict(asked.request.body)
    for ours, theirs in asked.names.items():
        value = getattr(after.sampling, ours)
        if value != getattr(before.sampling, ours):
            fields[theirs] = Raw(_encode(value))
    if after.thinking is not None and not asked.says_thinking:
        fields["chat_template_kwargs"] = Raw(_encode({"enable_thinking": after.thinking}))
    return msgspec.structs.replace(asked.request, body=fields)


def output_limit(request: RelayRequest) -> int | None:
    """How many tokens a Responses answer may have, with what the route has set."""
    assert not isinstance(request.body, GenerateRequest)
    limit = request.body.get("max_output_tokens")
    return None if limit is None else msgspec.json.decode(limit, type=int)


def raw_completion(asked: CompletionRequest, generate: GenerateRequest) -> RelayRequest:
    """A prompt that a runtime continues as it stands; `generate` has the presets applied."""
    sampling = generate.sampling
    values: dict[str, object] = {
        "prompt": asked.prompt,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "seed": sampling.seed,
        "stop": sampling.stop,
        "frequency_penalty": generate.frequency_penalty,
        "presence_penalty": generate.presence_penalty,
        "model": asked.model,
        "stream": asked.stream,
        "stream_options": {"include_usage": True} if asked.include_usage else None,
    }
    fields = {name: Raw(_encode(value)) for name, value in values.items() if value is not None}
    return RelayRequest(COMPLETIONS, fields, asked.stream, asked.include_usage)


def _chat_format(text: _Text | None) -> Raw | None:
    match None if text is None else text.format:
        case _JsonFormat():
            return Raw(b'{"type":"json_object"}')
        case _SchemaFormat(schema, name, strict):
            given: dict[str, object] = {"name": name, "schema": schema}
            if strict is not None:
                given["strict"] = strict
            return Raw(_encode({"type": "json_schema", "json_schema": given}))
        case _:
            return None


def _refuse_format(asked: _Messages) -> None:
    """Runtimes pass over it, so who has asked for it would take any text for what was meant."""
    config = asked.output_config
    if config is not None and config.format != _NULL:
        raise FieldFault("output_config.format", _NO_FORMAT)
    if asked.output_format != _NULL:
        raise FieldFault("output_format", _NO_FORMAT)


def _read_fields(body: bytes, known: frozenset[str]) -> dict[str, Raw]:
    """Those of the API that say something."""
    fields = decode_body(_FIELDS, body)
    return {name: raw for name, raw in fields.items() if name in known and raw != _NULL}


def _check_media(raw: Raw, name: str) -> None:
    """Raises FieldFault where a runtime would have to fetch something."""
    level: list[object] = [msgspec.json.decode(raw)]
    while level:
        below: list[object] = []
        for value in level:
            if isinstance(value, list):
                below += value
            elif isinstance(value, dict):
                if value.get("type") in _MEDIA:
                    _check_block(value, name)
                # what tools were called with is their own business
                below += [value.get("content"), value.get("output")]
        level = below


def _check_block(block: dict[str, object], name: str) -> None:
    level: list[object] = [block]
    while level:
        value = level.pop()
        if isinstance(value, list):
            level += value
        elif isinstance(value, dict):
            for key in _URLS:
                url = value.get(key)
                if isinstance(url, str) and not url.lower().startswith("data:"):
                    raise FieldFault(name, "holds a URL; the daemon fetches nothing, give the data")
            level += value.values()
