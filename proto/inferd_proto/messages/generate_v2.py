"""`generate`, `api_version` 2: typed content, tools, attachments (wire.md section 3.2)."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from ..errors import quoted
from .limits import (
    MAX_ATTACHMENTS,
    Count,
    JsonObject,
    Label,
    NonEmpty,
    Pixels,
    Probability,
    Seed,
    Temperature,
    TopK,
    check_json,
    check_temperature,
    check_unique,
)

ToolChoice = Literal["auto", "required", "none"]
StopReason = Literal["end_turn", "max_tokens", "tool_use", "stop_sequence", "cancelled", "error"]


# -- content blocks ------------------------------------------------------------------------


class Text(Struct, frozen=True, tag_field="type", tag="text"):
    """Plain text."""

    text: str


class Image(Struct, frozen=True, tag_field="type", tag="image"):
    """An attached image, by the id of its attachment."""

    attachment_id: str


class Audio(Struct, frozen=True, tag_field="type", tag="audio"):
    """An attached sound, by the id of its attachment."""

    attachment_id: str


class Video(Struct, frozen=True, tag_field="type", tag="video"):
    """Reserved: parses, and no backend takes it."""

    attachment_id: str


class ToolUse(Struct, frozen=True, tag_field="type", tag="tool_use"):
    """A call of a tool that the model made; replayed in a request, or part of an answer."""

    tool_call_id: str
    name: NonEmpty
    input: JsonObject

    def __post_init__(self) -> None:
        check_json(self.input, "input")


class ToolResult(Struct, frozen=True, tag_field="type", tag="tool_result"):
    """What a tool answered to the call `tool_call_id`."""

    tool_call_id: str
    content: "list[Text | Image | Audio | Video | ToolUse | ToolResult]"


Block = Text | Image | Audio | Video | ToolUse | ToolResult


class Message(Struct, frozen=True):
    """One turn of the conversation."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[list[Block], Meta(min_length=1)]


# -- attachments ---------------------------------------------------------------------------


class ImageAttachment(Struct, frozen=True, tag_field="kind", tag="image"):
    """RGB, 8 bits a channel, rows from the top: width * height * 3 bytes follow as a BLOB."""

    id: NonEmpty
    width: Pixels
    height: Pixels

    def blob_bytes(self) -> int:
        """Exact length of the blob."""
        return self.width * self.height * 3


class AudioAttachment(Struct, frozen=True, tag_field="kind", tag="audio"):
    """Mono float32 little-endian PCM follows as a BLOB; `sample_rate` in Hz."""

    id: NonEmpty
    sample_rate: Annotated[int, Meta(ge=1, le=768_000)]


class VideoAttachment(Struct, frozen=True, tag_field="kind", tag="video"):
    """Reserved."""

    id: NonEmpty


Attachment = ImageAttachment | AudioAttachment | VideoAttachment


# -- the request ---------------------------------------------------------------------------


class Tool(Struct, frozen=True):
    """A tool that the model may call; `input_schema` is a JSON Schema."""

    name: NonEmpty
    input_schema: JsonObject
    description: str = ""

    def __post_init__(self) -> None:
        check_json(self.input_schema, "input_schema")


class ResponseFormat(Struct, frozen=True, tag_field="type", tag="json_schema"):
    """The answer must be JSON that satisfies `schema`."""

    schema: JsonObject

    def __post_init__(self) -> None:
        check_json(self.schema, "schema")


class GenerateV2(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A v2 request. What is None is left to the backend's default."""

    id: str = ""
    messages: Annotated[list[Message], Meta(min_length=1)]
    attachments: Annotated[list[Attachment], Meta(max_length=MAX_ATTACHMENTS)] = []
    tools: list[Tool] = []
    tool_choice: ToolChoice | None = None
    response_format: ResponseFormat | None = None
    thinking: bool | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: TopK | None = None
    min_p: Probability | None = None
    seed: Seed | None = None
    stop: list[NonEmpty] | None = None
    max_tokens: Count | None = None
    stream: bool = True
    model: str | None = None
    client: Label = ""
    queue_events: bool = False

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        check_unique([tool.name for tool in self.tools], "tools", "name")
        check_unique([attachment.id for attachment in self.attachments], "attachments", "id")
        if self.tool_choice is not None and not self.tools:
            raise ValueError("`tool_choice`: needs `tools`")
        if self.tool_choice is not None and self.response_format is not None:
            raise ValueError("`tool_choice`: excludes `response_format`")
        kinds = {attachment.id: _KINDS[type(attachment)] for attachment in self.attachments}
        for index, message in enumerate(self.messages):
            _check_blocks(message.content, message.role, kinds, f"messages[{index}].content")


_KINDS: dict[type, type] = {ImageAttachment: Image, AudioAttachment: Audio, VideoAttachment: Video}


def _check_blocks(blocks: list[Block], role: str, kinds: dict[str, type], path: str) -> None:
    """Tool blocks stand where their speaker does, and every media block names an attachment.

    Raises ValueError.
    """
    for index, block in enumerate(blocks):
        match block:
            case Image() | Audio() | Video():
                _check_reference(block, kinds, f"{path}[{index}].attachment_id")
            case ToolUse() if role != "assistant":
                raise ValueError(f"`{path}[{index}]`: tool_use stands in assistant messages only")
            case ToolResult():
                if role != "user":
                    raise ValueError(f"`{path}[{index}]`: tool_result stands in user messages only")
                _check_blocks(block.content, role, kinds, f"{path}[{index}].content")


def _check_reference(block: Image | Audio | Video, kinds: dict[str, type], path: str) -> None:
    kind = kinds.get(block.attachment_id)
    if kind is None:
        raise ValueError(f"`{path}`: there is no attachment {quoted(block.attachment_id)}")
    if kind is not type(block):
        raise ValueError(f"`{path}`: {quoted(block.attachment_id)} is of another kind")


class AttachmentBlob(Struct, frozen=True, tag_field="type", tag="attachment_blob"):
    """Announces the BLOB frame that follows: `len` bytes for the attachment `attachment_id`."""

    attachment_id: str
    len: Annotated[int, Meta(ge=0)]


# -- answers -------------------------------------------------------------------------------


class TextDelta(Struct, frozen=True, gc=False, tag_field="type", tag="text"):
    """More of the answer's text."""

    delta: str


class ThinkingDelta(Struct, frozen=True, gc=False, tag_field="type", tag="thinking"):
    """More of the model's reasoning."""

    delta: str


class Queued(Struct, frozen=True, gc=False, tag_field="type", tag="queued"):
    """The request waits; sent only where `queue_events` asked for it. `position` counts from 1."""

    position: int
    estimate_ms: int | None = None


AnswerBlock = TextDelta | ThinkingDelta | ToolUse | Queued


class BlockAnswer(Struct, frozen=True, tag_field="type", tag="frame"):
    """A part of a v2 answer."""

    id: str
    block: AnswerBlock


class Usage(Struct, frozen=True, gc=False):
    """Tokens, as the engine counted them."""

    input_tokens: int
    output_tokens: int


class DoneV2(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="done"):
    """The end of a v2 answer; `content` is the whole text, only where `stream` was false."""

    id: str
    usage: Usage
    stop_reason: StopReason
    backend: str
    content: str | UnsetType = UNSET
    tool_choice_unsatisfied: bool = False
