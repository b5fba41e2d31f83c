"""Whom the transport over TLS trusts, and how it says that it does not."""

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio

from inferd_daemon.backends.http_messages import certificate_refusal
from inferd_daemon.backends.transport.tls import TlsTransport
from tests.support.certificate import Certificate, make_certificate
from tests.support.scripted_upstream import Script, serve, whole

OK: Script = [whole(200, b"ok")]


async def test_a_certificate_that_is_not_trusted(tmp_path: Path, certificate: Certificate) -> None:
    async with (
        serve(tmp_path, OK, tcp=True, tls=certificate.server()) as upstream,
        TlsTransport(ssl.create_default_context()) as transport,
    ):
        with pytest.raises(httpx.ConnectError, match="certificate verify failed") as caught:
            await transport.handle_async_request(httpx.Request("GET", upstream.url))
        assert certificate_refusal(caught.value) == "self-signed certificate"
        assert upstream.requests == []


async def test_a_certificate_of_another(tmp_path: Path) -> None:
    other = make_certificate(tmp_path, "DNS:example.org")
    async with (
        serve(tmp_path, OK, tcp=True, tls=other.server()) as upstream,
        TlsTransport(other.client()) as transport,
    ):
        with pytest.raises(httpx.ConnectError) as caught:
            await transport.handle_async_request(httpx.Request("GET", upstream.url))
        assert "not valid for '127.0.0.1'" in certificate_refusal(caught.value)
        assert upstream.requests == []


@asynccontextmanager
async def plain_listener(said: bytes | None) -> AsyncGenerator[str, None]:
    """Says so much to a greeting and closes; with None it says nothing, for ever."""

    async def handle(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        if said is None:
            await trio.sleep_forever()
        elif said:
            await stream.send_all(said)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield f"https://127.0.0.1:{listener.socket.getsockname()[1]}/"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("said", "words"),
    [(b"HTTP/1.1 400 Bad\r\n\r\n", "TLS failed: wrong version"), (b"", "closed the connection")],
)
async def test_who_speaks_no_tls(said: bytes, words: str, certificate: Certificate) -> None:
    async with plain_listener(said) as url, TlsTransport(certificate.client()) as transport:
        with pytest.raises(httpx.ConnectError, match=words):
            await transport.handle_async_request(httpx.Request("GET", url))


async def test_a_greeting_that_is_not_answered(certificate: Certificate) -> None:
    async with plain_listener(None) as url, TlsTransport(certificate.client()) as transport:
        late = httpx.Request("GET", url, extensions={"timeout": {"connect": 0.1}})
        with trio.fail_after(30), pytest.raises(httpx.ConnectTimeout):
            await transport.handle_async_request(late)


@pytest.mark.parametrize("host", [".example.org", "a" * 64 + ".org"])
async def test_a_name_that_no_certificate_has(
    host: str, certificate: Certificate, tmp_path: Path
) -> None:
    async with (
        serve(tmp_path, OK) as upstream,
        TlsTransport(certificate.client(), uds=upstream.uds) as transport,
    ):
        with pytest.raises(httpx.ConnectError):
            await transport.handle_async_request(httpx.Request("GET", f"https://{host}/"))


async def test_other_schemes_are_refused(certificate: Certificate) -> None:
    with pytest.raises(httpx.UnsupportedProtocol):
        await TlsTransport(certificate.client()).handle_async_request(
            httpx.Request("GET", "http://x/")
        )
