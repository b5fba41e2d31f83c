"""The control messages of daemon and worker, over a real socketpair and in any pieces."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.engines.libllama.control import (
    MAX_CONTROL_BYTES,
    Boot,
    Control,
    ControlStream,
    Failed,
    Loaded,
    Loading,
    RemoteProtocolError,
    receive_blocking,
)

MESSAGES: list[Control] = [
    Boot(model="/m.gguf", socket_path="/s.sock", key="k", alias="m", ctx_size=5, pooling="mean"),
    Loading(),
    Loaded("cpu", "xllamacpp 1"),
    Failed("no"),
]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_messages_come_whole_however_they_are_cut(sizes: list[int]) -> None:
    data = b"".join(map(ControlStream.pack, MESSAGES))
    stream = ControlStream()
    seen: list[Control] = []
    for turn in range(len(data)):
        piece, data = data[: sizes[turn % len(sizes)]], data[sizes[turn % len(sizes)] :]
        stream.feed(piece)
        while (message := stream.next()) is not None:
            seen.append(message)
    assert seen == MESSAGES


def test_the_end_of_the_stream_is_none() -> None:
    near, far = socket.socketpair()
    with near, far:
        near.sendall(ControlStream.pack(MESSAGES[0]))
        near.shutdown(socket.SHUT_WR)
        stream = ControlStream()
        assert receive_blocking(far, stream) == MESSAGES[0]
        assert receive_blocking(far, stream) is None


@pytest.mark.parametrize("data", [b"\x01\x07x", b"\x80\x80\x80\x80\x80\x80", b"\x02\x03\x80\x80"])
def test_nonsense_is_an_error(data: bytes) -> None:
    stream = ControlStream()
    stream.feed(data)
    with pytest.raises(RemoteProtocolError):
        stream.next()


def test_a_message_has_a_longest_length() -> None:
    stream = ControlStream()
    stream.feed(ControlStream.pack(Failed("x" * MAX_CONTROL_BYTES)))
    with pytest.raises(RemoteProtocolError, match="cap"):
        stream.next()
