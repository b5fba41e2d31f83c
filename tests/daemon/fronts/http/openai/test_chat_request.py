"""Chat bodies as generations: what each field becomes, and what is refused by its name."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.backends.base import GenerateRequest, Sampling
from inferd_daemon.fronts.http.openai.chat_request import ChatRequest, parse_chat
from inferd_daemon.fronts.http.openai.json_body import MAX_TEXTS, FieldFault
from inferd_proto import Audio, Image, JsonObject, Message, Text, Tool, ToolResult, ToolUse

USER = {"role": "user", "content": "hi"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "of a place",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}
PNG = "data:image/png;base64,AAAA"


def parse(*messages: object, **fields: object) -> ChatRequest:
    """Of a body with these messages, by default one that says "hi"."""
    return parse_chat(json.dumps({"messages": messages or [USER], **fields}).encode())


def generation(*messages: object, **fields: object) -> GenerateRequest:
    """The generation alone."""
    return parse(*messages, **fields).generate


def text_part(text: str) -> dict[str, str]:
    """A content part."""
    return {"type": "text", "text": text}


def call(identity: str, name: str, arguments: str) -> dict[str, object]:
    """A tool call as assistants replay it."""
    return {
        "id": identity,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def fault(body: bytes | dict[str, Any]) -> FieldFault:
    """What the body is refused with."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(FieldFault) as caught:
        parse_chat(raw)
    return caught.value


# -- messages --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        (USER, Message("user", [Text("hi")])),
        ({"role": "system", "content": "be brief"}, Message("system", [Text("be brief")])),
        ({"role": "developer", "content": "be brief"}, Message("system", [Text("be brief")])),
        (
            {"role": "system", "content": [{"type": "text", "text": "a"}]},
            Message("system", [Text("a")]),
        ),
        (
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
            Message("user", [Text("a"), Text("b")]),
        ),
        ({"role": "user", "content": "hi", "name": "ann"}, Message("user", [Text("hi")])),
        ({"role": "assistant", "content": "yes"}, Message("assistant", [Text("yes")])),
        (
            {"role": "assistant", "content": None, "refusal": "no"},
            Message("assistant", [Text("no")]),
        ),
        (
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            Message("assistant", [Text("no")]),
        ),
        (
            {"role": "assistant", "content": "yes", "reasoning_content": "hm"},
            Message("assistant", [Text("yes")]),
        ),
        (
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"place":"Rome"}'},
                    },
                    {
                        "id": "c2",
                        "type": "function",
                        "function": {"name": "clock", "arguments": ""},
                    },
                ],
            },
            Message(
                "assistant",
                [ToolUse("c1", "weather", {"place": "Rome"}), ToolUse("c2", "clock", {})],
            ),
        ),
        (
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
            Message("user", [ToolResult("c1", [Text("sunny")])]),
        ),
        (
            {"role": "tool", "tool_call_id": "c1", "content": ""},
            Message("user", [ToolResult("c1", [Text("")])]),
        ),
        (
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "sunny"}]},
            Message("user", [ToolResult("c1", [Text("sunny")])]),
        ),
    ],
)
def test_turn(turn: dict[str, object], message: Message) -> None:
    """Every role, in each of its forms."""
    assert generation(turn).messages == [message]


def test_media_are_named_by_blocks_and_stay_encoded() -> None:
    """Until somebody decodes them in a thread."""
    asked = parse(
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what is it?"},
                {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
                {"type": "image_url", "image_url": "data:image/webp;base64,BBBB"},
                {"type": "input_audio", "input_audio": {"data": "CCCC", "format": "mp3"}},
            ],
        }
    )
    first, second, third = asked.media
    assert asked.generate.messages[0].content == [
        Text("what is it?"),
        Image(first),
        Image(second),
        Audio(third),
    ]
    assert [(one.kind, one.data) for one in asked.media.values()] == [
        ("image", "AAAA"),
        ("image", "BBBB"),
        ("audio", "CCCC"),
    ]


