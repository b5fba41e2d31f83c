"""Requests to bodies: what is asked arrives, and what cannot be asked is refused by name."""

import json

import pytest

from inferd_daemon.backends.base import Capabilities, GenerateRequest, Media, Sampling
from inferd_daemon.backends.chat_completions import DIALECTS, build_body, check_supported
from inferd_daemon.config import UpstreamKind
from inferd_daemon.errors import CallerFault
from inferd_proto import (
    Audio,
    AudioAttachment,
    Block,
    ErrorCode,
    Image,
    ImageAttachment,
    JsonObject,
    Message,
    Text,
    Tool,
    ToolResult,
    ToolUse,
    Video,
    VideoAttachment,
)

HI = [Message("user", [Text("hi")])]
WEATHER = Tool("weather", {"type": "object"}, "Tells the weather.")
TIME = Tool("time", {"type": "object"})
PARTS: dict[str, JsonObject] = {
    "i": {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    "a": {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
}


def body(
    request: GenerateRequest, upstream: UpstreamKind = "llama_server", model: str | None = None
) -> JsonObject:
    built: JsonObject = json.loads(build_body(request, DIALECTS[upstream], model, PARTS))
    return built


def messages(*given: Message) -> object:
    return body(GenerateRequest(list(given)))["messages"]


MESSAGES: dict[str, tuple[list[Message], list[object]]] = {
    "text": (HI, [{"role": "user", "content": "hi"}]),
    "system": (
        [Message("system", [Text("be brief")]), *HI],
        [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
    ),
    "several texts": (
        [Message("user", [Text("one"), Text("two")])],
        [{"role": "user", "content": "one\ntwo"}],
    ),
    "assistant": (
        [*HI, Message("assistant", [Text("hello")]), *HI],
        [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "hello"},
            {"role": "user", "content": "hi"},
        ],
    ),
    "replayed calls and their results": (
        [
            Message(
                "assistant", [ToolUse("c1", "weather", {"city": "Ulm"}), ToolUse("c2", "t", {})]
            ),
            Message("user", [ToolResult("c2", [Text("noon")]), ToolResult("c1", [Text("rain")])]),
        ],
        [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city":"Ulm"}'},
                    },
                    {"id": "c2", "type": "function", "function": {"name": "t", "arguments": "{}"}},
                ],
            },
            {"role": "tool", "tool_call_id": "c2", "content": "noon"},
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        ],
    ),
    "text beside a call": (
        [Message("assistant", [Text("Let me see."), ToolUse("c1", "t", {})])],
        [
            {
                "role": "assistant",
                "content": "Let me see.",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "t", "arguments": "{}"}}
                ],
            }
        ],
    ),
    "results stand before what the user says": (
        [Message("user", [Text("and?"), ToolResult("c1", [Text("a"), Text("b")])])],
        [
            {"role": "tool", "tool_call_id": "c1", "content": "a\nb"},
            {"role": "user", "content": "and?"},
        ],
    ),
    "empty result": (
        [Message("user", [ToolResult("c1", [])])],
        [{"role": "tool", "tool_call_id": "c1", "content": ""}],
    ),
    "media in their place": (
        [Message("user", [Text("see"), Image("i"), Audio("a"), Text("?")])],
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "see"},
                    PARTS["i"],
                    PARTS["a"],
                    {"type": "text", "text": "?"},
                ],
            }
        ],
    ),
}


@pytest.mark.parametrize(("given", "built"), MESSAGES.values(), ids=MESSAGES)
def test_messages(given: list[Message], built: list[object]) -> None:
    assert messages(*given) == built


@pytest.mark.parametrize(
    ("role", "block", "code", "path"),
    [
        ("system", Image("i"), ErrorCode.INVALID_REQUEST, "messages[0].content[0]"),
        ("assistant", Image("i"), ErrorCode.ATTACHMENT_UNSUPPORTED, "messages[0].content[0]"),
        ("user", Video("v"), ErrorCode.ATTACHMENT_UNSUPPORTED, "messages[0].content[0]"),
        ("user", Image("gone"), ErrorCode.ATTACHMENT_UNSUPPORTED, "messages[0].content[0]"),
        ("user", ToolUse("c", "f", {}), ErrorCode.INVALID_REQUEST, "messages[0].content[0]"),
        (
            "user",
            ToolResult("c", [Text("a"), Image("i")]),
            ErrorCode.INVALID_REQUEST,
            "messages[0].content[0].content[1]",
        ),
    ],
)
def test_misplaced_blocks_are_named(role: str, block: Block, code: ErrorCode, path: str) -> None:
    with pytest.raises(CallerFault) as caught:
        messages(Message(role, [block]))  # type: ignore[arg-type]
    assert caught.value.code == code
    assert f"`{path}`" in caught.value.message


@pytest.mark.parametrize(
    ("role", "block", "kind"),
    [
        ("user", ToolUse("c", "f", {}), "tool_use"),
        ("assistant", ToolResult("c", []), "tool_result"),
        ("assistant", Image("i"), "image"),
    ],
)
def test_misplaced_blocks_are_called_as_the_wire_calls_them(
    role: str, block: Block, kind: str
) -> None:
    with pytest.raises(CallerFault, match=rf"takes no {kind} here"):
        messages(Message(role, [block]))  # type: ignore[arg-type]


