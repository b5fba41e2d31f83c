"""The daemon's side: what each order of frames means, refused or served, and what it costs."""

import tracemalloc
from typing import Any

import msgspec
import pytest

from inferd_proto import (
    MAX_FRAME_BYTES,
    BlockAnswer,
    CancelReceived,
    Channel,
    Closed,
    DoneV1,
    DoneV2,
    Embeddings,
    Error,
    ErrorCode,
    Event,
    FrameReader,
    FrameType,
    GenerateV2,
    InputUsage,
    Item,
    LocalProtocolError,
    Refused,
    RequestReceived,
    Result,
    ServerConnection,
    TextDelta,
    Token,
    UploadCancelled,
    Usage,
    UsageV1,
    encode_length,
    pack,
)

HI = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
MEBIBYTE = 1024 * 1024


def frame(**fields: object) -> bytes:
    return pack(FrameType.JSON, msgspec.json.encode(fields))


def ask(id_: str, **fields: object) -> bytes:
    return frame(wire_version=1, id=id_, **{"messages": HI, **fields})


def announce(id_: str, length: int) -> bytes:
    return frame(type="attachment_blob", attachment_id=id_, len=length)


def blob(data: bytes) -> bytes:
    return pack(FrameType.BLOB, data)


def video(count: int) -> list[dict[str, Any]]:
    return [{"kind": "video", "id": str(i)} for i in range(count)]


def done(id_: str) -> DoneV2:
    return DoneV2(id_, Usage(1, 1), "end_turn", "mock")


def events_of(server: ServerConnection, *data: bytes) -> list[Event]:
    for piece in data:
        server.receive_data(piece)
    events: list[Event] = []
    while (event := server.next_event()) is not None:
        events.append(event)
    return events


def refused(events: list[Event]) -> Refused:
    (event,) = events
    assert isinstance(event, Refused)
    reader = FrameReader()
    reader.feed(event.data)
    whole = reader.next()
    assert whole is not None
    assert whole.payload is not None
    decode = msgspec.json.decode if whole.type is FrameType.JSON else msgspec.msgpack.decode
    assert decode(whole.payload) == {
        "type": "error",
        "id": event.id,
        "code": event.code.value,
        "message": event.message,
    }
    return event


def served(server: ServerConnection, id_: str = "after") -> bool:
    (event,) = events_of(server, ask(id_))
    return isinstance(event, RequestReceived) and event.id == id_


def test_several_requests_are_in_flight_and_end_in_any_order() -> None:
    server = ServerConnection()
    events = events_of(server, ask("a") + ask("b") + ask("c"))
    assert [event.id for event in events if isinstance(event, RequestReceived)] == ["a", "b", "c"]
    assert server.in_flight == ["a", "b", "c"]
    server.send(done("b"))
    assert server.in_flight == ["a", "c"]
    with pytest.raises(LocalProtocolError, match="no request 'b' is in flight"):
        server.send(done("b"))
    assert served(server, "b")


def test_an_id_in_flight_is_refused_and_its_first_owner_goes_on() -> None:
    server = ServerConnection()
    events_of(server, ask("a"))
    refusal = refused(events_of(server, ask("a")))
    assert (refusal.id, refusal.code, refusal.close) == ("a", ErrorCode.INVALID_REQUEST, False)
    assert server.in_flight == ["a"]
    server.send(BlockAnswer("a", TextDelta("x")))
    server.send(done("a"))


def test_one_request_too_many_gets_queue_full() -> None:
    server = ServerConnection(max_in_flight=2)
    events_of(server, ask("a"), ask("b"))
    refusal = refused(events_of(server, ask("c")))
    assert (refusal.id, refusal.code, refusal.close) == ("c", ErrorCode.QUEUE_FULL, False)
    server.send(done("a"))
    assert served(server, "c")


def test_cancel_reaches_the_request_it_names_and_no_other() -> None:
    server = ServerConnection()
    events_of(server, ask("a") + ask("b"))
    assert events_of(server, frame(op="cancel", id="b")) == [CancelReceived("b")]
    assert events_of(server, frame(op="cancel", id="b")) == [CancelReceived("b")]
    server.send(done("b"))
    assert events_of(server, frame(op="cancel", id="b"), frame(op="cancel", id="zzz")) == []
    assert server.in_flight == ["a"]


