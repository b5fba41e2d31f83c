"""The transport over TLS: the same promises as in clear."""

import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from math import inf
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from inferd_daemon.backends.transport import Connection, connection
from inferd_daemon.backends.transport.tls import TlsConnection, TlsTransport
from tests.support.certificate import Certificate
from tests.support.scripted_upstream import (
    CHUNKS_END,
    EVENTS_HEAD,
    Close,
    Hang,
    Hold,
    Pause,
    Repeat,
    Script,
    ScriptedUpstream,
    chunk,
    serve,
    whole,
)

OK: Script = [whole(200, b"ok")]
TIMEOUT = {"connect": 60.0, "read": 60.0, "write": 60.0}

Pair = tuple[ScriptedUpstream, TlsTransport]
Served = Callable[..., AbstractAsyncContextManager[Pair]]


@pytest.fixture
def served(tmp_path: Path, certificate: Certificate) -> Served:
    """Serves scripts; gives a transport there as well."""

    @asynccontextmanager
    async def opened(*scripts: Script) -> AsyncGenerator[Pair, None]:
        async with (
            serve(tmp_path, *scripts, tcp=True, tls=certificate.server()) as upstream,
            TlsTransport(certificate.client()) as transport,
        ):
            with trio.fail_after(60):
                yield upstream, transport

    return opened


def request(upstream: ScriptedUpstream, **timeout: float) -> httpx.Request:
    return httpx.Request(
        "POST", f"{upstream.url}/v1/x", content=b"{}", extensions={"timeout": TIMEOUT | timeout}
    )


async def fetch(pair: Pair) -> bytes:
    upstream, transport = pair
    return await (await transport.handle_async_request(request(upstream))).aread()


async def something_more(transport: TlsTransport) -> None:
    """Until more has come over each connection that is kept."""
    for _, _, kept in transport._idle._idle:
        await trio.lowlevel.wait_readable(kept._socket)


@pytest.mark.usefixtures("long_kept")
async def test_connections_are_kept(served: Served) -> None:
    async with served(OK) as pair:
        for _ in range(91):
            assert await fetch(pair) == b"ok"
        assert [seen.connection for seen in pair[0].requests] == [0] * 90 + [1]


@pytest.mark.usefixtures("long_kept")
@pytest.mark.parametrize(
    "first",
    [
        [whole(200, b"alice") + whole(200, b"more of alice")],
        [whole(200, b"alice"), whole(200, b"more of alice")],
        [whole(200, b"alice"), Pause(0.01), b"rubbish"],
        [EVENTS_HEAD + chunk(b"alice") + CHUNKS_END + chunk(b"more") + CHUNKS_END],
    ],
    ids=["at once", "in a record of its own", "later", "chunks"],
)
async def test_what_is_left_behind_is_nobodys_answer(served: Served, first: Script) -> None:
    async with served(first, [whole(200, b"bob")], [whole(200, b"carol")]) as pair:
        assert await fetch(pair) == b"alice"
        await something_more(pair[1])
        assert await fetch(pair) == b"bob"
        assert await fetch(pair) == b"carol"
        assert [seen.connection for seen in pair[0].requests] == [0, 1, 1]


@pytest.mark.usefixtures("long_kept")
async def test_one_retry_where_a_reused_connection_dies_in_silence(served: Served) -> None:
    async with served(OK, [Close()], OK) as pair:
        assert await fetch(pair) == b"ok"
        assert await fetch(pair) == b"ok"
        assert [seen.connection for seen in pair[0].requests] == [0, 0, 1]


@pytest.mark.usefixtures("long_kept")
async def test_no_second_retry(served: Served) -> None:
    async with served(OK, [Close()], [Close()], OK) as pair:
        await fetch(pair)
        with pytest.raises(httpx.RemoteProtocolError):
            await fetch(pair)
        assert len(pair[0].requests) == 3


async def test_a_connection_that_the_upstream_closed_is_not_used(served: Served) -> None:
    async with served([whole(200, b"ok"), Close()]) as pair:
        await fetch(pair)
        await something_more(pair[1])
        await fetch(pair)
        assert (pair[0].connections, len(pair[0].requests)) == (2, 2)


