"""The golden bytes, in both directions: what we write, and what we make of what others write."""

import json
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import pytest

from inferd_proto import (
    Answer,
    AnswerReceived,
    Audio,
    AudioAttachment,
    BlockAnswer,
    CancelReceived,
    ClientConnection,
    Closed,
    Control,
    DoneV1,
    DoneV2,
    Embed,
    Embeddings,
    Error,
    ErrorCode,
    FrameReader,
    FrameType,
    GenerateV1,
    GenerateV2,
    Image,
    ImageAttachment,
    InputUsage,
    Item,
    Message,
    Queued,
    RankedDocument,
    Ranking,
    RemoteProtocolError,
    Request,
    RequestReceived,
    Rerank,
    ResponseFormat,
    Result,
    ServerConnection,
    StreamDone,
    Text,
    TextDelta,
    TextMessage,
    ThinkingDelta,
    Token,
    Tool,
    ToolResult,
    ToolUse,
    Usage,
    UsageV1,
    encode_length,
)
from tests.support.golden import GoldenFrame, read_lengths, read_vectors

VECTORS = read_vectors()


class Ask(NamedTuple):
    request: Request
    blobs: tuple[bytes, ...] = ()


class Cancel(NamedTuple):
    id: str


class Refusal(NamedTuple):
    """Bytes that no client of ours sends, and the error they get."""

    error: Error
    closes: bool


Step = Ask | Cancel | Refusal | Answer


def ask(id_: str, *content: object, **fields: object) -> Ask:
    blocks = [Text(block) if isinstance(block, str) else block for block in content]
    request = GenerateV2(id=id_, messages=[Message("user", blocks)], **fields)  # type: ignore[arg-type]
    return Ask(request)


def text(id_: str, delta: str) -> BlockAnswer:
    return BlockAnswer(id_, TextDelta(delta))


def done(id_: str, read: int, written: int, reason: str, **fields: object) -> DoneV2:
    return DoneV2(id_, Usage(read, written), reason, "libllama", **fields)  # type: ignore[arg-type]


def refusal(id_: str, code: ErrorCode, message: str, *, closes: bool = True) -> Refusal:
    return Refusal(Error(id_, code, message), closes)


WEATHER = Tool(
    "weather",
    {"type": "object", "properties": {"city": {"type": "string"}}},
    "Weather of a city",
)
CALL = ToolUse("call_1", "weather", {"city": "Rome"})
INVALID = ErrorCode.INVALID_REQUEST
VERSION = ErrorCode.WIRE_VERSION_UNSUPPORTED

