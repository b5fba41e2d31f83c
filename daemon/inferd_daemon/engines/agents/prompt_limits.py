"""How much one request may ask of an agent (leases.md section 5), whichever way it came.

Pure.
"""

from collections.abc import Sequence

import msgspec

from inferd_proto import Message, Text, ToolResult, ToolUse

from ...errors import CallerFault

MAX_MESSAGES = 128
MAX_PROMPT_BYTES = 256 * 1024
"""UTF-8, of all messages together."""
TOO_MANY = f"takes at most {MAX_MESSAGES}"
TOO_LONG = f"hold more than {MAX_PROMPT_BYTES} bytes of text"


class BeyondLimits(CallerFault):
    """`field` of the request is at fault; `why` follows its name."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"`{field}`: {why}")
        self.field = field
        self.why = why


def require_within_limits(messages: Sequence[Message]) -> None:
    """Raises BeyondLimits for too many, for more text than there may be, and for one without."""
    if len(messages) > MAX_MESSAGES:
        raise BeyondLimits("messages", TOO_MANY)
    size = 0
    for index, message in enumerate(messages):
        added = _size(message)
        if not added:
            raise BeyondLimits(f"messages[{index}].content", "must not be empty")
        size += added
        if size > MAX_PROMPT_BYTES:
            raise BeyondLimits("messages", TOO_LONG)


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
