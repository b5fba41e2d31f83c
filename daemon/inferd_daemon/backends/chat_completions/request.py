"""A generation as the body of `POST /v1/chat/completions`.

Pure. Always streams, always asks for usage. A constraint that the upstream does not enforce is
refused, never dropped.
"""

import msgspec

from inferd_proto import AudioAttachment, ErrorCode, ImageAttachment, JsonObject

from ...errors import CallerFault
from ..base import Capabilities, GenerateRequest
from .messages import Parts, build_messages
from .upstream import Dialect

_encode = msgspec.json.Encoder().encode
_FOR_US = ("verbose", "response_fields")


def check_supported(request: GenerateRequest, can: Capabilities) -> None:
    """Raises CallerFault where the request asks for what the backend cannot do."""
    if request.tools and not can.tools:
        raise CallerFault("`tools`: this backend takes no tools")
    if request.tool_choice in ("required", "none") and not can.tool_choice:
        raise CallerFault(f"`tool_choice`: this backend cannot enforce {request.tool_choice!r}")
    if request.response_schema is not None and not can.response_format:
        raise CallerFault("`response_format`: this backend cannot enforce a JSON schema")
    if request.grammar is not None and not can.grammar:
        raise CallerFault("`grammar`: this backend cannot enforce a grammar")
    if request.grammar is not None and (request.tools or request.response_schema is not None):
        raise CallerFault("`grammar`: excludes `tools` and `response_format`")
    for media in request.media.values():
        _check_attachment(media.attachment, can)


def build_body(
    request: GenerateRequest,
    dialect: Dialect,
    model: str | None,
    parts: Parts,
    *,
    relayed: bool = False,
    include_usage: bool = True,
) -> bytes:
    """The JSON body; `parts` holds the content parts of the request's media.

    `relayed` answers are passed on as they come: nothing is asked for that only we understand.

    Raises CallerFault naming what cannot be carried. Call `check_supported` first.
    """
    body: JsonObject = {
        "messages": build_messages(request.messages, parts),
        "stream": True,
    }
    if include_usage:
        body["stream_options"] = {"include_usage": True}
    if model is not None:
        body["model"] = model
    _add_sampling(body, request, dialect)
    _add_tools(body, request)
    _add_constraints(body, request, dialect)
    _add_thinking(body, request, dialect)
    if relayed:
        for field in _FOR_US:
            body.pop(field, None)
    elif dialect.progress:
        body["return_progress"] = True
    return _encode(body)


def _add_sampling(body: JsonObject, request: GenerateRequest, dialect: Dialect) -> None:
    sampling = request.sampling
    fields: JsonObject = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k if dialect.top_k else None,
        "min_p": sampling.min_p if dialect.min_p else None,
        "seed": sampling.seed,
        "stop": sampling.stop or None,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        dialect.max_tokens_field: sampling.max_tokens,
    }
    body.update((name, value) for name, value in fields.items() if value is not None)
    if sampling.stop and dialect.stop_details:
        # llama-server tells the stop word only in its debug record; two fields of it will do, for
        # the rest holds the whole prompt.
        body["verbose"] = True
        body["response_fields"] = ["stop_type", "stopping_word"]


def _add_tools(body: JsonObject, request: GenerateRequest) -> None:
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    **({"description": tool.description} if tool.description else {}),
                    "parameters": tool.input_schema,
                },
            }
            for tool in request.tools
        ]
        if request.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = request.parallel_tool_calls
    if request.tool_choice is not None:
        body["tool_choice"] = request.tool_choice


def _add_constraints(body: JsonObject, request: GenerateRequest, dialect: Dialect) -> None:
    if request.response_schema is not None:
        schema = {"name": "answer", "strict": True, "schema": request.response_schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.grammar is not None and dialect.grammar_field is not None:
        body[dialect.grammar_field] = request.grammar
    constrained = request.tools or request.response_schema is not None
    if dialect.require_parameters and constrained:
        body["provider"] = {"require_parameters": True}


def _add_thinking(body: JsonObject, request: GenerateRequest, dialect: Dialect) -> None:
    thinking = request.thinking
    if thinking is None:
        return
    match dialect.thinking_by:
        case "template":
            body["chat_template_kwargs"] = {"enable_thinking": thinking}
        case "reasoning":
            body["reasoning"] = {"enabled": thinking}
        case "effort" if not thinking:
            body["reasoning_effort"] = "none"
        case _:
            pass


def _check_attachment(attachment: object, can: Capabilities) -> None:
    match attachment:
        case ImageAttachment() if can.vision:
            return
        case AudioAttachment(sample_rate=rate) if can.audio:
            if can.audio_sample_rate not in (None, rate):
                raise CallerFault(
                    f"`attachments`: audio has {rate} Hz, this backend takes "
                    f"{can.audio_sample_rate} Hz"
                )
            return
    kind = type(attachment).__name__.removesuffix("Attachment").lower()
    raise CallerFault(
        f"`attachments`: this backend takes no {kind}", ErrorCode.ATTACHMENT_UNSUPPORTED
    )