@pytest.mark.parametrize("encoding", [FrameType.JSON, FrameType.MSGPACK])
def test_each_request_is_answered_in_its_own_encoding(encoding: FrameType) -> None:
    other = FrameType.MSGPACK if encoding is FrameType.JSON else FrameType.JSON
    encoders = {FrameType.JSON: msgspec.json.encode, FrameType.MSGPACK: msgspec.msgpack.encode}
    server = ServerConnection()
    for id_, type_ in (("a", encoding), ("b", other)):
        message = {"wire_version": 1, "id": id_, "messages": HI}
        events_of(server, pack(type_, encoders[type_](message)))
    for id_, type_ in (("a", encoding), ("b", other)):
        assert server.send_deltas(id_, ["x"])[1] == type_
        assert server.send(done(id_))[1] == type_
    refusal = refused(events_of(server, pack(encoding, encoders[encoding]({"wire_version": 9}))))
    header = refusal.data[: 2 + (refusal.data[0] >> 7)]
    assert header[-1] == encoding


def test_a_refusal_is_in_the_encoding_of_what_it_refuses() -> None:
    server = ServerConnection()
    events_of(server, ask("a"), ask("u", attachments=video(1)))
    cancel = pack(FrameType.MSGPACK, msgspec.msgpack.encode({"op": "cancel", "id": "u"}))
    (cancelled,) = events_of(server, cancel)
    assert isinstance(cancelled, UploadCancelled)
    assert cancelled.data[1] == FrameType.JSON
    again = {"wire_version": 1, "id": "a", "messages": HI}
    duplicate = pack(FrameType.MSGPACK, msgspec.msgpack.encode(again))
    assert refused(events_of(server, duplicate)).data[1] == FrameType.MSGPACK


def test_a_refused_message_costs_itself_alone() -> None:
    server = ServerConnection()
    events_of(server, ask("a"))
    for data in (
        pack(FrameType.JSON, b"{"),
        pack(FrameType.MSGPACK, b"\xc1"),
        ask("b", messages=[]),
    ):
        assert not refused(events_of(server, data)).close
    assert server.in_flight == ["a"]
    assert served(server)


def test_nothing_comes_after_a_close() -> None:
    server = ServerConnection()
    assert refused(events_of(server, frame(wire_version=7) + ask("a"))).close
    assert events_of(server, ask("b"), b"") == []
    assert "closed" in repr(server)


@pytest.mark.parametrize(
    ("data", "clean"),
    [
        (b"", True),
        (ask("a"), True),
        (ask("a")[:-1], False),
        (b"\x80", False),
        (ask("a", attachments=video(1)), False),
        (ask("a", attachments=video(1)) + announce("0", 3), False),
        (ask("a", attachments=video(1)) + announce("0", 3) + blob(b"xyz"), True),
        (ask("a", messages=[], attachments=video(1)) + announce("0", 3), False),
    ],
)
def test_the_end_of_a_stream_is_clean_only_between_messages(data: bytes, clean: bool) -> None:
    server = ServerConnection()
    assert events_of(server, *([data] if data else []), b"")[-1] == Closed(clean)
    assert server.next_event() is None


# -- attachments ---------------------------------------------------------------------------


def test_a_request_with_attachments_is_there_once_its_last_blob_is() -> None:
    server = ServerConnection()
    request = ask("a", attachments=video(2))
    assert events_of(server, request, announce("0", 3), blob(b"xyz"), announce("1", 0)) == []
    assert server.in_flight == ["a"]
    (event,) = events_of(server, blob(b""))
    assert isinstance(event, RequestReceived)
    assert event.blobs == (b"xyz", b"")
    assert isinstance(event.request, GenerateV2)


