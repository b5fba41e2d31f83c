"""The transport against an upstream that is scripted to the byte."""

import errno
import socket
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from inferd_daemon.backends.transport import PlainTransport
from tests.support.scripted_upstream import (
    CHUNKS_END,
    EVENTS_HEAD,
    Close,
    Hang,
    Hold,
    Pause,
    Repeat,
    Reset,
    Script,
    ScriptedUpstream,
    chunk,
    serve,
    whole,
)

OK: Script = [whole(200, b"ok")]
TIMEOUT = {"connect": 60.0, "read": 60.0, "write": 60.0}


def request(upstream: ScriptedUpstream, body: bytes = b"{}", method: str = "POST") -> httpx.Request:
    return httpx.Request(
        method, f"{upstream.url}/v1/x", content=body, extensions={"timeout": TIMEOUT}
    )


async def fetch(transport: PlainTransport, upstream: ScriptedUpstream) -> bytes:
    response = await transport.handle_async_request(request(upstream))
    return await response.aread()


async def test_it_serves_httpx(tmp_path: Path) -> None:
    async with serve(tmp_path, [whole(201, b'{"a":1}')]) as upstream:
        transport = PlainTransport(uds=upstream.uds)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            response = await client.post("/v1/x?q=1", json={"b": 2}, headers={"x-y": "z"})
        assert (response.status_code, response.json()) == (201, {"a": 1})
        (seen,) = upstream.requests
        assert (seen.method, seen.path, seen.body) == ("POST", "/v1/x?q=1", b'{"b":2}')
        assert seen.headers["host"] == "here"
        assert seen.headers["x-y"] == "z"


@pytest.mark.usefixtures("long_kept")
@pytest.mark.parametrize("tcp", [False, True])
async def test_connections_are_kept(tmp_path: Path, tcp: bool) -> None:
    async with (
        serve(tmp_path, OK, tcp=tcp) as upstream,
        PlainTransport(uds=upstream.uds) as transport,
    ):
        for _ in range(5):
            assert await fetch(transport, upstream) == b"ok"
        assert upstream.connections == 1


@pytest.mark.usefixtures("long_kept")
async def test_a_connection_carries_ninety_requests(tmp_path: Path) -> None:
    async with serve(tmp_path, OK) as upstream, PlainTransport(uds=upstream.uds) as transport:
        for _ in range(91):
            await fetch(transport, upstream)
        assert [seen.connection for seen in upstream.requests] == [0] * 90 + [1]