def test_it_always_streams_and_asks_for_usage() -> None:
    built = body(GenerateRequest(HI), "generic")
    assert built == {
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert body(GenerateRequest(HI), model="m")["model"] == "m"


SAMPLING = Sampling(
    temperature=0.0, top_p=0.5, top_k=3, min_p=0.1, seed=7, stop=["END"], max_tokens=9
)


@pytest.mark.parametrize(
    ("upstream", "fields"),
    [
        (
            "llama_server",
            {
                "temperature": 0.0,
                "top_p": 0.5,
                "top_k": 3,
                "min_p": 0.1,
                "seed": 7,
                "stop": ["END"],
                "max_tokens": 9,
                "verbose": True,
                "response_fields": ["stop_type", "stopping_word"],
                "return_progress": True,
            },
        ),
        (
            "openai",
            {
                "temperature": 0.0,
                "top_p": 0.5,
                "seed": 7,
                "stop": ["END"],
                "max_completion_tokens": 9,
            },
        ),
        (
            "vllm",
            {
                "temperature": 0.0,
                "top_p": 0.5,
                "top_k": 3,
                "min_p": 0.1,
                "seed": 7,
                "stop": ["END"],
                "max_tokens": 9,
            },
        ),
    ],
)
def test_sampling(upstream: UpstreamKind, fields: JsonObject) -> None:
    built = body(GenerateRequest(HI, SAMPLING), upstream)
    for name in ("messages", "stream", "stream_options"):
        del built[name]
    assert built == fields


@pytest.mark.parametrize("choice", ["auto", "required", "none"])
def test_tools_and_their_choice(choice: str) -> None:
    built = body(
        GenerateRequest(HI, tools=[WEATHER, TIME], tool_choice=choice)  # type: ignore[arg-type]
    )
    assert built["tool_choice"] == choice
    assert built["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "Tells the weather.",
                "parameters": {"type": "object"},
            },
        },
        {"type": "function", "function": {"name": "time", "parameters": {"type": "object"}}},
    ]


def test_response_schema() -> None:
    built = body(GenerateRequest(HI, response_schema={"type": "object"}))
    assert built["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": {"type": "object"}},
    }


@pytest.mark.parametrize(("upstream", "field"), [("llama_server", "grammar"), ("sglang", "ebnf")])
def test_grammar(upstream: UpstreamKind, field: str) -> None:
    assert body(GenerateRequest(HI, grammar='root ::= "a"'), upstream)[field] == 'root ::= "a"'


def test_openrouter_may_choose_only_who_honours_constraints() -> None:
    required = {"require_parameters": True}
    assert body(GenerateRequest(HI, tools=[TIME]), "openrouter")["provider"] == required
    assert "provider" not in body(GenerateRequest(HI), "openrouter")


@pytest.mark.parametrize(
    ("upstream", "thinking", "fields"),
    [
        ("llama_server", True, {"chat_template_kwargs": {"enable_thinking": True}}),
        ("llama_server", False, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("llama_server", None, {}),
        ("openrouter", True, {"reasoning": {"enabled": True}}),
        ("ollama", False, {"reasoning_effort": "none"}),
        ("ollama", True, {}),
        ("generic", True, {}),
    ],
)
def test_thinking(upstream: UpstreamKind, thinking: bool | None, fields: JsonObject) -> None:
    plain = body(GenerateRequest(HI), upstream)
    assert body(GenerateRequest(HI, thinking=thinking), upstream) == plain | fields


IMAGE = Media(ImageAttachment("i", 1, 1), b"abc")
AUDIO = Media(AudioAttachment("a", 16_000), b"abcd")
VIDEO = Media(VideoAttachment("v"), b"")
ALL = Capabilities(
    tools=True, tool_choice=True, response_format=True, grammar=True, vision=True, audio=True
)


@pytest.mark.parametrize(
    ("request_", "can", "words"),
    [
        (GenerateRequest(HI, tools=[TIME]), Capabilities(), "`tools`"),
        (
            GenerateRequest(HI, tools=[TIME], tool_choice="required"),
            Capabilities(tools=True),
            "'required'",
        ),
        (GenerateRequest(HI, tools=[TIME], tool_choice="none"), Capabilities(tools=True), "'none'"),
        (GenerateRequest(HI, response_schema={}), Capabilities(), "`response_format`"),
        (GenerateRequest(HI, grammar="g"), Capabilities(), "`grammar`"),
        (GenerateRequest(HI, grammar="g", tools=[TIME]), ALL, "excludes"),
        (GenerateRequest(HI, media={"i": IMAGE}), Capabilities(), "no image"),
        (GenerateRequest(HI, media={"a": AUDIO}), Capabilities(), "no audio"),
        (GenerateRequest(HI, media={"v": VIDEO}), ALL, "no video"),
        (
            GenerateRequest(HI, media={"a": AUDIO}),
            Capabilities(audio=True, audio_sample_rate=24_000),
            "16000 Hz, this backend takes 24000 Hz",
        ),
    ],
)
def test_what_a_backend_cannot_do_is_refused(
    request_: GenerateRequest, can: Capabilities, words: str
) -> None:
    with pytest.raises(CallerFault) as caught:
        check_supported(request_, can)
    assert words in caught.value.message
    unsupported = request_.media and "Hz" not in words
    expected = ErrorCode.ATTACHMENT_UNSUPPORTED if unsupported else ErrorCode.INVALID_REQUEST
    assert caught.value.code == expected


@pytest.mark.parametrize(
    ("request_", "can"),
    [
        (GenerateRequest(HI, tools=[TIME], tool_choice="auto"), Capabilities(tools=True)),
        (GenerateRequest(HI, tools=[TIME], tool_choice="required"), ALL),
        (GenerateRequest(HI, media={"i": IMAGE, "a": AUDIO}), ALL),
        (
            GenerateRequest(HI, media={"a": AUDIO}),
            Capabilities(audio=True, audio_sample_rate=16_000),
        ),
    ],
)
def test_what_it_can_do_passes(request_: GenerateRequest, can: Capabilities) -> None:
    check_supported(request_, can)