def test_33_attachments_are_refused_before_a_blob_and_the_connection_goes_on() -> None:
    server = ServerConnection()
    refusal = refused(events_of(server, ask("a", attachments=video(33))))
    assert (refusal.id, refusal.code, refusal.close) == ("a", ErrorCode.INVALID_REQUEST, False)
    assert refusal.message.startswith("`attachments`: ")
    for i in range(33):
        assert events_of(server, announce(str(i), 3) + blob(b"xyz")) == []
    assert server.in_flight == []
    assert served(server)


def test_blobs_of_a_refused_request_are_read_past_without_memory() -> None:
    server = ServerConnection()
    refused(events_of(server, ask("a", attachments=video(33))))
    piece = bytes(64 * 1024)
    tracemalloc.start()
    try:
        for i in range(3):
            head = announce(str(i), 8 * MEBIBYTE) + encode_length(8 * MEBIBYTE) + b"\x02"
            assert events_of(server, head) == []
            for _ in range(128):
                assert events_of(server, piece) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024
    assert served(server)


def test_blobs_are_charged_when_announced() -> None:
    server = ServerConnection()
    data = blob(bytes(MAX_FRAME_BYTES))
    events_of(server, ask("a", attachments=video(3)))
    for i in range(2):
        assert events_of(server, announce(str(i), MAX_FRAME_BYTES), data) == []
    refusal = refused(events_of(server, announce("2", 1)))
    assert (refusal.id, refusal.code, refusal.close) == ("a", ErrorCode.FRAME_TOO_LARGE, True)
    assert "134217729" in refusal.message


def test_a_blob_over_the_frame_cap_is_refused_when_announced() -> None:
    server = ServerConnection()
    events_of(server, ask("a", attachments=video(1)))
    refusal = refused(events_of(server, announce("0", MAX_FRAME_BYTES + 1)))
    assert (refusal.id, refusal.code, refusal.close) == ("a", ErrorCode.FRAME_TOO_LARGE, True)


def test_each_request_has_its_own_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferd_proto.upload.MAX_REQUEST_BLOB_BYTES", 1000)
    server = ServerConnection()
    for id_ in ("a", "b", "c"):
        upload = ask(id_, attachments=video(2)) + announce("0", 600) + blob(bytes(600))
        (event,) = events_of(server, upload, announce("1", 400), blob(bytes(400)))
        assert isinstance(event, RequestReceived)
    refused(events_of(server, ask("d", attachments=video(33))))
    assert events_of(server, announce("0", 900), blob(bytes(900))) == []
    refusal = refused(events_of(server, announce("1", 101)))
    assert (refusal.code, refusal.close) == (ErrorCode.FRAME_TOO_LARGE, True)


IMAGE = {"kind": "image", "id": "i", "width": 2, "height": 2}
AUDIO = {"kind": "audio", "id": "s", "sample_rate": 16000}


@pytest.mark.parametrize(
    ("attachment", "announced", "length", "words"),
    [
        (IMAGE, "i", 11, "`attachments[0]`: len is 11, must be width * height * 3 = 12"),
        (IMAGE, "x", 12, "`attachments[0]`: its blob is next, not that of 'x'"),
        (AUDIO, "s", 7, "`attachments[0]`: len is 7, must be a multiple of 4, not 0"),
        (AUDIO, "s", 0, "`attachments[0]`: len is 0, must be a multiple of 4, not 0"),
    ],
)
def test_a_wrong_announcement_costs_its_request_alone(
    attachment: dict[str, object], announced: str, length: int, words: str
) -> None:
    server = ServerConnection()
    events_of(server, ask("other"), ask("a", attachments=[attachment, *video(1)]))
    refusal = refused(events_of(server, announce(announced, length)))
    assert refusal.message.startswith(words)
    assert (refusal.id, refusal.code, refusal.close) == ("a", ErrorCode.INVALID_REQUEST, False)
    assert events_of(server, blob(bytes(length)), announce("0", 2), blob(b"ab")) == []
    assert server.in_flight == ["other"]
    assert served(server)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([announce("0", 3), blob(b"wxyz")], "a blob of 4 bytes was announced with 3"),
        ([announce("0", 3), blob(b"xy")], "a blob of 2 bytes was announced with 3"),
        ([blob(b"xyz")], "BLOB frame without an attachment_blob"),
        ([announce("0", 3), announce("0", 3)], "a BLOB frame must follow"),
        ([announce("0", 3), ask("b")], "a BLOB frame must follow"),
        ([ask("b")], "attachment_blob expected"),
        ([pack(FrameType.JSON, b"{")], "attachment_blob expected"),
        ([frame(type="attachment_blob", attachment_id="0", len=-1)], "attachment_blob expected"),
    ],
)
def test_a_broken_order_of_an_upload_ends_the_connection(data: list[bytes], words: str) -> None:
    server = ServerConnection()
    events_of(server, ask("a", attachments=video(1)))
    refusal = refused(events_of(server, *data))
    assert refusal.message.startswith(words)
    assert (refusal.id, refusal.code, refusal.close) == ("a", ErrorCode.INVALID_REQUEST, True)


