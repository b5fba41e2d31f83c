"""Answers that come before the request was read, in clear and over TLS."""

from pathlib import Path

import httpx
import pytest
import trio

from inferd_daemon.backends.transport import PlainTransport
from tests.support.scripted_upstream import (
    Close,
    Hang,
    Script,
    ScriptedUpstream,
    Take,
    serve,
    whole,
)

LARGE = b"x" * 8_000_000
"""More than all buffers on the way hold."""
REFUSAL = whole(413, b"too big")
INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n"
TIMEOUT = {"connect": 5.0, "read": 5.0, "write": 5.0}

Way = tuple[dict[str, object], PlainTransport]


def post(upstream: ScriptedUpstream, body: bytes = LARGE) -> httpx.Request:
    return httpx.Request("POST", upstream.url, content=body, extensions={"timeout": TIMEOUT})


@pytest.mark.parametrize("end", [[Hang()], [Close()]], ids=["held open", "closed"])
async def test_a_refusal_of_what_was_not_read_is_heard(tmp_path: Path, end: Script) -> None:
    async with (
        serve(tmp_path, [REFUSAL, *end], [Take(), whole(200, b"ok")], early=True) as upstream,
        PlainTransport(uds=upstream.uds) as transport,
    ):
        with trio.fail_after(4):
            response = await transport.handle_async_request(post(upstream))
            assert (response.status_code, await response.aread()) == (413, b"too big")
        # half a request was sent over that connection
        response = await transport.handle_async_request(post(upstream, b"small"))
        assert await response.aread() == b"ok"
        assert [seen.connection for seen in upstream.requests] == [0, 1]
        assert upstream.requests[1].body == b"small"
