"""Answers that come before the request was read, in clear and over TLS."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio

from inferd_daemon.backends.transport import PlainTransport
from inferd_daemon.backends.transport.tls import TlsTransport
from tests.support.certificate import Certificate
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
    Take,
    chunk,
    serve,
    whole,
)

LARGE = b"x" * 8_000_000
"""More than all buffers on the way hold."""
REFUSAL = whole(413, b"too big")
OK: Script = [Take(), whole(200, b"ok")]
INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n"
TIMEOUT = {"connect": 60.0, "read": 60.0, "write": 60.0}

Pair = tuple[ScriptedUpstream, PlainTransport]
Early = Callable[..., AbstractAsyncContextManager[Pair]]


@pytest.fixture(params=["unix", "tcp", "tls"])
def early(request: pytest.FixtureRequest, tmp_path: Path, certificate: Certificate) -> Early:
    """Serves scripts that begin before the request was read; gives a transport there as well."""

    @asynccontextmanager
    async def opened(*scripts: Script) -> AsyncGenerator[Pair, None]:
        tls = certificate.server() if request.param == "tls" else None
        tcp = request.param != "unix"
        async with serve(tmp_path, *scripts, tcp=tcp, tls=tls, early=True) as upstream:
            transport = PlainTransport(uds=upstream.uds)
            if tls is not None:
                transport = TlsTransport(certificate.client())
            async with transport:
                with trio.fail_after(60):
                    yield upstream, transport

    return opened


async def post(pair: Pair, body: bytes = LARGE) -> tuple[int, bytes]:
    upstream, transport = pair
    request = httpx.Request("POST", upstream.url, content=body, extensions={"timeout": TIMEOUT})
    response = await transport.handle_async_request(request)
    return response.status_code, await response.aread()


@pytest.mark.parametrize(
    "script",
    [
        [REFUSAL, Hang()],
        [REFUSAL, Close()],
        [Pause(0.05), REFUSAL[:20], Pause(0.05), REFUSAL[20:], Hang()],
        [INTERIM, Pause(0.01), INTERIM, REFUSAL, Hang()],
    ],
    ids=["held open", "closed", "in two pieces", "after interim heads"],
)
async def test_a_refusal_of_what_was_not_read_is_heard(early: Early, script: Script) -> None:
    async with early(script, OK) as pair:
        with trio.fail_after(30):
            assert await post(pair) == (413, b"too big")
        # only a part of the request went over that connection
        assert await post(pair, b"small") == (200, b"ok")
        seen = pair[0].requests
        assert [each.connection for each in seen] == [0, 1]
        assert seen[1].body == b"small"


@pytest.mark.usefixtures("long_kept")
@pytest.mark.parametrize(
    "script",
    [
        [INTERIM, Pause(0.05), *OK],
        [EVENTS_HEAD + chunk(b"o"), Pause(0.05), Take(), chunk(b"k") + CHUNKS_END],
    ],
    ids=["an interim head", "the begin of a good answer"],
)
async def test_who_goes_on_reading_gets_the_whole_request(early: Early, script: Script) -> None:
    async with early(script, OK) as pair:
        for _ in range(2):
            assert await post(pair) == (200, b"ok")
        seen = pair[0].requests
        assert [each.connection for each in seen] == [0, 0]
        assert [each.body == LARGE for each in seen] == [True, True]


async def test_a_whole_answer_makes_the_rest_needless(early: Early) -> None:
    async with early([whole(200, b"from the cache"), Hang()]) as pair:
        assert await post(pair) == (200, b"from the cache")


async def test_an_answer_is_not_gathered_for_want_of_a_reader(early: Early) -> None:
    async with early([EVENTS_HEAD, Repeat(chunk(b"x" * 4096), 0)]) as pair:
        upstream, transport = pair
        request = httpx.Request("POST", upstream.url, content=LARGE)
        response = await transport.handle_async_request(request)
        pieces = aiter(response.stream)  # type: ignore[arg-type]
        # two receives at most, and over TLS what was left of a record before
        assert 64 * 1024 < len(await anext(pieces)) <= (128 + 16) * 1024
        await response.aclose()
        await upstream.gone.wait()


@pytest.mark.usefixtures("long_kept")
async def test_a_reused_connection_that_ends_unread_is_stale(early: Early) -> None:
    async with early(OK, [Close()], OK) as pair:
        assert await post(pair, b"small") == (200, b"ok")
        assert await post(pair) == (200, b"ok")
        assert [each.connection for each in pair[0].requests] == [0, 0, 1]


async def test_a_fresh_connection_that_ends_unread_is_a_failure(early: Early) -> None:
    async with early([Close()], OK) as pair:
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await post(pair)
        assert len(pair[0].requests) == 1


async def test_cancelling_in_the_middle_of_sending(early: Early) -> None:
    async with early([INTERIM, Pause(0.1), Hold()]) as pair:
        with trio.move_on_after(0.3) as scope:
            await post(pair)
        assert scope.cancelled_caught


async def test_rubbish_instead_of_an_answer(early: Early) -> None:
    async with early([b"SSH-2.0-OpenSSH\r\n", Hang()]) as pair:
        with pytest.raises(httpx.RemoteProtocolError):
            await post(pair)


async def test_a_reset_in_the_middle_of_sending(tmp_path: Path) -> None:
    async with (
        serve(tmp_path, [Pause(0.05), Reset()], tcp=True, early=True) as upstream,
        PlainTransport() as transport,
    ):
        with pytest.raises(httpx.ReadError):
            await post((upstream, transport))
