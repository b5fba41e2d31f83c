"""What answers, and answers that are none, mean for the health of a runtime."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from inferd_daemon.backends.runtime import Endpoint
from inferd_daemon.engines.base import Health
from inferd_daemon.engines.http_probe import MAX_REPLY_BYTES, ProbeError, fetch, judge, look

Reply = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    ("status", "body", "health"),
    [
        (200, b'{"status":"ok"}', Health.HEALTHY),
        (200, b'{"status":"degraded"}', Health.DEGRADED),
        (503, b'{"error":{"message":"Loading model","code":503}}', Health.LOADING),
        (503, b"", Health.LOADING),
        (502, b"", Health.LOADING),
        (504, b"", Health.LOADING),
        (401, b"", Health.LOADING),
    ],
)
def test_an_answer_means(status: int, body: bytes, health: Health) -> None:
    assert judge(status, body) is health


@asynccontextmanager
async def upstream(path: Path, reply: Reply) -> AsyncIterator[list[bytes]]:
    """A server on a Unix socket that answers every head with `reply`, then closes."""
    heads: list[bytes] = []

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                head += await stream.receive_some()
            heads.append(head)
            await stream.send_all(reply(head))

    listener = trio.socket.socket(socket.AF_UNIX)
    await listener.bind(str(path))
    listener.listen()
    serve: Callable[..., Awaitable[None]] = trio.serve_listeners
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, answer, [trio.SocketListener(listener)])
        yield heads
        nursery.cancel_scope.cancel()


def http(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


async def test_the_key_and_the_prefix_are_sent(tmp_path: Path) -> None:
    async with upstream(tmp_path / "s", lambda _: http(200, b"yes")) as heads:
        endpoint = Endpoint(uds=tmp_path / "s", key="k" * 9, api_prefix="/pre")
        assert await fetch(endpoint, "/props") == (200, b"yes")
    assert heads[0].startswith(b"GET /pre/props HTTP/1.1\r\n")
    assert b"authorization: bearer kkkkkkkkk\r\n" in heads[0].lower()


async def test_without_health_the_models_decide(tmp_path: Path) -> None:
    def reply(head: bytes) -> bytes:
        return http(200, b"{}") if b"/v1/models" in head else http(404, b"")

    async with upstream(tmp_path / "s", reply) as heads:
        assert await look(Endpoint(uds=tmp_path / "s")) is Health.HEALTHY
    assert len(heads) == 2


@pytest.mark.parametrize(
    "reply", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut"]
)
async def test_what_is_no_answer(tmp_path: Path, reply: bytes) -> None:
    async with upstream(tmp_path / "s", lambda _: reply):
        assert await look(Endpoint(uds=tmp_path / "s")) is Health.NO_ANSWER


async def test_nobody_there_is_no_answer(tmp_path: Path) -> None:
    assert await look(Endpoint(uds=tmp_path / "s")) is Health.NO_ANSWER
    with socket.socket() as nobody:  # its port is nobody else's, and it does not listen
        nobody.bind(("127.0.0.1", 0))
        assert await look(Endpoint(port=nobody.getsockname()[1])) is Health.NO_ANSWER


async def test_an_endless_answer_is_cut(tmp_path: Path) -> None:
    body = b"x" * (MAX_REPLY_BYTES + 1)
    async with upstream(tmp_path / "s", lambda _: http(200, body)):
        with pytest.raises(ProbeError, match="too long"):
            await fetch(Endpoint(uds=tmp_path / "s"), "/props")
