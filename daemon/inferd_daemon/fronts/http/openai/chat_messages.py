"""Messages of Chat Completions as the daemon's own.

Pure: attachments leave as `MediaSource`, still encoded. Content that has no place with its speaker
is refused with its path, never left out.
"""

from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from inferd_proto import (
    MAX_ATTACHMENTS,
    Audio,
    Block,
    Image,
    Message,
    Text,
    ToolResult,
    ToolUse,
)

from .json_body import FieldFault, decode_object

MAX_JSON_BYTES = 4 * 1024 * 1024
"""Of tool arguments and schemas of one request together: decoded they take thirty times that."""


class MediaSource(NamedTuple):
    """An attachment as it came: `data` is base64; `path` names it in errors."""

    kind: Literal["image", "audio"]
    data: str
    path: str


# -- as they come ----------------------------------------------------------------------------


class TextPart(Struct, tag_field="type", tag="text"):
    """Plain text."""

    text: str


class RefusalPart(Struct, tag_field="type", tag="refusal"):
    """What an assistant said when it would not answer: text, to a model that reads it."""

    refusal: str


class ImageUrl(Struct):
    """A `data:` URL; `detail` is a hint that local models have no use for."""

    url: str


class ImagePart(Struct, tag_field="type", tag="image_url"):
    """An image; some clients give the URL itself."""

    image_url: ImageUrl | str


class AudioData(Struct):
    """A whole file in base64."""

    data: str
    format: str = "wav"


class AudioPart(Struct, tag_field="type", tag="input_audio"):
    """A sound."""

    input_audio: AudioData


class CalledFunction(Struct):
    """`arguments` is an object, as JSON in a text."""

    name: str
    arguments: str = ""


class CallPart(Struct, tag_field="type", tag="function"):
    """A call that the assistant made."""

    id: str
    function: CalledFunction


UserPart = TextPart | ImagePart | AudioPart
SpokenPart = TextPart | RefusalPart


class SystemTurn(Struct, tag_field="role", tag="system"):
    """What the model is told beforehand."""

    content: str | list[TextPart]


class DeveloperTurn(Struct, tag_field="role", tag="developer"):
    """The same by its newer name."""

    content: str | list[TextPart]


class UserTurn(Struct, tag_field="role", tag="user"):
    """What the user says and shows."""

    content: str | list[UserPart]


class AssistantTurn(Struct, tag_field="role", tag="assistant"):
    """What the model has said, and the tools it has called. Its reasoning is not replayed."""

    content: str | list[SpokenPart] | None = None
    refusal: str | None = None
    tool_calls: list[CallPart] | None = None


class ToolTurn(Struct, tag_field="role", tag="tool"):
    """What a tool has answered."""

    tool_call_id: str
    content: str | list[TextPart]


Turn = SystemTurn | DeveloperTurn | UserTurn | AssistantTurn | ToolTurn


# -- as the daemon knows them ------------------------------------------------------------------


class Conversation(NamedTuple):
    """`media` by the ids that the blocks of `messages` name."""

    messages: list[Message]
    media: dict[str, MediaSource]


def read_turns(turns: list[Turn]) -> Conversation:
    """Raises FieldFault naming what cannot be carried."""
    if not turns:
        raise FieldFault("messages", "must hold at least one message")
    conversation = Conversation([], {})
    weight = 0
    for index, turn in enumerate(turns):
        path = f"messages[{index}]"
        if isinstance(turn, AssistantTurn):
            weight += sum(len(call.function.arguments) for call in turn.tool_calls or ())
            if weight > MAX_JSON_BYTES:
                raise FieldFault(path, f"tool calls are over the cap of {MAX_JSON_BYTES} bytes")
        conversation.messages.append(_read_turn(turn, path, conversation.media))
    return conversation


def _read_turn(turn: Turn, path: str, media: dict[str, MediaSource]) -> Message:
    content = f"{path}.content"
    match turn:
        case SystemTurn() | DeveloperTurn():
            return Message("system", _texts(turn.content, content))
        case UserTurn():
            return Message("user", _user_blocks(turn.content, content, media))
        case AssistantTurn():
            return Message("assistant", _assistant_blocks(turn, path))
        case ToolTurn():
            # a tool may well have nothing to say
            text = turn.content
            blocks: list[Text | Image | Audio | ToolUse | ToolResult] = (
                [Text(text)] if isinstance(text, str) else [Text(part.text) for part in text]
            )
            return Message("user", [ToolResult(turn.tool_call_id, list(blocks))])


def _texts(content: str | list[TextPart], path: str) -> list[Block]:
    texts = [content] if isinstance(content, str) else [part.text for part in content]
    blocks: list[Block] = [Text(text) for text in texts if text]
    return _not_empty(blocks, path)


def _user_blocks(
    content: str | list[UserPart], path: str, media: dict[str, MediaSource]
) -> list[Block]:
    if isinstance(content, str):
        return _texts(content, path)
    blocks: list[Block] = []
    for index, part in enumerate(content):
        here = f"{path}[{index}]"
        match part:
            case TextPart(text):
                if text:
                    blocks.append(Text(text))
            case ImagePart(image):
                url = image if isinstance(image, str) else image.url
                source = MediaSource("image", _image_data(url, here), here)
                blocks.append(Image(_keep(source, media)))
            case AudioPart(audio):
                source = MediaSource("audio", audio.data, f"{here}.input_audio.data")
                blocks.append(Audio(_keep(source, media)))
    return _not_empty(blocks, path)


def _assistant_blocks(turn: AssistantTurn, path: str) -> list[Block]:
    texts: list[str | None]
    if isinstance(turn.content, list):
        texts = [part.text if isinstance(part, TextPart) else part.refusal for part in turn.content]
    else:
        texts = [turn.content]
    blocks: list[Block] = [Text(text) for text in [*texts, turn.refusal] if text]
    for index, call in enumerate(turn.tool_calls or ()):
        blocks.append(_tool_use(call, f"{path}.tool_calls[{index}]"))
    return _not_empty(blocks, f"{path}.content")


def _tool_use(call: CallPart, path: str) -> ToolUse:
    here = f"{path}.function.arguments"
    text = call.function.arguments
    arguments = decode_object(msgspec.Raw(text.encode()), here) if text.strip() else {}
    if not call.function.name:
        raise FieldFault(f"{path}.function.name", "must not be empty")
    try:
        return ToolUse(call.id, call.function.name, arguments)
    except ValueError as error:
        raise FieldFault(here, str(error)) from None


def _image_data(url: str, path: str) -> str:
    """The base64 of a `data:` URL: this daemon fetches nothing for a caller."""
    here = f"{path}.image_url.url"
    head, comma, data = url.partition(",")
    if not head.lower().startswith("data:"):
        raise FieldFault(
            here, "must be a data: URL (data:image/png;base64,…); the daemon fetches no image"
        )
    if not comma or not head.lower().endswith(";base64"):
        raise FieldFault(here, "must hold base64 (data:image/png;base64,…)")
    return data


def _keep(source: MediaSource, media: dict[str, MediaSource]) -> str:
    if len(media) >= MAX_ATTACHMENTS:
        raise FieldFault(source.path, f"there are more than {MAX_ATTACHMENTS} attachments")
    identity = f"{source.kind}-{len(media)}"
    media[identity] = source
    return identity


def _not_empty(blocks: list[Block], path: str) -> list[Block]:
    if not blocks:
        raise FieldFault(path, "must not be empty")
    return blocks