def test_a_blob_longer_than_announced_is_refused_at_its_header() -> None:
    server = ServerConnection()
    events_of(server, ask("a", attachments=video(1)), announce("0", 3))
    assert refused(events_of(server, encode_length(4) + b"\x02")).close


def test_an_announcement_that_no_request_waits_for_is_refused_once_with_its_blob() -> None:
    server = ServerConnection()
    refusal = refused(events_of(server, announce("0", 3)))
    assert (refusal.code, refusal.close) == (ErrorCode.INVALID_REQUEST, False)
    assert events_of(server, blob(b"xyz"), announce("1", 1), blob(b"x")) == []
    assert served(server)


def test_another_request_is_cancelled_between_the_blobs_of_an_upload() -> None:
    server = ServerConnection()
    events_of(server, ask("a"), ask("b", attachments=video(2)), announce("0", 1), blob(b"x"))
    assert events_of(server, frame(op="cancel", id="a")) == [CancelReceived("a")]
    (event,) = events_of(server, announce("1", 1), blob(b"y"))
    assert isinstance(event, RequestReceived)
    assert event.blobs == (b"x", b"y")


def test_a_request_cancelled_in_its_upload_ends_and_the_rest_is_read_past() -> None:
    server = ServerConnection()
    events_of(server, ask("a", attachments=video(2)), announce("0", 1), blob(b"x"))
    (event,) = events_of(server, frame(op="cancel", id="a"))
    assert isinstance(event, UploadCancelled)
    assert event.id == "a"
    assert server.in_flight == []
    assert events_of(server, frame(op="cancel", id="a")) == []
    assert events_of(server, announce("1", 1), blob(b"y")) == []
    assert served(server)


@pytest.mark.parametrize(("stream", "whole"), [(True, {}), (False, {"content": ""})])
def test_a_cancelled_upload_ends_with_its_done(stream: bool, whole: dict[str, str]) -> None:
    server = ServerConnection()
    events_of(server, ask("a", attachments=video(1), stream=stream))
    (event,) = events_of(server, frame(op="cancel", id="a"))
    assert isinstance(event, UploadCancelled)
    reader = FrameReader()
    reader.feed(event.data)
    last = reader.next()
    assert last is not None
    assert (
        msgspec.json.decode(last.payload or b"")
        == {
            "type": "done",
            "id": "a",
            "usage": {"input_tokens": 0, "output_tokens": 0},
            "stop_reason": "cancelled",
            "backend": "",
        }
        | whole
    )


@pytest.mark.parametrize("half", [announce("0", 4), announce("0", 4) + blob(b"wxyz")[:4]])
def test_a_request_that_we_end_in_its_upload_takes_no_more_blobs(half: bytes) -> None:
    server = ServerConnection()
    events_of(server, ask("a", attachments=video(2)), half)
    server.send(Error("a", ErrorCode.BACKEND_UNAVAILABLE, "the daemon is shutting down"))
    rest = (announce("0", 4) + blob(b"wxyz"))[len(half) :]
    assert events_of(server, rest, announce("1", 1), blob(b"y")) == []
    assert served(server)


