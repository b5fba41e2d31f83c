"""Wire to backend and back: every field, every event, both versions."""

import json
from typing import Any

import pytest

from inferd_daemon.backends.base import (
    Batch,
    Finished,
    GenerateRequest,
    Sampling,
    TextDeltas,
    ThinkingDeltas,
    ToolCall,
)
from inferd_daemon.config import RouteDefaults, RouteLimits
from inferd_daemon.errors import RequestError
from inferd_daemon.fronts.translation import (
    MAX_WHOLE_TEXT_BYTES,
    AnswerEncoder,
    AnswerEncoderV1,
    AnswerEncoderV2,
    embed_request,
    generate_request,
    rerank_request,
)
from inferd_daemon.routing.presets import Presets
from inferd_proto import (
    Attachment,
    Embed,
    ErrorCode,
    FrameReader,
    FrameType,
    GenerateV1,
    GenerateV2,
    Image,
    ImageAttachment,
    LocalProtocolError,
    Message,
    RequestReceived,
    Rerank,
    ResponseFormat,
    ServerConnection,
    StopReason,
    Text,
    TextMessage,
    Tool,
    Usage,
    pack,
)

USER = [Message("user", [Text("hi")])]
TOOL = Tool("look", {"type": "object"}, "Looks.")


def receiving(connection: ServerConnection, version: int) -> None:
    content: object = "hi" if version == 1 else [{"type": "text", "text": "hi"}]
    request = {
        "wire_version": 1,
        "api_version": version,
        "id": "r",
        "messages": [{"role": "user", "content": content}],
    }
    connection.receive_data(pack(FrameType.JSON, json.dumps(request).encode()))
    assert isinstance(connection.next_event(), RequestReceived)


def encoder(version: int, *, stream: bool = True) -> AnswerEncoder:
    connection = ServerConnection()
    receiving(connection, version)
    shape = AnswerEncoderV1 if version == 1 else AnswerEncoderV2
    return shape(connection, "r", "b", stream=stream)


def answers(data: bytes) -> list[dict[str, Any]]:
    reader = FrameReader()
    reader.feed(data)
    out = []
    while (frame := reader.next()) is not None:
        answer = json.loads(frame.payload or b"")
        assert answer.pop("id") == "r"
        out.append(answer)
    return out


# -- requests ------------------------------------------------------------------------------


def test_v1_becomes_plain_text_with_its_defaults() -> None:
    request = GenerateV1(
        messages=[TextMessage("system", "be brief"), TextMessage("user", "hi")], grammar="g"
    )
    assert generate_request(request, ()) == GenerateRequest(
        messages=[Message("system", [Text("be brief")]), Message("user", [Text("hi")])],
        sampling=Sampling(temperature=1.0, top_p=0.95, top_k=64, max_tokens=1000),
        grammar="g",
    )


def test_v1_gets_what_a_route_says_beyond_the_defaults_of_its_wire() -> None:
    request = GenerateV1(messages=[TextMessage("user", "hi")], top_k=3)
    route = Presets(
        RouteDefaults(temperature=0.1, min_p=0.2, seed=7, stop=["x"], thinking=False),
        RouteLimits(max_tokens=50),
    )
    told = route.apply(generate_request(request, ()))
    assert told.sampling == Sampling(1.0, 0.95, 3, 0.2, 7, ["x"], 50)
    assert told.thinking is False


def test_v2_brings_every_field() -> None:
    request = GenerateV2(
        messages=USER,
        tools=[TOOL],
        tool_choice="required",
        thinking=True,
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        min_p=0.1,
        seed=7,
        stop=["x"],
        max_tokens=9,
    )
    assert generate_request(request, ()) == GenerateRequest(
        messages=USER,
        sampling=Sampling(0.5, 0.9, 3, 0.1, 7, ["x"], 9),
        tools=[TOOL],
        tool_choice="required",
        thinking=True,
    )


def test_v2_leaves_what_is_missing_to_the_backend() -> None:
    assert generate_request(GenerateV2(messages=USER), ()) == GenerateRequest(messages=USER)


def test_a_response_format_is_its_schema() -> None:
    request = GenerateV2(messages=USER, response_format=ResponseFormat({"type": "object"}))
    assert generate_request(request, ()).response_schema == {"type": "object"}


@pytest.mark.parametrize(
    ("choice", "tools", "becomes"),
    [
        (None, [TOOL], None),
        ("auto", [TOOL], "auto"),
        ("required", [TOOL], "required"),
        ("none", [], None),
    ],
)
def test_tool_choice_none_means_no_tools(choice: Any, tools: list[Tool], becomes: Any) -> None:  # noqa: ANN401
    wanted = generate_request(GenerateV2(messages=USER, tools=[TOOL], tool_choice=choice), ())
    assert (wanted.tools, wanted.tool_choice) == (tools, becomes)


def test_blobs_come_by_the_ids_of_their_attachments() -> None:
    pictures: list[Attachment] = [ImageAttachment("a", 1, 1), ImageAttachment("b", 2, 1)]
    request = GenerateV2(messages=[Message("user", [Image("a")])], attachments=pictures)
    media = generate_request(request, (b"aaa", b"bbbbbb")).media
    assert {key: (found.attachment, found.data) for key, found in media.items()} == {
        "a": (pictures[0], b"aaa"),
        "b": (pictures[1], b"bbbbbb"),
    }


def test_embed_and_rerank() -> None:
    embed = embed_request(Embed(input=["a"], dimensions=3, task="similarity"))
    assert (embed.input, embed.dimensions, embed.task) == (["a"], 3, "similarity")
    rerank = rerank_request(Rerank(query="q", documents=["a", "b"], top_n=1))
    assert (rerank.query, rerank.documents) == ("q", ["a", "b"])


