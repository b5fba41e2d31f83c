"""Our messages as Chat Completions messages.

Pure. Content that has no place there is refused with its path, never left out.
"""

from collections.abc import Mapping

import msgspec

from inferd_proto import (
    Audio,
    Block,
    ErrorCode,
    Image,
    JsonObject,
    Message,
    Text,
    ToolResult,
    ToolUse,
)

from ...errors import CallerFault

Parts = Mapping[str, JsonObject]
"""Content parts of media by attachment id, as `media.py` encodes them."""

_encode = msgspec.json.Encoder().encode


def build_messages(messages: list[Message], parts: Parts) -> list[JsonObject]:
    """Raises CallerFault naming the block that cannot be carried."""
    built: list[JsonObject] = []
    for index, message in enumerate(messages):
        path = f"messages[{index}].content"
        match message.role:
            case "system":
                built.append({"role": "system", "content": _join(message.content, path)})
            case "assistant":
                built.append(_assistant(message.content, path))
            case "user":
                built += _user(message.content, path, parts)
    return built


def _user(blocks: list[Block], path: str, parts: Parts) -> list[JsonObject]:
    """Results stand first: they must follow the calls of the assistant's message directly."""
    built: list[JsonObject] = []
    spoken: list[JsonObject] = []
    for index, block in enumerate(blocks):
        here = f"{path}[{index}]"
        match block:
            case ToolResult():
                text = _join(block.content, f"{here}.content")
                built.append({"role": "tool", "tool_call_id": block.tool_call_id, "content": text})
            case Text():
                spoken.append({"type": "text", "text": block.text})
            case Image() | Audio() if block.attachment_id in parts:
                spoken.append(parts[block.attachment_id])
            case _:
                raise _misplaced(block, here)
    if spoken:
        built.append({"role": "user", "content": _flatten(spoken)})
    return built


def _assistant(blocks: list[Block], path: str) -> JsonObject:
    texts: list[str] = []
    calls: list[JsonObject] = []
    for index, block in enumerate(blocks):
        match block:
            case Text():
                texts.append(block.text)
            case ToolUse():
                arguments = _encode(block.input).decode()
                function = {"name": block.name, "arguments": arguments}
                calls.append({"id": block.tool_call_id, "type": "function", "function": function})
            case _:
                raise _misplaced(block, f"{path}[{index}]")
    message: JsonObject = {"role": "assistant", "content": "\n".join(texts) if texts else None}
    if calls:
        message["tool_calls"] = calls
    return message


def _join(blocks: list[Block], path: str) -> str:
    """Blocks that can only be text, as one."""
    texts: list[str] = []
    for index, block in enumerate(blocks):
        if not isinstance(block, Text):
            raise CallerFault(f"`{path}[{index}]`: this backend takes only text here")
        texts.append(block.text)
    return "\n".join(texts)


def _flatten(parts: list[JsonObject]) -> str | list[JsonObject]:
    """Text alone goes as a string: not every server, nor every template, takes parts."""
    if all(part["type"] == "text" for part in parts):
        return "\n".join(str(part["text"]) for part in parts)
    return parts


def _misplaced(block: Block, path: str) -> CallerFault:
    kind = block.__struct_config__.tag
    if isinstance(block, ToolUse | ToolResult):
        return CallerFault(f"`{path}`: this backend takes no {kind} here")
    return CallerFault(
        f"`{path}`: this backend takes no {kind} here", ErrorCode.ATTACHMENT_UNSUPPORTED
    )