# -- answers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "wrong"),
    [
        ({}, Token("a", "x")),
        ({}, DoneV1("a", "x", UsageV1(1, 1), "end")),
        ({}, Result("a", 1)),
        ({"api_version": 1, "messages": [{"role": "user", "content": "x"}]}, done("a")),
        ({"op": "embed", "input": ["x"]}, Item("a", 1)),
        ({"op": "status"}, Embeddings("a", [], 1, "m", InputUsage(1), "b")),
    ],
)
def test_an_answer_of_another_kind_is_our_own_fault(
    request_: dict[str, Any], wrong: Token | DoneV1 | DoneV2 | Result | Item | Embeddings
) -> None:
    server = ServerConnection()
    events_of(server, ask("a", **request_))
    with pytest.raises(LocalProtocolError, match=f"{type(wrong).__name__} answers no"):
        server.send(wrong)
    server.send(Error("a", ErrorCode.INTERNAL, "still in flight"))


@pytest.mark.parametrize("value", [object(), {"x": [object()]}, "\ud800", {"\ud800": 1}])
def test_an_answer_that_cannot_be_encoded_leaves_its_request_in_flight(value: object) -> None:
    server = ServerConnection()
    events_of(server, ask("a", op="status"))
    with pytest.raises(LocalProtocolError, match="cannot be encoded"):
        server.send(Result("a", value))
    assert server.in_flight == ["a"]


def test_an_integer_that_msgpack_cannot_carry_is_our_own_fault() -> None:
    server = ServerConnection()
    request = {"wire_version": 1, "id": "a", "op": "status"}
    events_of(server, pack(FrameType.MSGPACK, msgspec.msgpack.encode(request)))
    with pytest.raises(LocalProtocolError, match="cannot be encoded"):
        server.send(Result("a", 2**64))
    assert server.in_flight == ["a"]


def test_an_answer_over_the_cap_leaves_its_request_in_flight() -> None:
    server = ServerConnection()
    events_of(server, ask("a"))
    with pytest.raises(ValueError, match="over the cap"):
        server.send(BlockAnswer("a", TextDelta("x" * MAX_FRAME_BYTES)))
    with pytest.raises(ValueError, match="over the cap"):
        server.send_deltas("a", ["x" * MAX_FRAME_BYTES])
    assert server.in_flight == ["a"]


@pytest.mark.parametrize("length", [0, 1, 60, 70, 100, 2000, 2047, 2048, 20_000])
@pytest.mark.parametrize("channel", ["text", "thinking"])
@pytest.mark.parametrize("id_", ["a", '""', '"delta":""', "ü\n", ""])
@pytest.mark.parametrize("encoding", [FrameType.JSON, FrameType.MSGPACK])
def test_deltas_are_the_frames_that_their_structs_would_be(
    length: int, channel: Channel, id_: str, encoding: FrameType
) -> None:
    json, msgpack = msgspec.json, msgspec.msgpack
    encode = json.encode if encoding is FrameType.JSON else msgpack.encode
    decode = json.decode if encoding is FrameType.JSON else msgpack.decode
    server = ServerConnection()
    events_of(server, pack(encoding, encode({"wire_version": 1, "id": id_, "messages": HI})))
    deltas = ["x" * length, 'é"\\\n\u2028', ""]
    alone = [server.send_deltas(id_, [delta], channel) for delta in deltas]
    assert server.send_deltas(id_, deltas, channel) == b"".join(alone)
    reader = FrameReader()
    reader.feed(b"".join(alone))
    for delta in deltas:
        whole = reader.next()
        assert whole is not None
        assert whole.payload is not None
        assert decode(whole.payload) == {
            "type": "frame",
            "id": id_,
            "block": {"type": channel, "delta": delta},
        }


def test_a_lone_surrogate_in_a_delta_is_our_own_fault() -> None:
    server = ServerConnection()
    events_of(server, ask("a"))
    with pytest.raises(LocalProtocolError, match="cannot be encoded"):
        server.send_deltas("a", ["ok", "\ud83d"])


def test_the_state_of_each_request_is_told_in_words() -> None:
    server = ServerConnection()
    events_of(server, ask("a"), ask("b"), frame(op="cancel", id="b"))
    events_of(server, ask("c", attachments=video(1)))
    assert repr(server) == "<ServerConnection open {'a': running, 'b': cancelling, 'c': uploading}>"