async def test_a_connection_is_kept_for_less_than_four_seconds(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with serve(tmp_path, OK) as upstream, PlainTransport(uds=upstream.uds) as transport:
        await fetch(transport, upstream)
        await trio.sleep(3.9)
        await fetch(transport, upstream)
        assert upstream.connections == 1
        await trio.sleep(4.1)
        await fetch(transport, upstream)
        assert upstream.connections == 2


async def test_a_connection_that_the_upstream_closed_is_not_used(tmp_path: Path) -> None:
    script: Script = [whole(200, b"ok"), Close()]
    async with serve(tmp_path, script) as upstream, PlainTransport(uds=upstream.uds) as transport:
        await fetch(transport, upstream)
        await wait_all_tasks_blocked()
        await fetch(transport, upstream)
        assert (upstream.connections, len(upstream.requests)) == (2, 2)


async def test_a_connection_that_speaks_unasked_is_not_used(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    scripts: list[Script] = [[whole(200, b"ok"), Pause(0.01), whole(200, b"late")], OK]
    async with serve(tmp_path, *scripts) as upstream, PlainTransport(uds=upstream.uds) as transport:
        await fetch(transport, upstream)
        await trio.sleep(0.1)
        assert await fetch(transport, upstream) == b"ok"
        assert [seen.connection for seen in upstream.requests] == [0, 1]


@pytest.mark.usefixtures("long_kept")
async def test_one_retry_where_a_reused_connection_dies_in_silence(tmp_path: Path) -> None:
    scripts: list[Script] = [OK, [Close()], OK]
    async with serve(tmp_path, *scripts) as upstream, PlainTransport(uds=upstream.uds) as transport:
        await fetch(transport, upstream)
        assert await fetch(transport, upstream) == b"ok"
        assert [seen.connection for seen in upstream.requests] == [0, 0, 1]


@pytest.mark.usefixtures("long_kept")
async def test_no_second_retry(tmp_path: Path) -> None:
    scripts: list[Script] = [OK, [Close()], [Close()], OK]
    async with serve(tmp_path, *scripts) as upstream, PlainTransport(uds=upstream.uds) as transport:
        await fetch(transport, upstream)
        with pytest.raises(httpx.RemoteProtocolError):
            await fetch(transport, upstream)
        assert len(upstream.requests) == 3


@pytest.mark.parametrize("first", [[Close()], [b"H", Close()], [whole(200, b"ok")[:-1], Close()]])
async def test_no_retry_on_a_fresh_connection(tmp_path: Path, first: Script) -> None:
    async with (
        serve(tmp_path, first, OK) as upstream,
        PlainTransport(uds=upstream.uds) as transport,
    ):
        with pytest.raises(httpx.RemoteProtocolError, match="closed in the middle"):
            await fetch(transport, upstream)
        assert len(upstream.requests) == 1


@pytest.mark.usefixtures("long_kept")
async def test_no_retry_after_the_first_byte(tmp_path: Path) -> None:
    scripts: list[Script] = [OK, [b"HTTP", Close()], OK]
    async with serve(tmp_path, *scripts) as upstream, PlainTransport(uds=upstream.uds) as transport:
        await fetch(transport, upstream)
        with pytest.raises(httpx.RemoteProtocolError):
            await fetch(transport, upstream)
        assert len(upstream.requests) == 2


async def test_a_reset_in_the_body(tmp_path: Path) -> None:
    script: Script = [EVENTS_HEAD + chunk(b"one"), Pause(0.01), Reset()]
    async with serve(tmp_path, script, tcp=True) as upstream, PlainTransport() as transport:
        response = await transport.handle_async_request(request(upstream))
        pieces = aiter(response.stream)  # type: ignore[arg-type]
        assert await anext(pieces) == b"one"
        with pytest.raises(httpx.ReadError):
            await anext(pieces)
        await response.aclose()


async def test_one_piece_for_all_that_came(tmp_path: Path, autojump_clock: MockClock) -> None:
    script: Script = [
        EVENTS_HEAD + chunk(b"one") + chunk(b"two"),
        Pause(0.01),
        chunk(b"three") + CHUNKS_END,
    ]
    async with serve(tmp_path, script) as upstream, PlainTransport(uds=upstream.uds) as transport:
        response = await transport.handle_async_request(request(upstream))
        pieces = [piece async for piece in response.stream]  # type: ignore[union-attr]
        await response.aclose()
        assert pieces == [b"onetwo", b"three"]


async def test_what_came_before_rubbish_is_handed_over(tmp_path: Path) -> None:
    script: Script = [EVENTS_HEAD + chunk(b"one") + b"rubbish\r\n", Hold()]
    async with serve(tmp_path, script) as upstream, PlainTransport(uds=upstream.uds) as transport:
        response = await transport.handle_async_request(request(upstream))
        pieces = aiter(response.stream)  # type: ignore[arg-type]
        assert await anext(pieces) == b"one"
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(pieces)
        await response.aclose()


async def test_a_response_closed_under_its_reader(tmp_path: Path) -> None:
    script: Script = [EVENTS_HEAD + chunk(b"one"), Hold()]
    async with serve(tmp_path, script) as upstream, PlainTransport(uds=upstream.uds) as transport:
        response = await transport.handle_async_request(request(upstream))
        pieces = aiter(response.stream)  # type: ignore[arg-type]
        assert await anext(pieces) == b"one"

        async def read_on() -> None:
            for _ in range(2):
                with pytest.raises(httpx.ReadError):
                    await anext(pieces)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_on)
            await wait_all_tasks_blocked()
            await response.aclose()


async def test_a_response_closed_early_closes_the_connection(tmp_path: Path) -> None:
    script: Script = [EVENTS_HEAD + chunk(b"one"), Hold()]
    async with serve(tmp_path, script) as upstream, PlainTransport(uds=upstream.uds) as transport:
        response = await transport.handle_async_request(request(upstream))
        await response.aclose()
        with trio.fail_after(10):
            await upstream.gone.wait()


@pytest.mark.parametrize("script", [[Hold()], [EVENTS_HEAD, Hold()]])
async def test_cancelling_closes_the_connection(tmp_path: Path, script: Script) -> None:
    async with serve(tmp_path, script) as upstream:
        with trio.move_on_after(0.05):
            async with httpx.AsyncClient(transport=PlainTransport(uds=upstream.uds)) as client:
                await client.get("http://here/", timeout=None)
        with trio.fail_after(10):
            await upstream.gone.wait()


async def test_who_does_not_read_stops_the_reading(tmp_path: Path) -> None:
    script: Script = [EVENTS_HEAD, Repeat(chunk(b"x" * 4096), 0)]
    async with serve(tmp_path, script) as upstream, PlainTransport(uds=upstream.uds) as transport:
        response = await transport.handle_async_request(request(upstream))
        pieces = aiter(response.stream)  # type: ignore[arg-type]
        await anext(pieces)
        await wait_all_tasks_blocked()
        stopped_at = upstream.sent_bytes
        await wait_all_tasks_blocked(0.05)
        # What the kernel's buffers hold is out; nothing more is.
        assert upstream.sent_bytes == stopped_at < 2_000_000
        for _ in range(100):
            assert len(await anext(pieces)) <= 64 * 1024
        assert upstream.sent_bytes > stopped_at
        await response.aclose()


async def test_a_refusal_of_a_large_body_is_read(tmp_path: Path) -> None:
    async with serve(tmp_path, OK) as upstream, PlainTransport(uds=upstream.uds) as transport:
        large = httpx.Request("POST", upstream.url, content=b"x" * 3_000_000)
        response = await transport.handle_async_request(large)
        assert await response.aread() == b"ok"
        assert len(upstream.requests[0].body) == 3_000_000


async def test_deadlines(tmp_path: Path, autojump_clock: MockClock) -> None:
    scripts: list[Script] = [[Hang()], [EVENTS_HEAD, Hang()]]
    async with serve(tmp_path, *scripts) as upstream, PlainTransport(uds=upstream.uds) as transport:
        started = trio.current_time()
        with pytest.raises(httpx.ReadTimeout):
            await transport.handle_async_request(request(upstream))
        assert trio.current_time() - started == pytest.approx(60)
        response = await transport.handle_async_request(request(upstream))
        with pytest.raises(httpx.ReadTimeout):
            await response.aread()
        assert trio.current_time() - started == pytest.approx(120)


async def test_the_deadline_of_the_head(tmp_path: Path, autojump_clock: MockClock) -> None:
    interim = b"HTTP/1.1 102 Processing\r\n\r\n"
    good: Script = [whole(200, b"ok")[:-1], Pause(9), b"k"]
    async with (
        serve(tmp_path, [Repeat(interim, 1)], good) as upstream,
        PlainTransport(uds=upstream.uds) as transport,
    ):
        late = request(upstream)
        late.extensions["deadline"] = trio.current_time() + 3.5
        with trio.move_on_after(4) as scope, pytest.raises(httpx.ReadTimeout):
            await transport.handle_async_request(late)
        assert not scope.cancelled_caught
        # Once the head is there it counts no more.
        served = request(upstream)
        served.extensions |= {"timeout": {}, "deadline": trio.current_time() + 3.5}
        response = await transport.handle_async_request(served)
        assert await response.aread() == b"ok"


async def test_an_upstream_that_does_not_read(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serve(tmp_path, [Hang()]) as upstream, PlainTransport(uds=upstream.uds) as transport:
        endless = httpx.Request(
            "POST",
            upstream.url,
            headers={"content-length": "0"},
            stream=httpx.ByteStream(b"x" * 10_000_000),
            extensions={"timeout": TIMEOUT},
        )
        with pytest.raises(httpx.WriteTimeout):
            await transport.handle_async_request(endless)


async def test_nobody_listens(tmp_path: Path) -> None:
    async with PlainTransport(uds=str(tmp_path / "none.sock")) as transport:
        with pytest.raises(httpx.ConnectError, match="No such file"):
            await transport.handle_async_request(httpx.Request("GET", "http://x/"))


async def test_a_full_backlog_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "full.sock")
    listener = trio.socket.socket(socket.AF_UNIX)
    await listener.bind(path)
    listener.listen(0)
    with listener, ExitStack() as stack:
        while True:
            other = stack.enter_context(socket.socket(socket.AF_UNIX))
            other.setblocking(False)
            if other.connect_ex(path) == errno.EAGAIN:
                break
        async with PlainTransport(uds=path) as transport, trio.open_nursery() as nursery:
            late = httpx.Request("GET", "http://x/", extensions={"timeout": {"connect": 0.05}})
            with pytest.raises(httpx.ConnectTimeout):
                await transport.handle_async_request(late)
            patient = httpx.Request("GET", "http://x/")
            nursery.start_soon(transport.handle_async_request, patient)
            stack.close()
            said = b""
            while not said:
                # Those that filled the backlog are gone and say nothing.
                accepted, _ = await listener.accept()
                with accepted:
                    said = await accepted.recv(100)
            assert said.startswith(b"GET / HTTP/1.1")
            nursery.cancel_scope.cancel()


async def test_other_schemes_are_refused() -> None:
    with pytest.raises(httpx.UnsupportedProtocol):
        await PlainTransport().handle_async_request(httpx.Request("GET", "https://x/"))


async def test_head(tmp_path: Path) -> None:
    script: Script = [b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"]
    async with serve(tmp_path, script) as upstream, PlainTransport(uds=upstream.uds) as transport:
        response = await transport.handle_async_request(request(upstream, b"", "HEAD"))
        assert await response.aread() == b""


async def test_closing_closes_what_is_idle_and_what_comes_back(tmp_path: Path) -> None:
    scripts: list[Script] = [OK, [EVENTS_HEAD, Pause(0.01), CHUNKS_END, Hold()]]
    async with serve(tmp_path, *scripts) as upstream:
        transport = PlainTransport(uds=upstream.uds)
        await fetch(transport, upstream)
        response = await transport.handle_async_request(request(upstream))
        await transport.aclose()
        assert await response.aread() == b""
        with trio.fail_after(10):
            await upstream.gone.wait()


async def test_what_runs_can_be_broken_off(tmp_path: Path) -> None:
    async with serve(tmp_path, [EVENTS_HEAD, chunk(b"a"), Hang()], OK) as upstream:
        transport = PlainTransport(uds=upstream.uds)
        response = await transport.handle_async_request(request(upstream))
        pieces = response.stream.__aiter__()  # type: ignore[union-attr]
        assert await anext(pieces) == b"a"
        broken = trio.Event()

        async def read_on() -> None:
            with pytest.raises(httpx.RemoteProtocolError):
                await anext(pieces)
            broken.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_on)
            await wait_all_tasks_blocked()
            transport.break_off()
            with trio.fail_after(10):
                await broken.wait()
        await response.aclose()
        assert await fetch(transport, upstream) == b"ok"
        transport.break_off()
        assert await fetch(transport, upstream) == b"ok"  # not over the one that was kept
        await transport.aclose()
