"""What may be asked of an agent over HTTP, and what is refused by its field."""

import json

import pytest

from inferd_daemon.backends.base import Capabilities
from inferd_daemon.engines.agents.prompt_limits import MAX_MESSAGES, MAX_PROMPT_BYTES
from inferd_daemon.errors import CallerFault
from inferd_daemon.fronts.http.agent_request import AgentAsked, read_agent_request
from inferd_proto import Text

CAN = Capabilities(thinking=True)
HI = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f"}}


def read(*messages: object, **fields: object) -> AgentAsked:
    body = {"messages": list(messages), **fields}
    return read_agent_request(json.dumps(body).encode(), "claude/opus", CAN)


def test_every_role_is_taken() -> None:
    asked = read(
        {"role": "system", "content": "a"},
        {"role": "developer", "content": [{"type": "text", "text": "b"}]},
        HI,
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", **TOOL}]},
        {"role": "tool", "tool_call_id": "1", "content": "c"},
        {"role": "assistant", "content": "d"},
        stream=True,
        stream_options={"include_usage": True},
        max_tokens=7,
        tool_choice="none",
        tools=[],
        temperature=0.5,
    )
    roles = [message.role for message in asked.generate.messages]
    assert roles == ["system", "system", "user", "assistant", "user", "assistant"]
    assert (asked.stream, asked.include_usage) == (True, True)
    assert asked.generate.sampling.max_tokens == 7


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": "none"},
        {"tool_choice": "auto"},
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"functions": [{"name": "f"}]},
        {"function_call": "auto"},
    ],
)
def test_tools_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(CallerFault, match="takes no tools"):
        read(HI, **fields)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "`messages`"),
        ([{"role": "user", "content": ""}], "`messages\\[0\\].content`"),
        ([HI, {"role": "user", "content": []}], "`messages\\[1\\].content`"),
        ([HI, {"role": "tool", "tool_call_id": "1", "content": ""}], "`messages\\[1\\].content`"),
        ([HI, {"role": "tool", "content": "no call"}], "messages\\[1\\]"),
        ([{"role": "wizard", "content": "hi"}], "wizard"),
        ([{"content": "hi"}], "role"),
        ([{"role": "user"}], "content"),
        (["hi"], "messages\\[0\\]"),
    ],
)
def test_what_is_no_conversation(messages: list[object], said: str) -> None:
    with pytest.raises(CallerFault, match=said):
        read(*messages)


def test_the_limits_are_exact() -> None:
    assert len(read(*[HI] * MAX_MESSAGES).generate.messages) == MAX_MESSAGES
    with pytest.raises(CallerFault, match="`messages`: takes at most 128"):
        read(*[HI] * (MAX_MESSAGES + 1))
    half = {"role": "user", "content": "é" * (MAX_PROMPT_BYTES // 4)}
    read(half, half)
    with pytest.raises(CallerFault, match="more than 262144 bytes"):
        read(half, half, {"role": "system", "content": "x"})


def test_the_largest_prompt_fits_however_it_is_written() -> None:
    escaped = "\\u0041" * MAX_PROMPT_BYTES
    body = f'{{"messages":[{{"role":"user","content":"{escaped}"}}]}}'.encode()
    asked = read_agent_request(body, "a", CAN)
    assert asked.generate.messages[0].content == [Text("A" * MAX_PROMPT_BYTES)]
    with pytest.raises(CallerFault, match="more than 262144 bytes"):
        read_agent_request(body + b" " * (4 << 20), "a", CAN)


def test_media_and_schemas_are_beyond_it() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    with pytest.raises(CallerFault):
        read(
            HI,
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
        )
    shown = read({"role": "user", "content": [{"type": "text", "text": "see"}]})
    assert shown.generate.messages[0].content == [Text("see")]
    with pytest.raises(CallerFault):
        read({"role": "user", "content": [image]})


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 50_000])
def test_what_is_no_json_object(body: bytes) -> None:
    with pytest.raises(CallerFault):
        read_agent_request(body, "a", CAN)