CONVERSATIONS: dict[str, list[Step]] = {
    "v2-text": [
        ask("r1", "hi", max_tokens=4),
        text("r1", "Hello"),
        text("r1", " there"),
        done("r1", 12, 2, "end_turn"),
    ],
    "v2-every-field": [
        Ask(
            GenerateV2(
                id="r2",
                messages=[
                    Message("system", [Text("Be brief.")]),
                    Message("user", [Text("Grüße")]),
                ],
                thinking=True,
                temperature=0.5,
                top_p=0.9,
                top_k=40,
                min_p=0.05,
                seed=7,
                stop=["END"],
                max_tokens=16,
                model="demo",
                client="docs",
                queue_events=True,
            )
        ),
        BlockAnswer("r2", Queued(2, 1500)),
        BlockAnswer("r2", ThinkingDelta("They greet.")),
        text("r2", '"Grüße"\n'),
        done("r2", 9, 5, "stop_sequence"),
    ],
    "v2-whole": [
        ask(
            "r3",
            "age?",
            response_format=ResponseFormat(
                {"type": "object", "properties": {"age": {"type": "integer"}}}
            ),
            stream=False,
        ),
        done("r3", 8, 6, "end_turn", content='{"age":7}'),
    ],
    "v2-tool-call": [
        ask("r4", "Rome?", tools=[WEATHER], tool_choice="required"),
        BlockAnswer("r4", CALL),
        done("r4", 40, 12, "tool_use"),
    ],
    "v2-tool-result": [
        Ask(
            GenerateV2(
                id="r5",
                messages=[
                    Message("user", [Text("Rome?")]),
                    Message("assistant", [CALL]),
                    Message("user", [ToolResult("call_1", [Text("21 C")])]),
                ],
                tools=[Tool("weather", {"type": "object"})],
                tool_choice="required",
                max_tokens=1,
            )
        ),
        done("r5", 60, 1, "max_tokens", tool_choice_unsatisfied=True),
    ],
    "v2-attachments": [
        Ask(
            GenerateV2(
                id="r6",
                messages=[Message("user", [Image("pic"), Audio("snd")])],
                attachments=[ImageAttachment("pic", 2, 1), AudioAttachment("snd", 16000)],
            ),
            (bytes([255, 0, 0, 0, 0, 255]), bytes.fromhex("0000003f000000bf")),
        ),
        text("r6", "red, blue"),
        done("r6", 70, 3, "end_turn"),
    ],
    "v2-long": [
        ask("r7", "a" * 16384),
        text("r7", "b" * 200),
        Error("r7", ErrorCode.QUEUE_FULL, "the queue of route demo is full"),
    ],
    "v1-text": [
        Ask(GenerateV1(id="t1", messages=[TextMessage("user", "hi")])),
        Token("t1", "Hel"),
        Token("t1", "lo"),
        DoneV1("t1", "Hello", UsageV1(3, 2), "end", "libllama"),
    ],
    "v1-every-field": [
        Ask(
            GenerateV1(
                id="t2",
                messages=[TextMessage("system", "Yes or no."), TextMessage("user", "Is it?")],
                temperature=0.0,
                top_p=0.5,
                top_k=1,
                max_tokens=1,
                stream=False,
                grammar='root ::= "yes" | "no"',
                image_token_budget=280,
                model="demo",
            )
        ),
        DoneV1("t2", "yes", UsageV1(11, 1), "length", "libllama"),
    ],
    "embed": [
        Ask(Embed(id="e1", input=["one", "two"], dimensions=2, task="similarity", model="vectors")),
        Embeddings("e1", [[0.6, 0.8], [-1.0, 0.0]], 2, "vectors", InputUsage(4), "libllama"),
    ],
    "rerank": [
        Ask(Rerank(id="k1", query="cat", documents=["dog", "cat", "car"], top_n=2)),
        Ranking(
            "k1",
            [RankedDocument(1, 3.5), RankedDocument(2, -0.25)],
            "ranker",
            InputUsage(9),
            "libllama",
        ),
    ],
    "control": [
        Ask(Control("c1", "status", {"verbose": True})),
        Result("c1", {"ready": True}),
        Ask(Control("c2", "logs", {"lease": "l1"})),
        Item("c2", "first line"),
        Item("c2", "second line"),
        StreamDone("c2"),
    ],
    "cancel": [
        ask("a", "1"),
        ask("b", "2"),
        text("b", "two"),
        Cancel("a"),
        text("a", "one"),
        done("a", 2, 1, "cancelled"),
        done("b", 2, 1, "end_turn"),
    ],
    "refused-then-served": [
        refusal("x1", INVALID, "`messages[0].content[0]`: unknown type 'hologram'", closes=False),
        ask("x2", "hi"),
        done("x2", 3, 0, "end_turn"),
    ],
    "wrong-version": [
        refusal("x3", VERSION, "wire_version 2 is not supported; this daemon speaks wire_version 1")
    ],
    "no-version": [
        refusal("x4", VERSION, "wire_version is missing; this daemon speaks wire_version 1")
    ],
    "over-the-cap": [
        refusal(
            "",
            ErrorCode.FRAME_TOO_LARGE,
            "frame of 67108865 bytes is over the cap of 67108864",
        )
    ],
    "endless-length": [refusal("", INVALID, "malformed frame: its length takes more than 5 bytes")],
    "unknown-frame-type": [refusal("", INVALID, "malformed frame: unknown type 0x04")],
    "unannounced-blob": [refusal("", INVALID, "BLOB frame without an attachment_blob")],
    "msgpack-v2-text": [
        ask("r1", "hi", max_tokens=4),
        text("r1", "Hello"),
        done("r1", 12, 1, "end_turn"),
    ],
    "msgpack-v1-text": [
        Ask(GenerateV1(id="t1", messages=[TextMessage("user", "hi")])),
        Token("t1", "Hello"),
        Error("t1", ErrorCode.BACKEND_UNAVAILABLE, "the engine ended"),
    ],
    "msgpack-embed": [
        Ask(Embed(id="e1", input=["one"])),
        Embeddings("e1", [[0.5, -2.0]], 2, "vectors", InputUsage(2), "libllama"),
    ],
    "msgpack-attachment": [
        Ask(
            GenerateV2(
                id="r6",
                messages=[Message("user", [Image("pic")])],
                attachments=[ImageAttachment("pic", 1, 1)],
            ),
            (b"\x01\x02\x03",),
        ),
        Error("r6", ErrorCode.ATTACHMENT_UNSUPPORTED, "the model has no projector for images"),
    ],
}