# -- fields ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "sampling"),
    [
        ({}, Sampling()),
        ({"temperature": 0}, Sampling(temperature=0)),
        ({"temperature": None, "stop": None, "seed": None}, Sampling()),
        ({"top_p": 0.5, "top_k": 3, "min_p": 0.1}, Sampling(top_p=0.5, top_k=3, min_p=0.1)),
        ({"max_tokens": 5}, Sampling(max_tokens=5)),
        ({"max_completion_tokens": 6}, Sampling(max_tokens=6)),
        ({"max_tokens": 5, "max_completion_tokens": 6}, Sampling(max_tokens=6)),
        ({"stop": "END"}, Sampling(stop=["END"])),
        ({"stop": ["a", "b"]}, Sampling(stop=["a", "b"])),
        ({"stop": []}, Sampling()),
        ({"seed": 7}, Sampling(seed=7)),
        ({"seed": -1}, Sampling(seed=-1)),
        ({"seed": 2**40 + 5}, Sampling(seed=5)),
    ],
)
def test_sampling(fields: dict[str, object], sampling: Sampling) -> None:
    """Each field, missing, null and given."""
    assert generation(**fields).sampling == sampling


def test_who_is_asked_and_how() -> None:
    """The route, the stream and its usage."""
    assert parse().model is None
    assert parse(model="").model is None
    asked = parse(model="chat", stream=True, stream_options={"include_usage": True})
    assert (asked.model, asked.stream, asked.include_usage) == ("chat", True, True)
    asked = parse(stream=None, stream_options=None)
    assert (asked.stream, asked.include_usage) == (False, False)


@pytest.mark.parametrize(
    ("fields", "thinking"),
    [
        ({}, None),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, False),
        ({"reasoning_effort": "low"}, True),
        ({"reasoning_effort": "high"}, True),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "none"}, True),
        ({"chat_template_kwargs": {"other": 1}}, None),
    ],
)
def test_thinking(fields: dict[str, object], thinking: bool | None) -> None:
    """Efforts become a switch: local models have no more."""
    assert generation(**fields).thinking is thinking


def test_tools() -> None:
    """With a schema, and without one."""
    tools = generation(tools=[WEATHER, CLOCK], parallel_tool_calls=False)
    schema: JsonObject = {"type": "object", "properties": {"place": {"type": "string"}}}
    assert tools.tools == [
        Tool("weather", schema, "of a place"),
        Tool("clock", {"type": "object", "properties": {}}),
    ]
    assert tools.tool_choice is None
    assert tools.parallel_tool_calls is False


@pytest.mark.parametrize(
    ("choice", "names", "ours"),
    [
        ("auto", ["weather", "clock"], "auto"),
        ("required", ["weather", "clock"], "required"),
        ("none", [], None),
        ({"type": "function", "function": {"name": "clock"}}, ["clock"], "required"),
    ],
)
def test_tool_choice(choice: object, names: list[str], ours: str | None) -> None:
    """The one that is named is the only one that there is; of none, the model sees none."""
    generate = generation(tools=[WEATHER, CLOCK], tool_choice=choice)
    assert [tool.name for tool in generate.tools] == names
    assert generate.tool_choice == ours


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_a_choice_that_asks_for_nothing_needs_no_tools(choice: str) -> None:
    """Frameworks send it whatever else they send."""
    assert generation(tool_choice=choice, tools=[]).tool_choice is None


@pytest.mark.parametrize(
    ("wanted", "schema"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "object"}),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}},
            {"type": "array"},
        ),
    ],
)
def test_response_format(wanted: object, schema: object) -> None:
    """Any object is a schema too."""
    assert generation(response_format=wanted).response_schema == schema


def test_wishes_without_effect_are_ignored() -> None:
    """As OpenAI's servers do with what they do not know."""
    plain = generation()
    wishes = {
        **{"user": "u", "store": True, "metadata": {"a": "b"}, "service_tier": "auto"},
        **{"n": 1, "logprobs": False, "top_logprobs": 0, "logit_bias": {}, "functions": []},
        **{"modalities": ["text"], "frequency_penalty": 0, "presence_penalty": 0.0},
        **{"parallel_tool_calls": True, "something_new": {"a": [1]}},
    }
    assert generation(**wishes) == plain