# -- answers -------------------------------------------------------------------------------

BATCH: Batch = [
    ThinkingDeltas(["hm", "m"]),
    TextDeltas(["a", 'ä\n"']),
    ToolCall("c1", "look", {"at": [1, None]}),
    Finished("tool_use", Usage(3, 5)),
]
USAGE_V2 = {"input_tokens": 3, "output_tokens": 5}


def test_v2_streams_text_thinking_and_calls_in_order() -> None:
    assert answers(encoder(2).encode(BATCH)) == [
        {"type": "frame", "block": {"type": "thinking", "delta": "hm"}},
        {"type": "frame", "block": {"type": "thinking", "delta": "m"}},
        {"type": "frame", "block": {"type": "text", "delta": "a"}},
        {"type": "frame", "block": {"type": "text", "delta": 'ä\n"'}},
        {
            "type": "frame",
            "block": {
                "type": "tool_use",
                "tool_call_id": "c1",
                "name": "look",
                "input": {"at": [1, None]},
            },
        },
        {"type": "done", "usage": USAGE_V2, "stop_reason": "tool_use", "backend": "b"},
    ]


def test_v2_unstreamed_withholds_text_but_not_calls() -> None:
    call, done = answers(encoder(2, stream=False).encode(BATCH))
    assert call["block"]["type"] == "tool_use"
    assert done == {
        "type": "done",
        "usage": USAGE_V2,
        "stop_reason": "tool_use",
        "backend": "b",
        "content": 'aä\n"',
    }


def test_v2_says_that_a_required_call_did_not_come() -> None:
    (done,) = answers(encoder(2).encode([Finished("max_tokens", Usage(1, 1), True)]))
    assert done["tool_choice_unsatisfied"] is True


def test_v1_carries_the_whole_text_again_at_the_end_and_nothing_but_text() -> None:
    assert answers(encoder(1).encode(BATCH)) == [
        {"type": "token", "content": "a"},
        {"type": "token", "content": 'ä\n"'},
        {
            "type": "done",
            "content": 'aä\n"',
            "usage": {"prompt_tokens": 3, "completion_tokens": 5},
            "stop_reason": "end",
            "backend": "b",
        },
    ]


def test_v1_unstreamed_is_one_frame() -> None:
    (done,) = answers(encoder(1, stream=False).encode(BATCH))
    assert done["content"] == 'aä\n"'


@pytest.mark.parametrize(
    ("reason", "in_v1"),
    [
        ("end_turn", "end"),
        ("stop_sequence", "end"),
        ("tool_use", "end"),
        ("max_tokens", "length"),
        ("cancelled", "cancelled"),
        ("error", "error"),
    ],
)
def test_stop_reasons(reason: StopReason, in_v1: str) -> None:
    end: Batch = [Finished(reason, Usage(1, 1))]
    assert answers(encoder(1).encode(end))[0]["stop_reason"] == in_v1
    assert answers(encoder(2).encode(end))[0]["stop_reason"] == reason


@pytest.mark.parametrize("version", [1, 2])
def test_cancelled(version: int) -> None:
    unstreamed = encoder(version, stream=False)
    unstreamed.encode([TextDeltas(["so far"])])
    (done,) = answers(unstreamed.cancelled())
    assert (done["stop_reason"], done["content"]) == ("cancelled", "so far")


@pytest.mark.parametrize(("version", "produced"), [(1, 3), (2, 5)])
def test_what_was_produced_before_the_cancel_is_counted(version: int, produced: int) -> None:
    """The v1 wire has no place for reasoning, nor for what it took."""
    cut = encoder(version)
    cut.encode([ThinkingDeltas(["a", "b"]), TextDeltas(["c"])])
    cut.encode([TextDeltas(["d", "e"])])
    (done,) = answers(cut.cancelled())
    names = (
        ("prompt_tokens", "completion_tokens")
        if version == 1
        else ("input_tokens", "output_tokens")
    )
    assert [done["usage"][name] for name in names] == [0, produced]


@pytest.mark.parametrize("version", [1, 2])
def test_it_is_finished_once_its_last_frame_is_made(version: int) -> None:
    whole = encoder(version, stream=False)
    assert whole.encode([TextDeltas([]), ThinkingDeltas([])]) == b""
    assert not whole.finished
    whole.encode([Finished("end_turn", Usage(1, 1))])
    assert whole.finished


@pytest.mark.parametrize("version", [1, 2])
def test_a_last_frame_that_cannot_be_made_leaves_it_unfinished(version: int) -> None:
    whole = encoder(version, stream=False)
    whole.encode([TextDeltas(["\ud800"])])
    with pytest.raises(LocalProtocolError):
        whole.encode([Finished("end_turn", Usage(1, 1))])
    assert not whole.finished


@pytest.mark.parametrize(("version", "stream"), [(1, True), (1, False), (2, False)])
def test_text_that_must_come_whole_has_a_bound(version: int, stream: bool) -> None:
    whole = encoder(version, stream=stream)
    whole.encode([TextDeltas(["x" * MAX_WHOLE_TEXT_BYTES])])
    with pytest.raises(RequestError) as caught:
        whole.encode([TextDeltas(["x"])])
    assert caught.value.code is ErrorCode.FRAME_TOO_LARGE


def test_text_at_the_bound_fits_a_frame_whatever_it_is() -> None:
    """A control character takes six bytes as JSON."""
    whole = encoder(2, stream=False)
    whole.encode([TextDeltas(["\x01" * MAX_WHOLE_TEXT_BYTES])])
    (done,) = answers(whole.encode([Finished("end_turn", Usage(1, 1))]))
    assert len(done["content"]) == MAX_WHOLE_TEXT_BYTES
