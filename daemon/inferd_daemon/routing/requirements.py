"""What a request needs of a backend, against what a backend can do. Pure."""

from inferd_proto import Audio, AudioAttachment, Block, ErrorCode, Image, Text, ToolResult, Video

from ..backends.base import (
    Capabilities,
    EmbedRequest,
    GenerateRequest,
    RelayRequest,
    RerankRequest,
)
from ..errors import RequestError

AnyRequest = GenerateRequest | EmbedRequest | RerankRequest | RelayRequest


def missing(request: AnyRequest, can: Capabilities) -> RequestError | None:
    """Why a backend with the capabilities `can` must not get `request`; None if it may.

    The error's message is a phrase to follow the backend's name.
    """
    match request:
        case EmbedRequest():
            return None if can.embed else _lacks(ErrorCode.EMBED_UNSUPPORTED, "embeddings")
        case RerankRequest():
            return None if can.rerank else _lacks(ErrorCode.RERANK_UNSUPPORTED, "reranking")
        case RelayRequest(path=path):
            served = path in (can.apis or ())
            return None if served else _lacks(ErrorCode.INVALID_REQUEST, path)
        case GenerateRequest():
            return _missing_for_generate(request, can)


def _missing_for_generate(request: GenerateRequest, can: Capabilities) -> RequestError | None:
    invalid = ErrorCode.INVALID_REQUEST
    if not can.generate:
        return _lacks(invalid, "generation")
    if request.tools and not can.tools:
        return _lacks(invalid, "tools")
    if request.tool_choice == "required" and not can.tool_choice:
        return RequestError(invalid, "cannot enforce `tool_choice`")
    if request.response_schema is not None and not can.response_format:
        return RequestError(invalid, "cannot enforce `response_format`")
    if request.grammar is not None and not can.grammar:
        return RequestError(invalid, "cannot enforce `grammar`")
    for index, message in enumerate(request.messages):
        lacking = _missing_media(message.content, request, can, f"messages[{index}].content")
        if lacking is not None:
            return lacking
    return None


def _missing_media(
    blocks: list[Block], request: GenerateRequest, can: Capabilities, path: str
) -> RequestError | None:
    unsupported = ErrorCode.ATTACHMENT_UNSUPPORTED
    for index, block in enumerate(blocks):
        lacking: RequestError | None = None
        match block:
            case Video():
                lacking = _lacks(unsupported, "video")
            case Image() if not can.vision:
                lacking = _lacks(unsupported, "images")
            case Audio() if not can.audio:
                lacking = _lacks(unsupported, "audio")
            case Audio():
                lacking = _wrong_rate(request, block, can.audio_sample_rate)
            case ToolResult():
                lacking = _more_than_text(block, f"{path}[{index}].content")
        if lacking is not None:
            return lacking
    return None


def _more_than_text(result: ToolResult, path: str) -> RequestError | None:
    """No backend has a place for more, whatever it takes elsewhere."""
    for index, block in enumerate(result.content):
        if not isinstance(block, Text):
            why = f"takes only text in a `tool_result`, not what stands at `{path}[{index}]`"
            return RequestError(ErrorCode.INVALID_REQUEST, why)
    return None


def _wrong_rate(request: GenerateRequest, block: Audio, wanted: int | None) -> RequestError | None:
    attachment = request.media[block.attachment_id].attachment
    if wanted is None or not isinstance(attachment, AudioAttachment):
        return None
    if attachment.sample_rate == wanted:
        return None
    return RequestError(
        ErrorCode.INVALID_REQUEST,
        f"takes audio at {wanted} Hz, not at {attachment.sample_rate} Hz",
    )


def _lacks(code: ErrorCode, what: str) -> RequestError:
    return RequestError(code, f"does not support {what}")
