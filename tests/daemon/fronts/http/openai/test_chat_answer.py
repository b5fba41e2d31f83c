"""Batches as Chat Completions: the events that SDKs read, and the one object."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.backends.base import (
    Batch,
    Finished,
    TextDeltas,
    ThinkingDeltas,
    ToolCall,
)
from inferd_daemon.errors import BackendFault, CallerFault
from inferd_daemon.fronts.http.openai.chat_answer import (
    FINISH_REASONS,
    MAX_ANSWER_BYTES,
    ChatAnswer,
)
from inferd_daemon.fronts.http.openai.completion_answer import CompletionAnswer
from inferd_proto import StopReason, Usage

CALL = ToolCall("call_1", "weather", {"place": "Rome"})
OTHER_CALL = ToolCall("call_2", "clock", {})
END = Finished("end_turn", Usage(3, 4))


def answer(*, include_usage: bool = False) -> ChatAnswer:
    """Of the route `chat`."""
    return ChatAnswer("chat", "chatcmpl-1", 1_700_000_000, include_usage)


def completion(*, include_usage: bool = False) -> CompletionAnswer:
    """Of the route `chat`."""
    return CompletionAnswer("chat", "cmpl-1", 1_700_000_000, include_usage)


def events(stream: bytes) -> list[Any]:
    """The payloads of a stream; `[DONE]` as it is."""
    *payloads, rest = stream.decode().split("\n\n")
    assert rest == ""
    assert all(payload.startswith("data: ") for payload in payloads)
    texts = [payload.removeprefix("data: ") for payload in payloads]
    assert texts.pop() == "[DONE]"
    return [json.loads(text) for text in texts]


def deltas(chunks: list[Any]) -> list[Any]:
    """Of the first choice of each chunk that has one."""
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


# -- a stream --------------------------------------------------------------------------------


def test_every_token_is_a_chunk_and_every_batch_one_piece() -> None:
    """The first piece opens with the role, the last ends with [DONE]."""
    made = answer()
    first = made.encode([TextDeltas(["Hel", "lo "])])
    second = made.encode([TextDeltas(["you"])])
    assert not made.finished
    last = made.encode([END])
    assert made.finished
    assert last.endswith(b"data: [DONE]\n\n")
    chunks = events(first + second + last)
    assert deltas(chunks) == [
        {"role": "assistant", "content": ""},
        {"content": "Hel"},
        {"content": "lo "},
        {"content": "you"},
        {},
    ]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None, None, None, None, "stop"]
    for chunk in chunks:
        assert chunk["id"] == "chatcmpl-1"
        assert chunk["object"] == "chat.completion.chunk"
        assert chunk["created"] == 1_700_000_000
        assert chunk["model"] == "chat"
        assert "usage" not in chunk


def test_usage_comes_last_where_it_is_wanted() -> None:
    """In a chunk without choices; the others say null."""
    chunks = events(answer(include_usage=True).encode([TextDeltas(["a"]), END]))
    *rest, last = chunks
    assert [chunk["usage"] for chunk in rest] == [None] * 3
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def test_reasoning_stands_apart() -> None:
    """As `reasoning_content`, in its place before the text."""
    chunks = events(answer().encode([ThinkingDeltas(["hm", "m"]), TextDeltas(["a"]), END]))
    assert deltas(chunks)[1:] == [
        {"reasoning_content": "hm"},
        {"reasoning_content": "m"},
        {"content": "a"},
        {},
    ]


def test_tool_calls_come_whole_with_their_index() -> None:
    """One chunk for each; counted on over batches."""
    made = answer()
    stream = made.encode([CALL])
    stream += made.encode([OTHER_CALL, Finished("tool_use", Usage(1, 1))])
    chunks = events(stream)
    assert [delta["tool_calls"] for delta in deltas(chunks) if "tool_calls" in delta] == [
        [
            {
                "index": 0,
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"place":"Rome"}'},
            }
        ],
        [
            {
                "index": 1,
                "id": "call_2",
                "type": "function",
                "function": {"name": "clock", "arguments": "{}"},
            }
        ],
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("tool_use", "tool_calls"),
        ("cancelled", "stop"),
        ("error", "content_filter"),
    ],
)
def test_finish_reasons(ours: StopReason, theirs: str) -> None:
    """In a stream and in an object alike; none is left out."""
    assert FINISH_REASONS[ours] == theirs
    end: Batch = [Finished(ours, Usage(0, 0))]
    assert events(answer().encode(end))[-1]["choices"][0]["finish_reason"] == theirs
    assert json.loads(answer().whole([end]))["choices"][0]["finish_reason"] == theirs
    assert events(completion().encode(end))[-1]["choices"][0]["finish_reason"] == theirs


def test_figures_that_nobody_counted_are_left_out() -> None:
    """Null, in a stream and in an object alike."""
    end: Batch = [Finished("max_tokens", Usage(0, 3), counted=False)]
    for made in (answer, completion):
        whole = made()
        whole.add(end)
        assert json.loads(whole.object())["usage"] is None
    streamed = (answer(include_usage=True), completion(include_usage=True))
    assert [events(made.encode(end))[-1]["usage"] for made in streamed] == [None, None]


def test_half_a_character_is_replaced() -> None:
    """No JSON can carry it, and it must not end the answer."""
    batch: Batch = [TextDeltas(["a\ud800", "b"]), ToolCall("c", "f", {"x": ["\udc00"]}), END]
    chunks = events(answer().encode(batch))
    assert deltas(chunks)[1:3] == [{"content": "a?"}, {"content": "b"}]
    whole = json.loads(answer().whole([batch]))["choices"][0]["message"]
    assert whole["content"] == "a?b"
    assert whole["tool_calls"][0]["function"]["arguments"] == '{"x":["?"]}'


# -- one object ------------------------------------------------------------------------------


def test_the_whole_answer() -> None:
    """Everything that SDKs look for."""
    made = answer().whole([[ThinkingDeltas(["hm"])], [TextDeltas(["Hel", "lo"])], [END]])
    assert json.loads(made) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "chat",
        "system_fingerprint": None,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hello",
                    "refusal": None,
                    "reasoning_content": "hm",
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }


def test_calls_alone_have_no_content() -> None:
    """Null, as OpenAI says it; an empty answer is an empty text."""
    called = json.loads(answer().whole([[CALL, Finished("tool_use", Usage(1, 1))]]))
    message = called["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"][0]["id"] == "call_1"
    assert "index" not in message["tool_calls"][0]
    assert json.loads(answer().whole([[END]]))["choices"][0]["message"]["content"] == ""


def test_an_answer_without_an_end_is_none() -> None:
    """A backend that stops in the middle has failed."""
    with pytest.raises(BackendFault):
        answer().whole([[TextDeltas(["a"])]])
    with pytest.raises(BackendFault):
        completion().object()


def test_an_object_is_bounded() -> None:
    """It is held in memory; a stream is not."""
    piece = "x" * (MAX_ANSWER_BYTES // 2 + 1)
    for made in (answer(), completion()):
        made.add([TextDeltas([piece])])
        with pytest.raises(CallerFault) as caught:
            made.add([TextDeltas([piece])])
        assert "max_tokens" in caught.value.message


# -- completions -----------------------------------------------------------------------------


def test_completion_stream() -> None:
    """Texts, the reason, the usage; nothing of reasoning and calls."""
    made = completion(include_usage=True)
    stream = made.encode([ThinkingDeltas(["hm"]), TextDeltas(["a", "b"]), CALL])
    stream += made.encode([END])
    *chunks, last = events(stream)
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["a", "b", ""]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop"]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert [chunk["usage"] for chunk in chunks] == [None] * 3
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 7


def test_completion_object() -> None:
    """The text and why it ended."""
    made = completion()
    made.add([TextDeltas(["a", "b"])])
    made.add([Finished("max_tokens", Usage(3, 2))])
    whole = json.loads(made.object())
    assert whole["choices"] == [
        {"index": 0, "text": "ab", "logprobs": None, "finish_reason": "length"}
    ]
    assert whole["usage"]["completion_tokens"] == 2


# -- properties ------------------------------------------------------------------------------

texts = st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4)
inputs = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers())
batches = st.lists(
    st.lists(
        st.builds(TextDeltas, texts)
        | st.builds(ThinkingDeltas, texts)
        | st.builds(
            ToolCall, st.just("c"), st.just("f"), st.dictionaries(st.text(), st.integers())
        ),
        max_size=4,
    ),
    max_size=5,
)


@given(batches)
def test_stream_and_object_say_the_same(given_batches: list[Batch]) -> None:
    """Whatever was batched with what."""
    stream, whole = answer(), answer()
    given_batches = [*given_batches, [END]]
    data = b"".join(stream.encode(batch) for batch in given_batches)
    message = json.loads(whole.whole(given_batches))["choices"][0]["message"]
    parts = deltas(events(data))
    assert "".join(part.get("content", "") for part in parts) == (message["content"] or "")
    thought = "".join(part.get("reasoning_content", "") for part in parts)
    assert thought == message.get("reasoning_content", "")
    calls = [part["tool_calls"][0] for part in parts if "tool_calls" in part]
    assert [call.pop("index") for call in calls] == list(range(len(calls)))
    assert calls == message.get("tool_calls", [])