def test_penalties() -> None:
    """What is not nothing goes on."""
    generate = generation(frequency_penalty=0.5, presence_penalty=-2)
    assert (generate.frequency_penalty, generate.presence_penalty) == (0.5, -2)


# -- what is refused -------------------------------------------------------------------------


def with_fields(**fields: object) -> dict[str, object]:
    """A good body but for these."""
    return {"messages": [USER], **fields}


def with_turn(**turn: object) -> dict[str, object]:
    """A body with one turn."""
    return {"messages": [USER, turn]}


def with_part(**part: object) -> dict[str, object]:
    """A body with one content part."""
    return {"messages": [{"role": "user", "content": [part]}]}


REFUSED: list[tuple[bytes | dict[str, Any], str | None]] = [
    (b"", None),
    (b"no JSON", None),
    (b"[]", None),
    (b'"text"', None),
    (b'{"messages": [', None),
    (b'{"messages": [{"role": "user", "content": "\xff"}]}', None),
    (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, None),
    ({}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": ["hi"]}, "messages[0]"),
    (with_turn(content="hi"), "messages[1].role"),
    (with_turn(role="wizard", content="hi"), "messages[1].role"),
    (with_turn(role="function", name="f", content="hi"), "messages[1].role"),
    (with_turn(role="user"), "messages[1].content"),
    (with_turn(role="user", content=""), "messages[1].content"),
    (with_turn(role="user", content=[]), "messages[1].content"),
    (with_turn(role="user", content=None), "messages[1].content"),
    (with_turn(role="user", content=7), "messages[1].content"),
    (with_turn(role="system", content=""), "messages[1].content"),
    (with_turn(role="assistant"), "messages[1].content"),
    (with_turn(role="assistant", content=""), "messages[1].content"),
    (with_turn(role="tool", content="x"), "messages[1].tool_call_id"),
    (with_part(type="text"), "messages[0].content[0].text"),
    (with_part(type="text", text=""), "messages[0].content"),
    (with_part(type="file", file={}), "messages[0].content[0]"),
    (with_part(type="video_url", video_url={"url": "x"}), "messages[0].content[0]"),
    (
        with_part(type="image_url", image_url={"url": "https://example.com/x.png"}),
        "messages[0].content[0].image_url.url",
    ),
    (
        with_part(type="image_url", image_url={"url": "file:///etc/passwd"}),
        "messages[0].content[0].image_url.url",
    ),
    (
        with_part(type="image_url", image_url={"url": "data:image/png,plain"}),
        "messages[0].content[0].image_url.url",
    ),
    (with_part(type="input_audio", input_audio={}), "messages[0].content[0].input_audio.data"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": PNG}] * 33}]},
        "messages[0].content[32]",
    ),
    (
        with_turn(
            role="assistant",
            tool_calls=[
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
            ],
        ),
        "messages[1].tool_calls[0].function.arguments",
    ),
    (
        with_turn(
            role="assistant",
            tool_calls=[
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "[]"}}
            ],
        ),
        "messages[1].tool_calls[0].function.arguments",
    ),
    (
        with_turn(
            role="assistant",
            tool_calls=[
                {"id": "c", "type": "function", "function": {"name": "", "arguments": "{}"}}
            ],
        ),
        "messages[1].tool_calls[0].function.name",
    ),
    (with_fields(model=7), "model"),
    (with_fields(stream="yes"), "stream"),
    (with_fields(stream_options={"include_usage": 1}), "stream_options.include_usage"),
    (with_fields(temperature="hot"), "temperature"),
    (with_fields(temperature=-1), "temperature"),
    (with_fields(top_p=1.5), "top_p"),
    (with_fields(max_tokens=0), "max_tokens"),
    (with_fields(max_tokens=1.5), "max_tokens"),
    (with_fields(max_completion_tokens=-3), "max_completion_tokens"),
    (with_fields(stop=[""]), "stop"),
    (with_fields(stop=["x"] * 65), "stop"),
    (with_fields(stop=[7]), "stop[0]"),
    (with_fields(seed="x"), "seed"),
    (with_fields(n=2), "n"),
    (with_fields(n=0), "n"),
    (with_fields(logprobs=True), "logprobs"),
    (with_fields(top_logprobs=3), "logprobs"),
    (with_fields(logit_bias={"5": 1}), "logit_bias"),
    (with_fields(modalities=["text", "audio"]), "modalities"),
    (with_fields(functions=[{"name": "f"}]), "functions"),
    (with_fields(frequency_penalty=3), "frequency_penalty"),
    (with_fields(tools={}), "tools"),
    (with_fields(tools=[{"type": "custom", "custom": {}}]), "tools[0]"),
    (with_fields(tools=[{"type": "function", "function": {}}]), "tools[0].function.name"),
    (
        with_fields(tools=[{"type": "function", "function": {"name": "f", "parameters": []}}]),
        "tools[0].function.parameters",
    ),
    (with_fields(tools=[CLOCK, CLOCK]), "tools"),
    (with_fields(tool_choice="required"), "tool_choice"),
    (with_fields(tool_choice="sometimes"), "tool_choice"),
    (
        with_fields(tools=[CLOCK], tool_choice={"type": "function", "function": {"name": "x"}}),
        "tool_choice.function.name",
    ),
    (with_fields(response_format={"type": "yaml"}), "response_format"),
    (with_fields(response_format={"type": "json_schema"}), "response_format.json_schema"),
    (
        with_fields(response_format={"type": "json_schema", "json_schema": {"schema": 1}}),
        "response_format.json_schema.schema",
    ),
    (
        with_fields(tools=[CLOCK], tool_choice="required", response_format={"type": "json_object"}),
        "tool_choice",
    ),
]


