"""A client that speaks MessagePack, through the real daemon."""

import socket
from collections.abc import Iterator

import pytest

from inferd_proto import (
    Answer,
    AnswerReceived,
    BlockAnswer,
    ClientConnection,
    Control,
    DoneV2,
    Embed,
    Embeddings,
    FrameReader,
    FrameType,
    GenerateV2,
    Image,
    ImageAttachment,
    Message,
    Request,
    Result,
    Text,
    Tool,
    ToolUse,
)
from tests.support.daemon import running_daemon


class MessagePackClient:
    """The connection of `inferd_proto` over a real socket, told to speak MessagePack."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._connection = ClientConnection(encoding=FrameType.MSGPACK)
        self._frames = FrameReader()

    def ask(self, request: Request, blobs: tuple[bytes, ...] = ()) -> list[Answer]:
        """Every answer to one request; each came as MessagePack."""
        for piece in self._connection.send_request(request, blobs):
            self._sock.sendall(piece)
        answers: list[Answer] = []
        while True:
            while (event := self._connection.next_event()) is not None:
                assert isinstance(event, AnswerReceived)
                answers.append(event.answer)
                if event.terminal:
                    return answers
            data = self._sock.recv(65_536)
            self._frames.feed(data)
            while (frame := self._frames.next()) is not None:
                assert frame.type is FrameType.MSGPACK
            self._connection.receive_data(data)


@pytest.fixture(scope="module")
def client() -> Iterator[MessagePackClient]:
    with running_daemon("--backend", "mock") as daemon, socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(daemon.socket))
        yield MessagePackClient(sock)


def test_a_generation(client: MessagePackClient) -> None:
    request = GenerateV2(id="1", messages=[Message("user", [Text("hi ä")])], max_tokens=100)
    *deltas, done = client.ask(request)
    assert len(deltas) == 100
    assert isinstance(done, DoneV2)
    assert done.usage.output_tokens == 100


def test_a_tool_call_and_an_attachment(client: MessagePackClient) -> None:
    request = GenerateV2(
        id="2",
        messages=[Message("user", [Image("i")])],
        attachments=[ImageAttachment("i", 2, 2)],
        tools=[Tool("look", {"type": "object", "properties": {"at": {"type": "string"}}})],
        tool_choice="required",
    )
    call, done = client.ask(request, (bytes(12),))
    assert call == BlockAnswer("2", ToolUse("mock-call-0", "look", {}))
    assert isinstance(done, DoneV2)
    assert done.stop_reason == "tool_use"


def test_embeddings_and_control(client: MessagePackClient) -> None:
    (embeddings,) = client.ask(Embed(id="3", input=["a", "b"]))
    assert isinstance(embeddings, Embeddings)
    assert len(embeddings.embeddings) == 2
    (result,) = client.ask(Control("4", "status", {}))
    assert isinstance(result, Result)
