"""Bytes without end that are no body: each flood ends, and in time."""

import socket
from math import inf
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import MockClock

from inferd_daemon.backends.transport import Connection, PlainTransport
from tests.support.scripted_upstream import EVENTS_HEAD, Repeat, Script, serve


@pytest.mark.parametrize(
    ("head", "flood"),
    [
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
        (EVENTS_HEAD + b"0\r\n", b"x-t: y\r\n" * 1000),
        (EVENTS_HEAD + b"5;", b"x" * 1000),
    ],
    ids=["interim heads", "trailers", "an extension"],
)
async def test_a_flood_of_what_is_no_body_ends(tmp_path: Path, head: bytes, flood: bytes) -> None:
    script: Script = [head, Repeat(flood, 0)] if head else [Repeat(flood, 0)]
    async with serve(tmp_path, script) as upstream, PlainTransport(uds=upstream.uds) as transport:
        endless = httpx.Request("POST", upstream.url, content=b"{}")
        with trio.fail_after(60), pytest.raises(httpx.RemoteProtocolError, match="more than"):
            await (await transport.handle_async_request(endless)).aread()
        with trio.fail_after(60):
            await upstream.gone.wait()


class Babble(Connection):
    """One that always has something more to read, at a millisecond each."""

    def __init__(self, sock: socket.socket, said: bytes, more: bytes) -> None:
        super().__init__(sock)
        self._next = said
        self._more = more

    async def receive(self, deadline: float = inf) -> bytes | None:
        await trio.sleep(0.001)
        said, self._next = self._next, self._more
        return said


@pytest.mark.parametrize(
    ("said", "more"),
    [(b"HTTP/1.1 102 Processing\r\nA: ", b"b"), (EVENTS_HEAD + b"0\r\nA: ", b"b")],
    ids=["in the head", "behind the body"],
)
async def test_what_is_always_readable_keeps_the_deadline(
    said: bytes, more: bytes, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = socket.socketpair()
    connection = Babble(ours, said, more)

    async def connect(*_: object, **__: object) -> Connection:
        return connection

    monkeypatch.setattr("inferd_daemon.backends.transport.http.connect", connect)
    late = httpx.Request("GET", "http://x/", extensions={"timeout": {"read": 1.0}})
    with theirs:
        transport = PlainTransport()
        with pytest.raises(httpx.ReadTimeout):
            await (await transport.handle_async_request(late)).aread()
        assert trio.current_time() == pytest.approx(1, abs=0.1)