async def test_a_response_that_is_cut(served: Served) -> None:
    async with served([EVENTS_HEAD + chunk(b"one"), Close()]) as pair:
        response = await pair[1].handle_async_request(request(pair[0]))
        pieces = aiter(response.stream)  # type: ignore[arg-type]
        assert await anext(pieces) == b"one"
        with pytest.raises(httpx.RemoteProtocolError, match="in the middle"):
            await anext(pieces)
        await response.aclose()


async def test_one_piece_for_all_that_came(served: Served) -> None:
    script: Script = [EVENTS_HEAD + chunk(b"1"), chunk(b"2"), chunk(b"3"), Pause(0.01), CHUNKS_END]
    async with served(script) as pair:
        response = await pair[1].handle_async_request(request(pair[0]))
        await wait_all_tasks_blocked(0.05)  # all has been sent
        pieces = [piece async for piece in response.stream]  # type: ignore[union-attr]
        assert b"".join(pieces) == b"123"
        assert len(pieces) <= 2
        await response.aclose()


async def test_much_goes_both_ways(served: Served) -> None:
    async with served([whole(200, b"y" * 2_000_000)]) as pair:
        large = httpx.Request("POST", pair[0].url, content=b"x" * 3_000_000)
        response = await pair[1].handle_async_request(large)
        pieces = [piece async for piece in response.stream]  # type: ignore[union-attr]
        await response.aclose()
        assert b"".join(pieces) == b"y" * 2_000_000
        assert max(map(len, pieces)) <= 2 * connection.RECEIVE_BYTES
        assert pair[0].requests[0].body == b"x" * 3_000_000


async def test_who_does_not_read_stops_the_reading(served: Served) -> None:
    async with served([EVENTS_HEAD, Repeat(chunk(b"x" * 4096), 0)]) as pair:
        response = await pair[1].handle_async_request(request(pair[0]))
        pieces = aiter(response.stream)  # type: ignore[arg-type]
        await anext(pieces)
        stopped_at = -1
        while pair[0].sent_bytes != stopped_at:  # the kernel may have room for a little more
            stopped_at = pair[0].sent_bytes
            await wait_all_tasks_blocked(0.05)
        assert stopped_at < 20_000_000
        await response.aclose()
        await pair[0].gone.wait()


@pytest.mark.parametrize("script", [[Hang()], [EVENTS_HEAD, Hang()]], ids=["head", "body"])
async def test_deadlines(served: Served, script: Script) -> None:
    async with served(script) as pair:
        with trio.fail_after(30), pytest.raises(httpx.ReadTimeout):
            await (await pair[1].handle_async_request(request(pair[0], read=0.1))).aread()


@pytest.mark.parametrize("script", [[Hold()], [EVENTS_HEAD, Hold()]], ids=["head", "body"])
async def test_cancelling_closes_the_connection(served: Served, script: Script) -> None:
    async with served(script) as pair:
        with trio.move_on_after(0.1):
            async with httpx.AsyncClient(transport=pair[1]) as client:
                await client.get(pair[0].url, timeout=None)
        await pair[0].gone.wait()


async def test_what_runs_can_be_broken_off(served: Served) -> None:
    async with served([EVENTS_HEAD, chunk(b"a"), Hang()]) as pair:
        response = await pair[1].handle_async_request(request(pair[0]))
        pieces = aiter(response.stream)  # type: ignore[arg-type]
        assert await anext(pieces) == b"a"
        assert pair[1].break_off()
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await anext(pieces)
        await response.aclose()


# -- what TLS tells for itself ---------------------------------------------------------------


@pytest.mark.usefixtures("long_kept")
@pytest.mark.parametrize("tickets", [0, 2, 200])
async def test_tickets_are_no_answers(
    tmp_path: Path, certificate: Certificate, tickets: int
) -> None:
    context = certificate.server()
    context.num_tickets = tickets
    async with (
        serve(tmp_path, OK, tcp=True, tls=context) as upstream,
        TlsTransport(certificate.client()) as transport,
    ):
        fresh = await transport._connect(request(upstream))
        await trio.sleep(0.05)
        assert isinstance(fresh, TlsConnection)
        assert fresh.is_quiet()
        fresh.close()
        for _ in range(3):
            assert await fetch((upstream, transport)) == b"ok"
        assert upstream.connections == 2