def encoding_of(name: str) -> FrameType:
    return FrameType.MSGPACK if name.startswith("msgpack-") else FrameType.JSON


def take(frames: Iterator[GoldenFrame], count: int, *, from_client: bool) -> bytes:
    taken = [next(frames) for _ in range(count)]
    assert all(frame.from_client is from_client for frame in taken)
    return b"".join(frame.data for frame in taken)


def receive_split(connection: ServerConnection | ClientConnection, data: bytes) -> list[object]:
    """Every byte on its own: no frame may depend on how its bytes came."""
    events: list[object] = []
    for position in range(len(data)):
        connection.receive_data(data[position : position + 1])
        while (event := connection.next_event()) is not None:
            events.append(event)
    return events


def test_file_and_conversations_name_the_same_vectors() -> None:
    assert list(VECTORS) == list(CONVERSATIONS)


@pytest.mark.parametrize("name", VECTORS)
def test_we_write_the_golden_bytes_and_understand_them(name: str) -> None:
    frames = iter(VECTORS[name])
    client = ClientConnection(encoding=encoding_of(name))
    server = ServerConnection()
    for step in CONVERSATIONS[name]:
        match step:
            case Ask(request, blobs):
                data = take(frames, 1 + 2 * len(blobs), from_client=True)
                assert b"".join(client.send_request(request, blobs)) == data
                assert receive_split(server, data) == [RequestReceived(request.id, request, blobs)]
            case Cancel(id_):
                data = take(frames, 1, from_client=True)
                assert client.send_cancel(id_) == data
                assert receive_split(server, data) == [CancelReceived(id_)]
            case Refusal(error, closes):
                (refused,) = receive_split(server, take(frames, 1, from_client=True))
                data = take(frames, 1, from_client=False)
                assert refused == (error.id, error.code, error.message, data, closes)
                assert receive_split(client, data) == [AnswerReceived(error.id, error, True)]
            case _:
                data = take(frames, 1, from_client=False)
                assert server.send(step) == data
                (received,) = receive_split(client, data)
                assert isinstance(received, AnswerReceived)
                assert received.answer == step
    assert next(frames, None) is None
    assert client.in_flight == []
    assert server.in_flight == []


