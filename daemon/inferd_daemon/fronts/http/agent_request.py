"""The body of a chat completion for a CLI agent: smaller limits, no tools (leases.md section 5).

Pure. What is refused here has started nothing.
"""

from typing import NamedTuple

import msgspec
from msgspec import Raw, Struct

from ...backends.base import Capabilities, GenerateRequest
from ...engines.agents.prompt_limits import (
    MAX_MESSAGES,
    TOO_LONG,
    TOO_MANY,
    BeyondLimits,
    require_within_limits,
)
from ...errors import CallerFault
from ...routing.requirements import missing
from .openai.chat_request import parse_chat
from .openai.json_body import FieldFault

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
        raise FieldFault("messages", TOO_LONG)
    _refuse_tools_and_crowds(body, name)
    asked = parse_chat(body)
    try:
        require_within_limits(asked.generate.messages)
    except BeyondLimits as error:
        raise FieldFault(error.field, error.why) from None
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
        raise FieldFault("messages", TOO_MANY)