@pytest.mark.parametrize(("body", "param"), REFUSED, ids=lambda value: str(value)[:60])
def test_refused_by_name(body: bytes | dict[str, Any], param: str | None) -> None:
    """The field that is at fault, and never what stood there."""
    refused = fault(body)
    assert refused.param == param
    assert "passwd" not in refused.message


def test_too_many_texts_are_not_decoded() -> None:
    """A letter takes sixty bytes: they are counted first."""
    body = b'{"messages":[],"x":[' + b'"a",' * (MAX_TEXTS + 1) + b'"a"]}'
    assert "texts" in fault(body).message


def test_quotes_within_a_text_are_no_texts() -> None:
    """A page of JSON in a prompt is one text."""
    parse({"role": "user", "content": '"' * (3 * MAX_TEXTS)})


def test_schemas_together_are_bounded() -> None:
    """Decoded they take thirty times what they take as bytes."""
    schema = {"type": "object", "description": "x" * (2 * 1024 * 1024)}
    tools = [
        {"type": "function", "function": {"name": f"f{index}", "parameters": schema}}
        for index in range(3)
    ]
    assert fault(with_fields(tools=tools)).param == "tools"


# -- properties ------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
names = st.sampled_from(
    ["messages", "tools", "tool_choice", "stop", "response_format", "model", "stream", "n", "seed"]
)


@given(st.dictionaries(names, values, max_size=4))
def test_any_object_is_parsed_or_refused(body: dict[str, object]) -> None:
    """Nothing else comes out, whatever goes in."""
    with contextlib.suppress(FieldFault):
        parse_chat(json.dumps(body).encode())


@given(st.binary(max_size=64))
def test_any_bytes_are_refused(body: bytes) -> None:
    """No bytes this short hold messages."""
    fault(body)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5))
def test_texts_arrive_as_they_were(texts: list[str]) -> None:
    """Whatever characters they hold (a lone surrogate is none)."""
    texts = [text.encode(errors="replace").decode() for text in texts]
    turns = [{"role": "user", "content": text} for text in texts]
    assert generation(*turns).messages == [Message("user", [Text(text)]) for text in texts]