@pytest.mark.parametrize(
    ("name", "channel", "kind"),
    [
        ("v2-text", "text", TextDelta),
        ("v2-every-field", "thinking", ThinkingDelta),
        ("v2-every-field", "text", TextDelta),
        ("v2-long", "text", TextDelta),
        ("msgpack-v2-text", "text", TextDelta),
    ],
)
def test_the_hot_path_writes_the_golden_bytes(
    name: str, channel: str, kind: type[TextDelta] | type[ThinkingDelta]
) -> None:
    request, *answers = CONVERSATIONS[name]
    assert isinstance(request, Ask)
    server = ServerConnection()
    server.receive_data(VECTORS[name][0].data)
    assert isinstance(server.next_event(), RequestReceived)
    chosen = [
        (answer.block.delta, frame.data)
        for answer, frame in zip(answers, VECTORS[name][1:], strict=True)
        if isinstance(answer, BlockAnswer) and isinstance(answer.block, kind)
    ]
    assert chosen
    written = server.send_deltas(
        request.request.id,
        [delta for delta, _ in chosen],
        channel,  # type: ignore[arg-type]
    )
    assert written == b"".join(data for _, data in chosen)


def test_the_hot_path_writes_the_golden_bytes_of_v1() -> None:
    server = ServerConnection()
    server.receive_data(VECTORS["v1-text"][0].data)
    assert isinstance(server.next_event(), RequestReceived)
    tokens = VECTORS["v1-text"][1].data + VECTORS["v1-text"][2].data
    assert server.send_deltas("t1", ["Hel", "lo"]) == tokens


def test_the_published_request_is_112_bytes_and_begins_70_01_7b() -> None:
    payload = (
        b'{"wire_version":1,"id":"r1","messages":[{"role":"user","content":'
        b'[{"type":"text","text":"hi"}]}],"max_tokens":4}'
    )
    assert len(payload) == 112
    assert VECTORS["v2-text"][0].data == b"\x70\x01" + payload
    assert VECTORS["v2-text"][0].data.startswith(bytes.fromhex("70 01 7B"))


@pytest.mark.parametrize("name", VECTORS)
def test_the_file_tells_the_truth_about_its_own_payloads(name: str) -> None:
    for frame in VECTORS[name]:
        if frame.form == "broken":
            continue
        reader = FrameReader()
        reader.feed(frame.data)
        whole = reader.next()
        assert whole is not None
        assert whole.payload is not None
        assert reader.buffered_bytes == 0
        match frame.form:
            case "json" if " … " in frame.text:
                start, end = frame.text.encode().split(b" \xe2\x80\xa6 ")
                assert whole.payload.startswith(start)
                assert whole.payload.endswith(end)
            case "json":
                assert (whole.type, whole.payload) == (FrameType.JSON, frame.text.encode())
            case "msgpack":
                meaning = msgspec.msgpack.decode(whole.payload)
                assert (whole.type, meaning) == (FrameType.MSGPACK, json.loads(frame.text))
            case _:
                assert whole.type is FrameType.BLOB


@pytest.mark.parametrize("row", read_lengths(), ids=lambda row: f"{row.length}={row.data.hex()}")
def test_lengths(row: tuple[int, bytes]) -> None:
    length, data = row
    if len(data) == len(encode_length(length)):
        assert encode_length(length) == data
    seen: list[int] = []

    def admit(_type: FrameType, size: int) -> bool:
        seen.append(size)
        return False

    reader = FrameReader(admit=admit)
    reader.feed(data + b"\x02")
    reader.next()
    assert seen == [length]


@pytest.mark.parametrize("name", VECTORS)
def test_a_stream_cut_inside_a_frame_is_not_a_clean_end(name: str) -> None:
    frame = VECTORS[name][0]
    if frame.form == "broken":
        return
    for cut in range(1, min(len(frame.data), 200)):
        server = ServerConnection()
        server.receive_data(frame.data[:cut])
        server.receive_data(b"")
        event = server.next_event()
        if frame.form == "blob" and not isinstance(event, Closed):
            continue
        assert event == Closed(clean=False)
    reader = FrameReader()
    reader.feed(frame.data[:-1])
    assert reader.next() is None
    with pytest.raises(RemoteProtocolError):
        reader.finish()
