"""PROTOCOL.md is true: its examples are messages, its tables are the code's, its client works."""

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any, cast

import pytest

import inferd_proto
from inferd_proto import (
    MAX_ATTACHMENTS,
    MAX_FRAME_BYTES,
    MAX_REQUEST_BLOB_BYTES,
    AnswerReceived,
    ClientConnection,
    Control,
    DoneV2,
    Embed,
    Error,
    ErrorCode,
    FrameType,
    GenerateV1,
    GenerateV2,
    Message,
    Refused,
    Request,
    RequestReceived,
    Rerank,
    ServerConnection,
    Text,
    TextMessage,
    ToolUse,
    Usage,
    diagram,
    pack,
)
from inferd_proto.connection import MAX_IN_FLIGHT
from inferd_proto.messages import decode_request
from inferd_proto.messages.limits import (
    MAX_EMBED_INPUTS,
    MAX_GRAMMAR_ALTERNATIVES,
    MAX_GRAMMAR_BYTES,
    MAX_ID_CHARS,
    MAX_JSON_BYTES,
    MAX_JSON_DEPTH,
    MAX_RERANK_DOCUMENTS,
    MAX_RERANK_TEXT_BYTES,
    MAX_VALUES,
)
from tests.support.golden import read_vectors

DOCUMENT = files(inferd_proto).joinpath("PROTOCOL.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)(?: ([^\n]+))?\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)


def lines_of(language: str, kind: str) -> list[str]:
    found = [text for word, what, text in BLOCKS if (word, what) == (language, kind)]
    return [line for text in found for line in text.splitlines()]


def section(number: int) -> str:
    return re.split(r"^## \d+\. ", DOCUMENT, flags=re.MULTILINE)[number]


def test_every_block_is_of_a_kind_that_is_tested_here() -> None:
    kinds = {(language, what.split(" to ")[0]) for language, what, _ in BLOCKS}
    assert kinds == {
        ("hex", ""),
        ("json", "requests"),
        ("json", "answers"),
        ("mermaid", ""),
        ("python", "client"),
    }


@pytest.mark.parametrize("line", lines_of("json", "requests"))
def test_every_request_is_one(line: str) -> None:
    decode_request(FrameType.JSON, line.encode())


ASKING: dict[str, Callable[[str], Request]] = {
    "v1": lambda id_: GenerateV1(id=id_, messages=[TextMessage("user", "x")]),
    "v2": lambda id_: GenerateV2(id=id_, messages=[Message("user", [Text("x")])]),
    "embed": lambda id_: Embed(id=id_, input=["x"]),
    "rerank": lambda id_: Rerank(id=id_, query="x", documents=["x"]),
    "control": lambda id_: Control(id_, "status", {}),
}


@pytest.mark.parametrize("kind", ASKING)
def test_every_answer_is_one(kind: str) -> None:
    lines = lines_of("json", f"answers to {kind}")
    assert lines
    for line in lines:
        client = ClientConnection()
        client.send_request(ASKING[kind](json.loads(line)["id"]))
        client.receive_data(pack(FrameType.JSON, line.encode()))
        event = client.next_event()
        assert isinstance(event, AnswerReceived)


def test_the_hex_dump_is_the_golden_request() -> None:
    rows = [row.split("  ") for row in lines_of("hex", "")]
    data = b"".join(bytes.fromhex(row[1]) for row in rows)
    assert data == read_vectors()["v2-text"][0].data
    assert [int(row[0], 16) for row in rows] == list(range(0, len(data), 16))
    assert f"writes {len(data)} bytes" in DOCUMENT


def test_the_state_diagram_is_the_table() -> None:
    assert "\n".join(lines_of("mermaid", "")) == diagram()


def test_the_error_codes_are_all_of_them() -> None:
    codes = re.findall(r"^\| `(\w+)` \|", section(8), re.MULTILINE)
    assert codes == [code.value for code in ErrorCode]


def test_the_limits_are_those_of_the_code() -> None:
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", section(9), re.MULTILINE))
    assert rows["payload of one frame"] == f"{MAX_FRAME_BYTES} bytes"
    assert rows["attachments of one request"] == f"{MAX_ATTACHMENTS}"
    assert rows["blobs of one request together"] == f"{MAX_REQUEST_BLOB_BYTES} bytes"
    assert rows["requests at once on one connection"] == f"{MAX_IN_FLIGHT}"
    assert rows["`id`"] == f"{MAX_ID_CHARS} characters"
    grammar = f"{MAX_GRAMMAR_BYTES} bytes, {MAX_GRAMMAR_ALTERNATIVES} alternatives"
    assert rows["`grammar`"] == grammar
    rerank = f"{MAX_RERANK_DOCUMENTS}, {MAX_RERANK_TEXT_BYTES} bytes"
    assert rows["documents of a rerank"] == rerank
    assert rows["inputs of an embed"] == f"{MAX_EMBED_INPUTS}"
    (values,) = (value for name, value in rows.items() if name.startswith("texts and field names"))
    assert values == f"{MAX_VALUES}"
    assert f"{MAX_JSON_BYTES} bytes" in rows.values()
    (levels,) = (value for name, value in rows.items() if name.startswith("levels of"))
    assert levels == f"{MAX_JSON_DEPTH}"


# -- the client ----------------------------------------------------------------------------


Generate = Callable[..., Iterator[str]]


def client_of_the_document() -> Generate:
    source = "\n".join(lines_of("python", "client"))
    assert len([line for line in source.splitlines() if line]) <= 30
    module: dict[str, Any] = {"__name__": "client"}
    exec(compile(source, "PROTOCOL.md", "exec"), module)
    return cast("Generate", module["generate"])


def serve(wire: socket.socket, seen: list[GenerateV2]) -> None:
    """A daemon of one connection: a call of a tool, every word back, or an error for "fail"."""
    server = ServerConnection()
    with wire:
        while data := wire.recv(4096):
            server.receive_data(data)
            while (event := server.next_event()) is not None:
                if isinstance(event, Refused):
                    wire.sendall(event.data)
                    continue
                assert isinstance(event, RequestReceived)
                assert isinstance(event.request, GenerateV2)
                seen.append(event.request)
                wire.sendall(answer(server, event.request))


def answer(server: ServerConnection, request: GenerateV2) -> bytes:
    (text,) = request.messages[0].content
    assert isinstance(text, Text)
    if text.text == "fail":
        return server.send(Error(request.id, ErrorCode.QUEUE_FULL, "no room"))
    words = [f"{word} " for word in text.text.split()]
    call = inferd_proto.BlockAnswer(request.id, ToolUse("c", "f", {}))
    done = DoneV2(request.id, Usage(1, len(words)), "end_turn", "mock")
    return server.send(call) + server.send_deltas(request.id, words) + server.send(done)


def test_the_client_of_the_document_works() -> None:
    generate = client_of_the_document()
    ours, theirs = socket.socketpair()
    seen: list[GenerateV2] = []
    daemon = threading.Thread(target=serve, args=(theirs, seen))
    ours.settimeout(60)
    daemon.start()
    try:
        with ours:
            assert "".join(generate(ours, "one two three")) == "one two three "
            long = "word " * 5000
            assert "".join(generate(ours, long, max_tokens=4)) == long
            with pytest.raises(RuntimeError, match="queue_full: no room"):
                list(generate(ours, "fail"))
            with pytest.raises(RuntimeError, match="`top_p`"):
                list(generate(ours, "x", top_p=7))
    finally:
        daemon.join(60)
    assert not daemon.is_alive()
    assert [request.max_tokens for request in seen] == [None, 4, None]


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x05\x01{", b"\xff\xff\xff\xff\xff", b"\x00\x02"])
def test_the_client_of_the_document_tells_a_broken_answer(data: bytes) -> None:
    generate = client_of_the_document()
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        with theirs, pytest.raises(ConnectionError, match="closed the connection"):
            list(generate(ours, "hi"))
