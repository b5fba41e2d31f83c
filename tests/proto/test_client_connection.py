"""The asking side: what it refuses to send, and what it makes of any daemon."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_proto import (
    AnswerReceived,
    ClientConnection,
    ClientEvent,
    Closed,
    Control,
    Embed,
    Error,
    ErrorCode,
    FrameType,
    GenerateV1,
    GenerateV2,
    Image,
    ImageAttachment,
    LocalProtocolError,
    Message,
    RemoteProtocolError,
    Request,
    Rerank,
    Text,
    TextMessage,
    VideoAttachment,
    pack,
)

V2 = GenerateV2(id="v2", messages=[Message("user", [Text("hi")])])
V1 = GenerateV1(id="v1", messages=[TextMessage("user", "hi")])
REQUESTS: list[Request] = [
    V2,
    V1,
    Embed(id="e", input=["a"]),
    Rerank(id="k", query="q", documents=["a"]),
    Control("c", "logs", {}),
]


def frame(**fields: object) -> bytes:
    return pack(FrameType.JSON, msgspec.json.encode(fields))


def asking(*requests: Request) -> ClientConnection:
    client = ClientConnection()
    for request in requests:
        client.send_request(request)
    return client


def events_of(client: ClientConnection, *data: bytes) -> list[ClientEvent]:
    for piece in data:
        client.receive_data(piece)
    events: list[ClientEvent] = []
    while (event := client.next_event()) is not None:
        events.append(event)
    return events


def test_an_id_is_used_once_at_a_time() -> None:
    client = asking(V2)
    with pytest.raises(LocalProtocolError, match="'v2' is in flight"):
        client.send_request(V2)
    events_of(client, frame(id="v2", type="error", code="internal", message="m"))
    client.send_request(V2)


PICTURE = GenerateV2(
    id="p",
    messages=[Message("user", [Image("i")])],
    attachments=[ImageAttachment("i", 1, 1)],
)


@pytest.mark.parametrize(
    ("request_", "blobs"),
    [
        (V2, (b"x",)),
        (V1, (b"x",)),
        (PICTURE, ()),
        (PICTURE, (b"abc", b"abc")),
        (Control("c", "a.b", {"x": object()}), ()),
        (Control("c", "a.b", {"x": "\ud800"}), ()),
        (Control("c", "cancel", {}), ()),
        (Control("c", "generate", {}), ()),
        (Control("c", "", {}), ()),
    ],
)
def test_what_cannot_be_asked_changes_nothing(request_: Request, blobs: tuple[bytes, ...]) -> None:
    client = ClientConnection()
    with pytest.raises(LocalProtocolError):
        client.send_request(request_, blobs)
    assert client.in_flight == []


def test_blobs_over_the_cap_are_not_sent() -> None:
    big = bytes(64 * 1024 * 1024)
    request = GenerateV2(
        id="p", messages=V2.messages, attachments=[VideoAttachment(i) for i in "abc"]
    )
    with pytest.raises(LocalProtocolError, match="over the cap"):
        ClientConnection().send_request(request, (big, big, b"x"))
    pieces = ClientConnection().send_request(request, (big, big, b""))
    assert any(piece is big for piece in pieces)


def test_no_argument_of_a_control_request_replaces_its_head() -> None:
    arguments: dict[str, object] = {"wire_version": 9, "id": "other", "op": "other", "x": 1}
    (data,) = ClientConnection().send_request(Control("c", "a.b", arguments))
    assert msgspec.json.decode(data[2:]) == {"wire_version": 1, "x": 1, "id": "c", "op": "a.b"}


def test_a_cancel_that_comes_too_late_is_no_bytes() -> None:
    client = asking(V2)
    assert client.send_cancel("v2") != b""
    events_of(client, frame(id="v2", type="error", code="internal", message="m"))
    assert client.send_cancel("v2") == b""


@pytest.mark.parametrize("request_", REQUESTS)
def test_every_kind_of_request_may_end_in_an_error(request_: Request) -> None:
    client = asking(request_)
    (event,) = events_of(client, frame(type="error", id=request_.id, code="internal", message="m"))
    assert event == AnswerReceived(
        request_.id, Error(request_.id, ErrorCode.INTERNAL, "m"), terminal=True
    )
    assert client.in_flight == []


def test_an_error_without_a_request_is_told_and_ends_nothing() -> None:
    client = asking(V2)
    (event,) = events_of(client, frame(type="error", id="", code="frame_too_large", message="m"))
    assert isinstance(event, AnswerReceived)
    assert event.id == ""
    assert client.in_flight == ["v2"]


def test_a_code_of_the_future_is_an_internal_error_with_its_words() -> None:
    client = asking(V2)
    data = frame(type="error", id="v2", code="too_warm", message="m", details={"c": 90})
    (event,) = events_of(client, data)
    assert isinstance(event, AnswerReceived)
    assert event.answer == Error("v2", ErrorCode.INTERNAL, "m", {"c": 90})


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "frame", "block": {"type": "smell", "delta": "x"}},
        {"type": "frame", "block": {"type": "image", "attachment_id": "x"}},
        {"type": "heartbeat"},
        {"type": "heartbeat", "block": {"type": "text"}},
        {},
    ],
)
def test_what_only_a_newer_daemon_knows_is_passed_over(fields: dict[str, object]) -> None:
    client = asking(V2)
    assert events_of(client, frame(id="v2", **fields)) == []
    assert client.in_flight == ["v2"]


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(
    "data",
    [
        pack(FrameType.BLOB, b"x"),
        pack(FrameType.JSON, b"{"),
        b"\x01\x09",
        frame(type="token", id="v2", content="x"),
        frame(type="frame", id="v2", block={"type": "text"}),
        frame(type="frame", id="v2"),
        frame(type="frame", id="v1", block={"type": "text", "delta": "x"}),
        frame(type="done", id="v2"),
        frame(type="result", id="v2", value=1),
        frame(type="frame", id="nobody", block={"type": "text", "delta": "x"}),
        frame(type="done", id="nobody"),
        frame(type="error", id="v2"),
    ],
)
def test_what_makes_no_sense_spends_the_connection(data: bytes, warm: bool) -> None:
    client = asking(V2, V1)
    if warm:
        events_of(client, frame(type="frame", id="v2", block={"type": "text", "delta": "x"}))
    client.receive_data(data)
    with pytest.raises(RemoteProtocolError):
        client.next_event()
    assert events_of(client, frame(type="token", id="v1", content="x"), b"") == []


def test_answers_of_all_kinds_are_told_apart_when_they_alternate() -> None:
    client = asking(*REQUESTS)
    parts = [
        frame(type="frame", id="v2", block={"type": "text", "delta": "x"}),
        frame(type="token", id="v1", content="y"),
        frame(type="item", id="c", value=1),
    ]
    assert len(events_of(client, *(parts * 3))) == 9
    last = [
        frame(type="done", id="c"),
        frame(
            type="done",
            id="v2",
            usage={"input_tokens": 1, "output_tokens": 1},
            stop_reason="end_turn",
            backend="m",
        ),
        frame(
            type="done",
            id="v1",
            content="y",
            usage={"prompt_tokens": 1, "completion_tokens": 1},
            stop_reason="end",
            backend="m",
        ),
    ]
    events = events_of(client, *last)
    names = [type(event.answer).__name__ for event in events if isinstance(event, AnswerReceived)]
    assert names == ["StreamDone", "DoneV2", "DoneV1"]
    assert client.in_flight == ["e", "k"]


@pytest.mark.parametrize(("data", "clean"), [(b"", True), (b"\x05", False), (b"\x05\x01{", False)])
def test_the_end_of_the_stream_is_told_once(data: bytes, clean: bool) -> None:
    client = asking(V2)
    assert events_of(client, *([data] if data else []), b"") == [Closed(clean)]
    assert events_of(client, b"") == []


@given(st.lists(st.binary(max_size=60), max_size=8), st.booleans())
def test_any_bytes_from_a_daemon_are_events_or_a_typed_error(
    pieces: list[bytes], framed: bool
) -> None:
    client = asking(*REQUESTS)
    data = [pack(FrameType.JSON, piece) for piece in pieces] if framed else pieces
    assert survives(client, data)


def survives(client: ClientConnection, data: list[bytes]) -> bool:
    try:
        events_of(client, *data, b"")
    except RemoteProtocolError:
        return events_of(client) == []
    return True