async def test_records_that_hold_nothing_keep_the_deadline(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def more(_: Connection, __: float = inf) -> bytes:
        await trio.sleep(0.001)
        return begun.pop() if begun else b"x"

    begun = [b"\x17\x03\x03\x40\x00"]  # a record of 16 KiB, of which one byte comes at a time
    async with served(OK) as (upstream, transport):
        fresh = await transport._connect(request(upstream))
        monkeypatch.setattr(Connection, "receive", more)
        with trio.fail_after(10):
            assert await fresh.receive(trio.current_time() + 0.1) is None
        fresh.close()


async def test_rubbish_under_tls(tmp_path: Path, certificate: Certificate) -> None:
    async def handle(stream: trio.SSLStream[trio.SocketStream]) -> None:
        await stream.receive_some()
        await stream.send_all(EVENTS_HEAD + chunk(b"one"))
        await stream.transport_stream.send_all(b"HTTP/1.1 200 OK\r\n\r\nin clear")
        await trio.sleep_forever()

    (plain,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = plain.socket.getsockname()[1]
    listener = trio.SSLListener(plain, certificate.server())
    async with trio.open_nursery() as nursery, TlsTransport(certificate.client()) as transport:
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        response = await transport.handle_async_request(
            httpx.Request("GET", f"https://127.0.0.1:{port}/")
        )
        pieces = aiter(response.stream)  # type: ignore[arg-type]
        assert await anext(pieces) == b"one"
        with pytest.raises(httpx.ReadError, match="wrong version"):
            await anext(pieces)
        await response.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("long_kept")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_every_version_that_is_safe(
    tmp_path: Path, certificate: Certificate, version: ssl.TLSVersion
) -> None:
    context = certificate.server()
    context.minimum_version = context.maximum_version = version
    script: Script = [EVENTS_HEAD + chunk(b"one"), Pause(0.01), chunk(b"two") + CHUNKS_END]
    async with (
        serve(tmp_path, script, tcp=True, tls=context) as upstream,
        TlsTransport(certificate.client()) as transport,
    ):
        for _ in range(3):
            assert await fetch((upstream, transport)) == b"onetwo"
        assert upstream.connections == 1


@pytest.mark.parametrize(
    ("said", "whole_answer"),
    [(whole(200, b"ok"), True), (b"HTTP/1.1 200 OK\r\n\r\nok", True), (EVENTS_HEAD, False)],
    ids=["a length", "no length", "cut"],
)
async def test_who_leaves_without_farewell(
    said: bytes, whole_answer: bool, certificate: Certificate
) -> None:
    """As most of the world's servers do."""

    async def handle(stream: trio.SSLStream[trio.SocketStream]) -> None:
        await stream.receive_some()
        await stream.send_all(said)
        await stream.transport_stream.aclose()

    (plain,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"https://127.0.0.1:{plain.socket.getsockname()[1]}/"
    listener = trio.SSLListener(plain, certificate.server())
    async with trio.open_nursery() as nursery, TlsTransport(certificate.client()) as transport:
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        for _ in range(2):
            response = await transport.handle_async_request(httpx.Request("GET", url))
            if whole_answer:
                assert await response.aread() == b"ok"
            else:
                with pytest.raises(httpx.RemoteProtocolError, match="in the middle"):
                    await response.aread()
                await response.aclose()
        nursery.cancel_scope.cancel()


async def test_http_1_1_is_agreed_on(tmp_path: Path, certificate: Certificate) -> None:
    context = certificate.server()
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with (
        serve(tmp_path, OK, tcp=True, tls=context) as upstream,
        TlsTransport(certificate.client()) as transport,
    ):
        fresh = await transport._connect(request(upstream))
        assert isinstance(fresh, TlsConnection)
        assert fresh._tls.selected_alpn_protocol() == "http/1.1"
        fresh.close()


async def test_over_a_unix_socket(tmp_path: Path, certificate: Certificate) -> None:
    path = str(tmp_path / "tls.sock")
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(path)
    sock.listen(1)

    async def handle(stream: trio.SSLStream[trio.SocketStream]) -> None:
        await stream.receive_some()
        await stream.send_all(whole(200, b"ok"))

    listener = trio.SSLListener(trio.SocketListener(sock), certificate.server())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        async with TlsTransport(certificate.client(), uds=path) as transport:
            response = await transport.handle_async_request(
                httpx.Request("GET", "https://localhost/")
            )
            assert await response.aread() == b"ok"
        nursery.cancel_scope.cancel()
