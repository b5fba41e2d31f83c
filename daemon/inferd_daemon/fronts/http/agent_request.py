"""The body of a chat completion for a CLI agent: smaller limits, no tools (leases.md section 5).

Pure. What is refused here has started nothing.
"""

from typing import NamedTuple

import msgspec
from msgspec import Raw, Struct

from inferd_proto import Message, Text, ToolResult, ToolUse

from ...backends.base import Capabilities, GenerateRequest
from ...errors import CallerFault
from ...routing.requirements import missing
from .openai.chat_request import ChatRequest, parse_chat
from .openai.json_body import FieldFault

MAX_MESSAGES = 128
MAX_PROMPT_BYTES = 256 * 1024
"""UTF-8, of all messages together."""
MAX_BODY_BYTES = 4 * 1024 * 1024
"""A prompt as JSON is six times as long at most, and the rest of a request is short."""
_NOTHING = (b"", b"null", b"[]")
_NO_CHOICE = (b"", b"null", b'"none"')


class _Refused(Struct):
    """What is looked at before anything else: `parse_chat` passes over tools that may not be
    called.
    """

    messages: list[Raw] | None = None
    tools: Raw = Raw(b"")
    functions: Raw = Raw(b"")
    tool_choice: Raw = Raw(b"")
    function_call: Raw = Raw(b"")


class AgentAsked(NamedTuple):
    """One completion by an agent; `include_usage` is for streams."""

    generate: GenerateRequest
    stream: bool
    include_usage: bool


def read_agent_request(body: bytes, name: str, can: Capabilities) -> AgentAsked:
    """What is asked of the agent `name`. Raises FieldFault and other CallerFaults."""
    if len(body) > MAX_BODY_BYTES:
        raise FieldFault("messages", f"hold more than {MAX_PROMPT_BYTES} bytes of text")
    _refuse_tools_and_crowds(body, name)
    asked = parse_chat(body)
    _require_text(asked)
    lacking = missing(asked.generate, can)
    if lacking is not None:
        raise CallerFault(f"{name} {lacking.message}", lacking.code)
    return AgentAsked(asked.generate, asked.stream, asked.include_usage)


def _refuse_tools_and_crowds(body: bytes, name: str) -> None:
    try:
        seen = msgspec.json.decode(body, type=_Refused)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return  # the parser says what is wrong
    for field, raw, harmless in (
        ("tools", seen.tools, _NOTHING),
        ("functions", seen.functions, _NOTHING),
        ("tool_choice", seen.tool_choice, _NO_CHOICE),
        ("function_call", seen.function_call, _NO_CHOICE),
    ):
        if bytes(raw).translate(None, b" \t\r\n") not in harmless:
            raise FieldFault(field, f"{name} is a CLI agent's endpoint: it takes no tools")
    if seen.messages is not None and len(seen.messages) > MAX_MESSAGES:
        raise FieldFault("messages", f"takes at most {MAX_MESSAGES}")


def _require_text(asked: ChatRequest) -> None:
    """Raises FieldFault for more text than there may be, and for messages without any."""
    size = 0
    for index, message in enumerate(asked.generate.messages):
        added = _size(message)
        if not added:
            raise FieldFault(f"messages[{index}].content", "must not be empty")
        size += added
        if size > MAX_PROMPT_BYTES:
            raise FieldFault("messages", f"hold more than {MAX_PROMPT_BYTES} bytes of text")


def _size(message: Message) -> int:
    size = 0
    for block in message.content:
        match block:
            case Text(text):
                size += _bytes_of(text)
            case ToolResult(content=content):
                size += sum(_bytes_of(part.text) for part in content if isinstance(part, Text))
            case ToolUse():
                size += len(block.name) + len(msgspec.json.encode(block.input))
            case _:
                size += 1  # media, which are refused by their kind
    return size


def _bytes_of(text: str) -> int:
    return len(text.encode(errors="replace"))
