"""Responses and Messages as they are passed on: what goes through, what is refused, what a route
adds."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from inferd_daemon.backends.base import RelayRequest
from inferd_daemon.config import RouteDefaults, RouteLimits
from inferd_daemon.fronts.http.openai.json_body import FieldFault
from inferd_daemon.fronts.http.openai.raw_request import (
    RawAsked,
    output_limit,
    parse_count,
    parse_messages,
    parse_responses,
    with_presets,
)
from inferd_daemon.routing.presets import NO_PRESETS, Presets

USER = {"role": "user", "content": "hi"}
Parser = Callable[[bytes], RawAsked]


def encode(**fields: object) -> bytes:
    """A body."""
    return json.dumps(fields).encode()


def fields_of(request: RelayRequest) -> dict[str, Any]:
    """What would be sent."""
    assert isinstance(request.body, dict)
    return {name: json.loads(bytes(raw)) for name, raw in request.body.items()}


def test_responses_go_through() -> None:
    """What the API defines, as it came; nothing else."""
    given = {
        **{"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]},
        **{"model": "m", "instructions": "be brief", "stream": True, "tools": [], "store": False},
    }
    asked = parse_responses(encode(**given, id_slot=3, n_predict=-1))
    assert (asked.model, asked.request.stream) == ("m", True)
    assert asked.request.path == "/v1/responses"
    assert fields_of(asked.request) == given


def test_messages_go_through() -> None:
    """And the count of their tokens, which never streams."""
    given = {"messages": [USER], "max_tokens": 5, "system": "be brief", "stream": True}
    asked = parse_messages(encode(**given, cache_prompt=False))
    assert (asked.model, asked.request.path, asked.request.stream) == (None, "/v1/messages", True)
    assert fields_of(asked.request) == given
    counted = parse_count(encode(**given))
    assert counted.request.path == "/v1/messages/count_tokens"
    assert not counted.request.stream


def test_null_says_nothing() -> None:
    """Runtimes would refuse it, or take it for a value."""
    nothing = {"tools": None, "temperature": None, "reasoning": None, "thinking": None}
    asked = parse_responses(encode(input="hi", text={"format": None}, **nothing))
    assert fields_of(asked.request) == {"input": "hi", "text": {"format": None}}
    assert not asked.says_thinking
    told = parse_messages(encode(messages=[USER], system=None, output_config=None, **nothing))
    assert fields_of(told.request) == {"messages": [USER]}
    assert not told.says_thinking


SCHEMA = {"type": "object", "properties": {"a": {"enum": [None, 1.5, "é"]}}}


@pytest.mark.parametrize(
    ("given", "chat"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True},
            {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": SCHEMA, "strict": True},
            },
        ),
    ],
)
def test_a_format_is_also_said_as_chat_completions_do(given: object, chat: object) -> None:
    """For llama-server, which knows no other; what came goes through as well."""
    asked = parse_responses(encode(input="hi", text={"format": given}))
    said = asked.request.response_format
    assert (None if said is None else json.loads(bytes(said))) == chat
    assert fields_of(asked.request)["text"] == {"format": given}
    limited = with_presets(asked, Presets(RouteDefaults(), RouteLimits(max_tokens=7)))
    assert limited.response_format == said
    assert output_limit(limited) == 7
    assert output_limit(asked.request) is None


@pytest.mark.parametrize("parse", [parse_responses, parse_messages, parse_count])
@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"\xff", "is not valid UTF-8"),
        (b"\xed\xa0\x80", "is not valid UTF-8"),
        (rb"\ud83d", "half a surrogate pair"),
        (rb"\ud83d and more than its other half", "half a surrogate pair"),
        (rb"\\\ud83d", "half a surrogate pair"),
        (rb"\ude00", "half a surrogate pair"),
        (rb"\ud83d\u0041", "half a surrogate pair"),
    ],
)
def test_text_is_unicode(parse: Parser, text: bytes, why: str) -> None:
    """Also where nobody looks before it is passed on."""
    name = b"input" if parse is parse_responses else b"messages"
    for body in (
        b'{"%b":[{"role":"user","content":"%b"}]}' % (name, text),
        b'{"tools":["%b"],"%b":[{"role":"user","content":"hi"}]}' % (text, name),
    ):
        with pytest.raises(FieldFault, match=why) as caught:
            parse(body)
        assert caught.value.param is None


@pytest.mark.parametrize("rest", [rb"\ud83d", rb"\ud83d\ude", rb"\\ud83d", rb"\ud8"])
def test_a_body_that_was_cut_off_is_no_surrogate(rest: bytes) -> None:
    with pytest.raises(FieldFault, match="ends in the middle"):
        parse_responses(b'{"input":"' + rest)


@pytest.mark.parametrize(
    ("parse", "body", "param"),
    [
        (parse_responses, b"", None),
        (parse_responses, b"[]", None),
        (parse_responses, encode(), "input"),
        (parse_responses, encode(input=""), "input"),
        (parse_responses, encode(input=[]), "input"),
        (parse_responses, encode(input="hi", stream=1), "stream"),
        (parse_responses, encode(input="hi", max_output_tokens=0), "max_output_tokens"),
        (parse_responses, encode(input="hi", temperature="x"), "temperature"),
        (parse_messages, encode(), "messages"),
        (parse_messages, encode(messages=[]), "messages"),
        (parse_messages, encode(messages=[{"role": "user"}]), "messages[0].content"),
        (parse_messages, encode(messages=[{"role": "user", "content": ""}]), "messages[0].content"),
        (parse_messages, encode(messages=[{"role": "user", "content": []}]), "messages[0].content"),
        (parse_messages, encode(messages=[{"role": "wizard", "content": "x"}]), "messages[0].role"),
        (parse_messages, encode(messages=[USER], max_tokens="x"), "max_tokens"),
        (parse_responses, encode(input="hi", text={"format": {"type": "xml"}}), "text.format"),
        (
            parse_responses,
            encode(input="hi", text={"format": {"type": "json_schema"}}),
            "text.format.schema",
        ),
        (
            parse_messages,
            encode(messages=[USER], output_config={"format": {"type": "json_schema"}}),
            "output_config.format",
        ),
        (parse_messages, encode(messages=[USER], output_format={}), "output_format"),
        (parse_count, encode(messages=[]), "messages"),
    ],
)
def test_refused_by_name(parse: Parser, body: bytes, param: str | None) -> None:
    """What would be wrong with every runtime."""
    with pytest.raises(FieldFault) as caught:
        parse(body)
    assert caught.value.param == param


REMOTE = "http://192.0.2.1/x.png"
REACHING_OUT: list[tuple[Parser, str, object]] = [
    (parse_messages, "messages", {"type": "image", "source": {"type": "url", "url": REMOTE}}),
    (parse_messages, "messages", {"type": "document", "source": {"type": "url", "url": REMOTE}}),
    (
        parse_messages,
        "messages",
        {
            "type": "tool_result",
            "tool_use_id": "t",
            "content": [{"type": "image", "source": {"type": "url", "url": "FILE:///etc/passwd"}}],
        },
    ),
    (parse_responses, "input", {"type": "input_image", "image_url": REMOTE}),
    (parse_responses, "input", {"type": "input_file", "file_url": REMOTE}),
    (parse_responses, "input", {"type": "image_url", "image_url": {"url": "/etc/passwd"}}),
]


@pytest.mark.parametrize(("parse", "name", "block"), REACHING_OUT)
def test_no_runtime_is_made_to_fetch(parse: Parser, name: str, block: object) -> None:
    """llama-server would, from wherever the daemon can reach."""
    with pytest.raises(FieldFault) as caught:
        parse(encode(**{name: [{"role": "user", "content": [block]}]}))
    assert caught.value.param == name
    assert "passwd" not in caught.value.message


def test_what_a_tool_was_called_with_is_no_media() -> None:
    """A call may well be about a URL; data are passed on."""
    turns = [
        {
            "role": "assistant",
            "content": [
                {
                    "type": "tool_use",
                    "id": "t",
                    "name": "fetch",
                    "input": {"type": "image", "url": REMOTE},
                }
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "image", "source": {"type": "base64", "data": "AA"}},
                {"type": "text", "text": REMOTE},
            ],
        },
    ]
    assert fields_of(parse_messages(encode(messages=turns)).request)["messages"] == turns
    data = [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png,"}]}]
    assert fields_of(parse_responses(encode(input=data)).request)["input"] == data


def test_what_a_route_adds_and_cuts() -> None:
    """In the words of the API; the caller's own wishes win."""
    presets = Presets(
        RouteDefaults(temperature=0.5, stop=["x"], thinking=False), RouteLimits(max_tokens=7)
    )
    messages = with_presets(parse_messages(encode(messages=[USER], max_tokens=9)), presets)
    assert fields_of(messages) == {
        "messages": [USER],
        "max_tokens": 7,
        "temperature": 0.5,
        "stop_sequences": ["x"],
        "chat_template_kwargs": {"enable_thinking": False},
    }
    asked = parse_messages(encode(messages=[USER], temperature=1, thinking={"type": "enabled"}))
    messages = with_presets(asked, presets)
    assert fields_of(messages)["temperature"] == 1
    assert "chat_template_kwargs" not in fields_of(messages)
    responses = with_presets(parse_responses(encode(input="hi")), presets)
    assert fields_of(responses)["max_output_tokens"] == 7


def test_a_route_without_presets_changes_nothing() -> None:
    """Nor does any other to the counting of tokens."""
    asked = parse_responses(encode(input="hi"))
    assert with_presets(asked, NO_PRESETS) is asked.request
    counted = parse_count(encode(messages=[USER]))
    limits = Presets(RouteDefaults(temperature=1), RouteLimits(max_tokens=7))
    assert with_presets(counted, limits) is counted.request
