"""Chat Completions as events: text, thinking, the end, errors, and what makes no sense."""

import json

import pytest

from inferd_client import BackendFailed, DaemonBusy, NotFound, ProtocolViolation, RequestFailed
from inferd_client.ctl.chat_events import ChatEvents, failed
from inferd_client.ctl.render import event_json
from inferd_proto import TextDelta, ThinkingDelta, Usage


def chunk(reason: str | None = None, **delta: object) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return "data: " + json.dumps({"choices": [choice], "usage": None})


def test_an_answer_from_its_first_chunk_to_its_end() -> None:
    events = ChatEvents("claude")
    lines = [
        chunk(role="assistant", content=""),
        "",
        ": a comment",
        "event: message",
        chunk(reasoning_content="hm"),
        chunk(content="Hel"),
        chunk(content="lo"),
        chunk("stop"),
        'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}',
        "data: [DONE]",
    ]
    got = [event for line in lines for event in events.feed(line)]
    assert got == [ThinkingDelta("hm"), TextDelta("Hel"), TextDelta("lo")]
    done = events.finish()
    assert (done.stop_reason, done.usage, done.backend) == ("end_turn", Usage(3, 2), "claude")
    assert done.counted
    assert json.loads(event_json(done))["usage"] == {"input_tokens": 3, "output_tokens": 2}


@pytest.mark.parametrize("last", ['{"choices":[],"usage":null}', '{"choices":[]}'])
def test_what_nobody_counted_is_not_told_as_nothing(last: str) -> None:
    events = ChatEvents("amp")
    for line in (chunk(content="Hello"), chunk("stop"), f"data: {last}", "data: [DONE]"):
        events.feed(line)
    done = events.finish()
    fields = json.loads(event_json(done))
    assert (fields["type"], fields["stop_reason"], fields["usage"]) == ("done", "end_turn", None)
    assert not done.counted
    assert "counted" not in fields


def test_a_cut_answer_says_so() -> None:
    events = ChatEvents("x")
    events.feed(chunk("length"))
    assert events.finish().stop_reason == "max_tokens"


def test_an_answer_without_its_end_is_none() -> None:
    events = ChatEvents("x")
    events.feed(chunk(content="half"))
    with pytest.raises(ProtocolViolation):
        events.finish()


@pytest.mark.parametrize("line", ["data: {", "data: 7", "data: null", "data: []"])
def test_what_makes_no_sense(line: str) -> None:
    with pytest.raises(ProtocolViolation):
        ChatEvents("x").feed(line)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("queue_full", DaemonBusy),
        ("backend_unavailable", BackendFailed),
        ("not_found", NotFound),
        ("context_length_exceeded", BackendFailed),
        (None, BackendFailed),
    ],
)
def test_an_error_has_its_class(code: str | None, kind: type[RequestFailed]) -> None:
    error = {"error": {"message": "no", "type": "t", "param": None, "code": code}}
    with pytest.raises(kind, match="no"):
        ChatEvents("x").feed(f"data: {json.dumps(error)}")


@pytest.mark.parametrize("body", [None, [], {}, {"error": "text"}, {"error": {"message": ""}}])
def test_an_error_of_any_shape_is_one(body: object) -> None:
    assert isinstance(failed(body), BackendFailed)
