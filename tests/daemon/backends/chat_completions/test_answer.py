"""Streams to events: what servers send, recorded and written down, split anywhere."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.backends.base import (
    Batch,
    Finished,
    GenerateEvent,
    TextDeltas,
    ThinkingDeltas,
    ToolCall,
)
from inferd_daemon.backends.chat_completions import ChatAnswer, Expectations, Redactor
from inferd_daemon.errors import CallerFault, RequestError
from inferd_proto import ErrorCode, Usage

RECORDINGS = Path(__file__).parent.parent / "recordings"


def payload(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def delta(**fields: object) -> bytes:
    return payload(choices=[{"index": 0, "delta": fields, "finish_reason": None}])


def finish(reason: str, **fields: object) -> bytes:
    return payload(choices=[{"index": 0, "delta": {}, "finish_reason": reason, **fields}])


def calls(*pieces: object) -> bytes:
    return delta(tool_calls=list(pieces))


def message(reason: str | None, **fields: object) -> bytes:
    return payload(choices=[{"index": 0, "message": fields, "finish_reason": reason}])


def part(name: str | None, arguments: str) -> dict[str, object]:
    return {"index": 0, "id": "", "function": {"name": name, "arguments": arguments}}


USAGE = payload(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 5})
DONE = b"data: [DONE]\n\n"


def read(
    pieces: list[bytes], asked: Expectations | None = None
) -> tuple[list[GenerateEvent], ChatAnswer]:
    """The events with neighbouring deltas joined, and the answer after EOF."""
    answer = ChatAnswer(asked or Expectations(), Redactor(["s3cret"]))
    batch: Batch = [event for piece in pieces for event in answer.feed(piece)]
    batch += answer.feed_eof()
    joined: list[GenerateEvent] = []
    for event in batch:
        last = joined[-1] if joined else None
        if isinstance(event, TextDeltas) and isinstance(last, TextDeltas):
            joined[-1] = TextDeltas(last.deltas + event.deltas)
        elif isinstance(event, ThinkingDeltas) and isinstance(last, ThinkingDeltas):
            joined[-1] = ThinkingDeltas(last.deltas + event.deltas)
        else:
            joined.append(event)
    return joined, answer


def ended(stop_reason: str, *, unsatisfied: bool = False) -> Finished:
    return Finished(stop_reason, Usage(3, 5), unsatisfied)  # type: ignore[arg-type]


WEATHER = ToolCall("c1", "weather", {"city": "Ulm"})
TIME = ToolCall("c2", "time", {})
WHOLE_CALL = {
    "index": 0,
    "id": "c1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city":"Ulm"}'},
}

GOOD: dict[str, tuple[list[bytes], list[GenerateEvent]]] = {
    "text": (
        [
            delta(role="assistant", content=""),
            delta(content="a"),
            delta(content="b"),
            finish("stop"),
            USAGE,
            DONE,
        ],
        [TextDeltas(["a", "b"]), ended("end_turn")],
    ),
    "length": (
        [delta(content="a"), finish("length"), USAGE, DONE],
        [TextDeltas(["a"]), ended("max_tokens")],
    ),
    "usage beside the finish": (
        [
            payload(
                choices=[{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}],
                usage={"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
            ),
            DONE,
        ],
        [TextDeltas(["a"]), ended("end_turn")],
    ),
    "running usage, the last counts": (
        [
            payload(
                choices=[{"index": 0, "delta": {"content": "a"}}],
                usage={"prompt_tokens": 3, "completion_tokens": 1},
            ),
            finish("stop"),
            USAGE,
            DONE,
        ],
        [TextDeltas(["a"]), ended("end_turn")],
    ),
    "no [DONE], but a finish": (
        [delta(content="a"), finish("stop"), USAGE],
        [TextDeltas(["a"]), ended("end_turn")],
    ),
    "thinking in both spellings, between texts": (
        [
            delta(reasoning_content="h"),
            delta(reasoning="m"),
            delta(content="a"),
            delta(reasoning_content="x", content="b"),
            finish("stop"),
            USAGE,
            DONE,
        ],
        [
            ThinkingDeltas(["h", "m"]),
            TextDeltas(["a"]),
            ThinkingDeltas(["x"]),
            TextDeltas(["b"]),
            ended("end_turn"),
        ],
    ),
    "content in parts": (
        [
            delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]),
            delta(content=[{"type": "thinking", "thinking": "m"}, {"type": "text", "text": "a"}]),
            delta(content=[{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]),
            delta(content=[]),
            delta(content="d"),
            finish("stop"),
            USAGE,
            DONE,
        ],
        [ThinkingDeltas(["hm", "m"]), TextDeltas(["a", "bc", "d"]), ended("end_turn")],
    ),
    "refusal is text": (
        [delta(refusal="I won't."), finish("stop"), USAGE, DONE],
        [TextDeltas(["I won't."]), ended("end_turn")],
    ),
    "whole call": (
        [calls(WHOLE_CALL), finish("tool_calls"), USAGE, DONE],
        [WEATHER, ended("tool_use")],
    ),
    "call after text": (
        [delta(content="a"), calls(WHOLE_CALL), finish("tool_calls"), USAGE, DONE],
        [TextDeltas(["a"]), WEATHER, ended("tool_use")],
    ),
    "call that ends with stop": (
        [calls(WHOLE_CALL), finish("stop"), USAGE, DONE],
        [WEATHER, ended("tool_use")],
    ),
    "tool_calls without a call": (
        [delta(content="a"), finish("tool_calls"), USAGE, DONE],
        [TextDeltas(["a"]), ended("end_turn")],
    ),
    "id, name and arguments split anywhere": (
        [
            calls({"index": 0, "id": "c", "function": {"name": "wea", "arguments": ""}}),
            calls({"index": 0, "id": "1", "function": {"name": "ther"}}),
            calls({"index": 0, "function": {"arguments": '{"ci'}}),
            calls({"index": 0, "id": "", "function": {"name": None, "arguments": 'ty":"U'}}),
            calls({"index": 0, "id": None, "function": {"arguments": 'lm"}'}}),
            finish("tool_calls"),
            USAGE,
            DONE,
        ],
        [WEATHER, ended("tool_use")],
    ),
    "parallel calls interleaved, out of order": (
        [
            calls({"index": 1, "id": "c2", "function": {"name": "time", "arguments": "{"}}),
            calls(
                {"index": 0, "id": "c1", "function": {"name": "weather", "arguments": '{"city"'}},
                {"index": 1, "function": {"arguments": "}"}},
            ),
            calls({"index": 0, "function": {"arguments": ':"Ulm"}'}}),
            finish("tool_calls"),
            USAGE,
            DONE,
        ],
        [WEATHER, TIME, ended("tool_use")],
    ),
    "id and name repeated with every fragment": (
        [
            calls({"index": 0, "id": "call-c1", "function": {"name": "weather", "arguments": ""}}),
            calls(
                {
                    "index": 0,
                    "id": "call-c1",
                    "function": {"name": "weather", "arguments": '{"city":"Ulm"}'},
                }
            ),
            finish("tool_calls"),
            USAGE,
            DONE,
        ],
        [WEATHER._replace(id="call-c1"), ended("tool_use")],
    ),
    "no index": (
        [
            calls({"id": "c1", "function": {"name": "weather", "arguments": '{"city":'}}),
            calls({"function": {"arguments": '"Ulm"}'}}),
            calls({"id": "c2", "function": {"name": "time", "arguments": "{}"}}),
            finish("tool_calls"),
            USAGE,
            DONE,
        ],
        [WEATHER, TIME, ended("tool_use")],
    ),
    "every call has index 0": (
        [
            calls(WHOLE_CALL),
            calls({"index": 0, "id": "c2", "function": {"name": "time", "arguments": "{}"}}),
            finish("tool_calls"),
            USAGE,
            DONE,
        ],
        [WEATHER, TIME, ended("tool_use")],
    ),
    "arguments as an object, and none at all": (
        [
            calls(
                {
                    "index": 0,
                    "id": "c1",
                    "function": {"name": "weather", "arguments": {"city": "Ulm"}},
                }
            ),
            calls({"index": 1, "id": "c2", "function": {"name": "time"}}),
            finish("tool_calls"),
            USAGE,
            DONE,
        ],
        [WEATHER, TIME, ended("tool_use")],
    ),
    "whole call, then the budget is out": (
        [calls(WHOLE_CALL), finish("length"), USAGE, DONE],
        [WEATHER, ended("max_tokens")],
    ),
    "cut call, the budget is out": (
        [
            calls({"index": 0, "id": "c1", "function": {"name": "weather", "arguments": '{"ci'}}),
            finish("length"),
            USAGE,
            DONE,
        ],
        [ended("max_tokens")],
    ),
    "vLLM's stop word": (
        [delta(content="a"), finish("stop", stop_reason="END"), USAGE, DONE],
        [TextDeltas(["a"]), ended("stop_sequence")],
    ),
    "vLLM's stop token": (
        [delta(content="a"), finish("stop", stop_reason=128009), USAGE, DONE],
        [TextDeltas(["a"]), ended("end_turn")],
    ),
    "SGLang's stop word": (
        [delta(content="a"), finish("stop", matched_stop="END"), USAGE, DONE],
        [TextDeltas(["a"]), ended("stop_sequence")],
    ),
    "content filter": (
        [delta(content="a"), finish("content_filter"), USAGE, DONE],
        [TextDeltas(["a"]), ended("error")],
    ),
    "second choice": (
        [
            payload(choices=[{"index": 1, "delta": {"content": "no"}, "finish_reason": "stop"}]),
            delta(content="a"),
            finish("stop"),
            USAGE,
            DONE,
        ],
        [TextDeltas(["a"]), ended("end_turn")],
    ),
    "nulls wherever servers put them": (
        [
            delta(role="assistant", content=None, tool_calls=None, reasoning=None),
            payload(choices=[{"index": 0, "delta": None, "finish_reason": None}], usage=None),
            payload(choices=None),
            delta(content="a"),
            finish("stop", stop_reason=None),
            USAGE,
            DONE,
        ],
        [TextDeltas(["a"]), ended("end_turn")],
    ),
    "an empty finish_reason is none": (
        [
            payload(choices=[{"index": 0, "delta": {"content": "a"}, "finish_reason": ""}]),
            finish("stop"),
            payload(choices=[{"index": 0, "delta": {}, "finish_reason": ""}]),
            USAGE,
            DONE,
        ],
        [TextDeltas(["a"]), ended("end_turn")],
    ),
    "after [DONE] nothing counts": (
        [delta(content="a"), finish("stop"), USAGE, DONE, delta(content="b")],
        [TextDeltas(["a"]), ended("end_turn")],
    ),
    "legacy function_call": (
        [
            delta(function_call={"name": "time", "arguments": "{"}),
            delta(function_call={"arguments": "}"}),
            finish("function_call"),
            USAGE,
            DONE,
        ],
        [TIME, ended("tool_use")],
    ),
    "the one call without a list around it": (
        [
            delta(tool_calls=part("weather", '{"city"')),
            delta(tool_calls=part(None, ':"Ulm"}')),
            finish("eos_token"),
            USAGE,
            DONE,
        ],
        [WEATHER._replace(id="c2"), ended("tool_use")],
    ),
    "the whole answer as a message": (
        [
            message("stop", content="a", reasoning_content="hm", tool_calls=[WHOLE_CALL]),
            USAGE,
            DONE,
        ],
        [ThinkingDeltas(["hm"]), TextDeltas(["a"]), WEATHER, ended("tool_use")],
    ),
    "messages in place of deltas": (
        [message(None, content="a"), message(None, content="b"), message("stop"), USAGE, DONE],
        [TextDeltas(["a", "b"]), ended("end_turn")],
    ),
    "a message, its content in parts": (
        [message("stop", content=[{"type": "text", "text": "a"}]), USAGE, DONE],
        [TextDeltas(["a"]), ended("end_turn")],
    ),
    "a message that repeats what the deltas brought": (
        [delta(content="a"), delta(content="b"), message("stop", content="ab"), USAGE, DONE],
        [TextDeltas(["a", "b"]), ended("end_turn")],
    ),
    "a message that repeats the call": (
        [calls(WHOLE_CALL), message("tool_calls", tool_calls=[WHOLE_CALL]), USAGE, DONE],
        [WEATHER, ended("tool_use")],
    ),
    "a message beside the delta": (
        [
            payload(choices=[{"delta": {"content": "a"}, "message": {"content": "a"}}]),
            payload(choices=[{"delta": {"content": "b"}, "message": {"content": "ab"}}]),
            finish("stop"),
            USAGE,
            DONE,
        ],
        [TextDeltas(["a", "b"]), ended("end_turn")],
    ),
    "the second choice before the first": (
        [
            payload(
                choices=[
                    {"index": 1, "delta": {"content": "no"}},
                    {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"},
                ]
            ),
            USAGE,
            DONE,
        ],
        [TextDeltas(["a"]), ended("end_turn")],
    ),
    "a choice without a number": (
        [payload(choices=[{"index": None, "delta": {"content": "a"}}]), finish("stop"), USAGE],
        [TextDeltas(["a"]), ended("end_turn")],
    ),
    "reasoning that is no text": (
        [delta(reasoning={"x": 1}, reasoning_content=[], content="a"), finish("stop"), USAGE],
        [TextDeltas(["a"]), ended("end_turn")],
    ),
}


def without_generated_id(events: list[GenerateEvent]) -> list[GenerateEvent]:
    return [
        e._replace(id="c2") if isinstance(e, ToolCall) and e.id.startswith("call_") else e
        for e in events
    ]


@pytest.mark.parametrize(("pieces", "events"), GOOD.values(), ids=GOOD)
def test_good_streams(pieces: list[bytes], events: list[GenerateEvent]) -> None:
    for stream in (pieces, [b"".join(pieces)]):
        found, answer = read(stream)
        assert without_generated_id(found) == events
        assert answer.finished
        assert answer.failure is None
        assert answer.dropped == 0


BROKEN: dict[str, tuple[list[bytes], ErrorCode, str]] = {
    "empty": ([], ErrorCode.BACKEND_UNAVAILABLE, "in the middle"),
    "no finish": ([delta(content="a")], ErrorCode.BACKEND_UNAVAILABLE, "in the middle"),
    "[DONE] without finish": (
        [delta(content="a"), USAGE, DONE],
        ErrorCode.BACKEND_UNAVAILABLE,
        "in the middle",
    ),
    "abort": ([finish("abort"), DONE], ErrorCode.BACKEND_UNAVAILABLE, "'abort'"),
    "arguments that are not JSON": (
        [
            calls({"index": 0, "id": "c1", "function": {"name": "f", "arguments": '{"a'}}),
            finish("tool_calls"),
            DONE,
        ],
        ErrorCode.TOOL_CALL_MALFORMED,
        "not JSON",
    ),
    "arguments that are no object": (
        [
            calls({"index": 0, "id": "c1", "function": {"name": "f", "arguments": "[1]"}}),
            finish("tool_calls"),
            DONE,
        ],
        ErrorCode.TOOL_CALL_MALFORMED,
        "not a JSON object",
    ),
    "arguments too deep": (
        [
            calls({"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a":' * 5000}}),
            finish("tool_calls"),
            DONE,
        ],
        ErrorCode.TOOL_CALL_MALFORMED,
        "not JSON",
    ),
    "no name": (
        [calls({"index": 0, "id": "c1", "function": {"arguments": "{}"}}), finish("stop"), DONE],
        ErrorCode.TOOL_CALL_MALFORMED,
        "no name",
    ),
    "a reason that quotes the key": (
        [finish("no " * 12 + "s3cr&#101;t, it broke"), DONE],
        ErrorCode.BACKEND_UNAVAILABLE,
        "broke the answer off: '" + "no " * 12 + "***,'",
    ),
    "error in the stream": (
        [delta(content="a"), payload(error={"message": "out of s3cret", "code": 500})],
        ErrorCode.BACKEND_UNAVAILABLE,
        "out of ***",
    ),
    "error as text": (
        [payload(error="it broke")],
        ErrorCode.BACKEND_UNAVAILABLE,
        "it broke",
    ),
    "error of the request": (
        [payload(error={"message": "context exceeded", "code": 400})],
        ErrorCode.INVALID_REQUEST,
        "context exceeded",
    ),
    "error object without its wrapper": (
        [payload(object="error", message="no memory", code=500)],
        ErrorCode.BACKEND_UNAVAILABLE,
        "no memory",
    ),
    "endless line": (
        [b"data: " + b"x" * 700_000] * 2,
        ErrorCode.BACKEND_UNAVAILABLE,
        "more than",
    ),
    "too many calls": (
        [calls(*({"index": i, "function": {"name": "f"}} for i in range(129)))],
        ErrorCode.BACKEND_UNAVAILABLE,
        "tool calls",
    ),
}


@pytest.mark.parametrize(("pieces", "code", "words"), BROKEN.values(), ids=BROKEN)
def test_broken_streams(pieces: list[bytes], code: ErrorCode, words: str) -> None:
    _, answer = read(pieces)
    assert not answer.finished
    assert answer.failure is not None
    assert answer.failure.code == code
    assert words in answer.failure.message
    assert isinstance(answer.failure, CallerFault) == (code is ErrorCode.INVALID_REQUEST)


def test_gathered_arguments_are_bounded() -> None:
    piece = calls({"index": 0, "function": {"name": "", "arguments": "x" * 900_000}})
    _, answer = read([piece] * 10)
    assert answer.failure is not None
    assert "8 MiB" in answer.failure.message


def test_what_came_before_a_failure_still_counts() -> None:
    events, answer = read([delta(content="a") + payload(error="it broke") + delta(content="b")])
    assert events == [TextDeltas(["a"])]
    assert answer.failure is not None


def test_malformed_payloads_are_dropped_and_counted() -> None:
    rubbish = [
        b"data: {\n\n",
        b"data: [1]\n\n",
        b"data: \xff\xfe\n\n",
        b'data: {"choices":{}}\n\n',
        b'data: {"choices":[]} {"choices":[]}\n\n',
        b"data: " + b'{"a":' * 5000 + b"\n\n",
        b"<p>hello\n",
    ]
    good = [delta(content="a"), finish("stop"), USAGE, DONE]
    events, answer = read([*rubbish[:3], good[0], *rubbish[3:], *good[1:]])
    assert events == [TextDeltas(["a"]), ended("end_turn")]
    assert answer.dropped == len(rubbish)


@pytest.mark.parametrize(
    ("choice", "pieces", "outcome"),
    [
        ("required", [calls(WHOLE_CALL), finish("tool_calls")], ended("tool_use")),
        ("required", [delta(content="a"), finish("length")], ended("max_tokens", unsatisfied=True)),
        (
            "required",
            [calls({"index": 0, "function": {"name": "f", "arguments": "{"}}), finish("length")],
            ended("max_tokens", unsatisfied=True),
        ),
        ("required", [delta(content="a"), finish("stop")], None),
        ("none", [delta(content="a"), finish("stop")], ended("end_turn")),
        ("none", [calls(WHOLE_CALL), finish("tool_calls")], None),
        ("auto", [delta(content="a"), finish("stop")], ended("end_turn")),
        ("auto", [delta(content="a"), finish("length")], ended("max_tokens")),
    ],
)
def test_tool_choice_is_held_against_the_answer(
    choice: str, pieces: list[bytes], outcome: Finished | None
) -> None:
    asked = Expectations(tool_choice=choice)  # type: ignore[arg-type]
    events, answer = read([*pieces, USAGE, DONE], asked)
    if outcome is None:
        assert answer.failure is not None
        assert "tool_choice" in answer.failure.message
        assert not any(isinstance(event, ToolCall | Finished) for event in events)
    else:
        assert events[-1] == outcome


def test_thinking_that_was_declined_is_left_out() -> None:
    pieces = [delta(reasoning_content="hm"), delta(content="a"), finish("stop"), USAGE, DONE]
    events, _ = read(pieces, Expectations(thinking=False))
    assert events == [TextDeltas(["a"]), ended("end_turn")]


def test_calls_without_an_id_get_one_each() -> None:
    pieces = [
        calls(
            {"index": 0, "function": {"name": "f", "arguments": "{}"}},
            {"index": 1, "function": {"name": "f", "arguments": "{}"}},
        ),
        finish("tool_calls"),
        DONE,
    ]
    events, _ = read(pieces)
    first, second, _ = events
    assert isinstance(first, ToolCall)
    assert isinstance(second, ToolCall)
    assert len({first.id, second.id, ""}) == 3


SIDE_FIELDS: dict[str, tuple[bytes, Usage]] = {
    "float": (b'"usage":{"prompt_tokens":3.0,"completion_tokens":5.0}', Usage(3, 5)),
    "below zero": (b'"usage":{"prompt_tokens":-1,"completion_tokens":5}', Usage(0, 5)),
    "beyond all counts": (b'"usage":{"prompt_tokens":1e300,"completion_tokens":5}', Usage(0, 5)),
    "text": (b'"usage":{"prompt_tokens":"3","completion_tokens":5}', Usage(0, 0)),
    "no object": (b'"usage":[3,5]', Usage(0, 0)),
    "debug record": (b'"__verbose":[1],"usage":null', Usage(0, 0)),
    "message": (b'"message":{"a":1}', Usage(0, 0)),
}


@pytest.mark.parametrize("ending", [False, True], ids=["with text", "with the finish"])
@pytest.mark.parametrize(("field", "usage"), SIDE_FIELDS.values(), ids=SIDE_FIELDS)
def test_what_is_wrong_beside_the_answer_costs_none_of_it(
    field: bytes, usage: Usage, ending: bool
) -> None:
    pieces = [delta(content="a"), delta(content="b"), finish("stop")]
    changed = 2 if ending else 1
    pieces[changed] = pieces[changed].replace(b"}\n\n", b"," + field + b"}\n\n")
    for stream in ([*pieces, DONE], [b"".join(pieces) + DONE]):
        events, answer = read(stream)
        assert events == [TextDeltas(["a", "b"]), Finished("end_turn", usage, False)]
        assert answer.dropped == 0


def test_what_is_wrong_beside_the_choice_costs_none_of_it() -> None:
    odd = payload(choices=[{"index": 0, "delta": {"content": "a"}, "stop_reason": 1.5}])
    events, answer = read([odd, finish("stop", matched_stop={}), USAGE, DONE])
    assert events == [TextDeltas(["a"]), ended("end_turn")]
    assert answer.dropped == 0


def test_an_error_that_cannot_be_read_is_not_taken_for_a_chunk() -> None:
    _, answer = read([delta(content="a"), payload(choices=[], error={"message": 4}), DONE])
    assert answer.failure is not None
    assert answer.dropped == 1


LOST: dict[str, list[bytes]] = {
    "the only call": [
        calls({"index": True, "id": "c1", "function": {"name": "f", "arguments": "{}"}}),
        finish("tool_calls"),
    ],
    "the only call, by another name": [
        b'data: {"choices":[{"delta":{"function_call":{"name":1}}}]}\n\n',
        finish("function_call"),
    ],
    "one of two": [
        calls(WHOLE_CALL),
        b'data: {"choices":[{"delta":{"tool_calls": [ {"index":1,"id":"c2"\n\n',
        finish("tool_calls"),
    ],
    "a call without a list, of an answer that ends with stop": [
        delta(tool_calls={"index": 0, "id": 7, "function": {"name": "f"}}),
        finish("stop"),
    ],
    "calls that are no objects": [delta(tool_calls=["f"]), finish("stop")],
    "half a call, by another name": [b'data: {"function_call": {"name":"f"\n\n', finish("stop")],
    "a call of an answer that ends with stop": [
        calls({"index": 0, "id": 7, "function": {"name": "f", "arguments": "{}"}}),
        finish("stop"),
    ],
}


@pytest.mark.parametrize("pieces", LOST.values(), ids=LOST)
def test_a_call_that_cannot_be_read_fails_the_answer(pieces: list[bytes]) -> None:
    events, answer = read([delta(content="a"), *pieces, USAGE, DONE])
    assert events == [TextDeltas(["a"])]
    assert answer.failure is not None
    assert answer.failure.code is ErrorCode.TOOL_CALL_MALFORMED


def test_rubbish_beside_a_call_costs_nothing() -> None:
    rubbish = [
        b"data: {\n\n",
        b'data: {"choices":{"delta":{"tool_calls":null}}}\n\n',
        b'data: {"choices":{"delta":{"tool_calls": [ ],"function_call":null}}}\n\n',
    ]
    events, answer = read([*rubbish, calls(WHOLE_CALL), finish("tool_calls"), USAGE, DONE])
    assert events == [WEATHER, ended("tool_use")]
    assert answer.dropped == 3


RECORDED: dict[str, tuple[Expectations, str, str, int]] = {
    # name: what was asked, stop reason, text, output tokens
    "text": (
        Expectations(),
        "max_tokens",
        "Hello! I am inferd's built-in demo model, and I know nothing: a table",
        12,
    ),
    "stop_word": (Expectations(), "stop_sequence", "Hello! I am inferd's built-in demo ", 7),
    "tool_call": (Expectations("required"), "tool_use", "", 30),
    "tool_call_cut": (Expectations("required"), "max_tokens", "", 18),
    "json_schema": (Expectations(), "end_turn", '{"a":"demo","b":true}', 19),
    "thinking": (Expectations(thinking=True), "end_turn", "Here is the answer that was due.", 16),
    # asked for by OpenAI's own client, which asks for none of llama-server's extras
    "openai_sdk_text": (
        Expectations(),
        "max_tokens",
        "Hello! I am inferd's built-in demo model, and I know nothing: a table",
        12,
    ),
    "openai_sdk_tool_call": (Expectations("required"), "tool_use", "", 23),
}
CALLED = ("tool_call", "openai_sdk_tool_call")


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_from_llama_server(name: str) -> None:
    asked, stop_reason, text, tokens = RECORDED[name]
    events, answer = read([(RECORDINGS / f"{name}.sse").read_bytes()], asked)
    assert answer.failure is None
    assert answer.dropped == 0
    end = events[-1]
    assert isinstance(end, Finished)
    assert (end.stop_reason, end.usage.output_tokens) == (stop_reason, tokens)
    assert end.tool_choice_unsatisfied == (name == "tool_call_cut")
    assert "".join(d for e in events if isinstance(e, TextDeltas) for d in e.deltas) == text
    made = [event for event in events if isinstance(event, ToolCall)]
    assert [call.input for call in made] == ([{"city": "demo"}] if name in CALLED else [])
    thoughts = "".join(d for e in events if isinstance(e, ThinkingDeltas) for d in e.deltas)
    assert thoughts == ("Somebody asks, so an answer is due.\n" if name == "thinking" else "")


ALL_STREAMS = [
    *(b"".join(pieces) for name, (pieces, _) in GOOD.items() if "none at all" not in name),
    *(b"".join(pieces) for name, (pieces, *_) in BROKEN.items() if name != "endless line"),
    *(path.read_bytes() for path in sorted(RECORDINGS.glob("*.sse"))),
]


@given(st.sampled_from(ALL_STREAMS), st.lists(st.integers(0, 20_000), max_size=20))
def test_any_split_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(edges)]
    assert outcome(pieces) == outcome([stream])


@pytest.mark.parametrize("name", ["text", *CALLED])
def test_every_split_in_two_gives_the_same_events(name: str) -> None:
    stream = (RECORDINGS / f"{name}.sse").read_bytes()
    expected = outcome([stream])
    for cut in range(0, len(stream), 7):
        assert outcome([stream[:cut], stream[cut:]]) == expected


def outcome(pieces: list[bytes]) -> tuple[list[GenerateEvent], str, int]:
    events, answer = read(pieces)
    failure: RequestError | None = answer.failure
    message = f"{failure.code}: {failure.message}" if failure else ""
    return without_generated_id(events), message, answer.dropped
