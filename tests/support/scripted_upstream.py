"""An HTTP upstream that does exactly what its script says, byte for byte.

One script for each request, in order, the last for all that follow; a script is a list of steps.
It listens on a Unix socket, or on a loopback port where a reset is wanted, in the caller's own
event loop: with a test's clock, its pauses take no time.
"""

import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import trio


class Pause(NamedTuple):
    """Wait so long."""

    seconds: float


class Until(NamedTuple):
    """Wait until the test has set it."""

    told: trio.Event


class Repeat(NamedTuple):
    """Send `data` every `seconds` until the peer is gone; without a pause, as fast as it reads."""

    data: bytes
    seconds: float


class Hold:
    """Wait until the peer is gone, and note when."""


class Hang:
    """Never read nor write again, and notice nothing."""


class Take:
    """Read the body of the request, where it was not read (see `serve`)."""


class Close:
    """Close the connection. A script that ends without it goes on with the next request."""


class Reset:
    """Close with a TCP reset."""


Step = bytes | Pause | Until | Repeat | Hold | Hang | Take | Close | Reset
Script = Sequence[Step]


class OnHead(tuple[Step, ...]):
    """The script of every HEAD: some clients send one to warm a connection up, beside the request
    that they mean. It is none of `requests`, and who has sent nothing else is not seen leaving.
    """

    __slots__ = ()


class Received(NamedTuple):
    """One request as it came; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int


Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class PeerGone(Exception):
    """The peer closed, or broke, the connection."""


class ScriptedUpstream:
    """What it has seen: `requests`, the count of `connections`, `gone` when a peer left.

    `arrived` is set with the first request.
    """

    def __init__(
        self,
        scripts: Sequence[Script],
        uds: Path,
        port: int | None,
        scheme: str = "http",
        *,
        early: bool = False,
    ) -> None:
        self._scripts = [script for script in scripts if not isinstance(script, OnHead)]
        self._on_head = next((script for script in scripts if isinstance(script, OnHead)), None)
        self._early = early
        self._scheme = scheme
        self.uds = str(uds) if port is None else None
        self.port = port
        self.requests: list[Received] = []
        self.connections = 0
        self.sent_bytes = 0
        self.arrived = trio.Event()
        self.gone = trio.Event()
        self.gone_at = -1.0

    @property
    def url(self) -> str:
        """Where it listens; any host will do over a Unix socket."""
        host = "localhost" if self.port is None else f"127.0.0.1:{self.port}"
        return f"{self._scheme}://{host}"

    async def handle(self, stream: Stream) -> None:
        """Serve one connection."""
        number = self.connections
        self.connections += 1
        reader = _RequestReader(stream, number)
        meant = self._on_head is None
        async with stream:
            try:
                while True:
                    request = await reader.read(body=not self._early)
                    if self._on_head is not None and request.method == "HEAD":
                        for step in self._on_head:
                            await self._do(step, stream)
                        continue
                    meant = True
                    self.requests.append(request)
                    self.arrived.set()
                    index = min(len(self.requests), len(self._scripts)) - 1
                    for step in self._scripts[index]:
                        if isinstance(step, Take):
                            self.requests[-1] = await reader.read_body(self.requests[-1])
                        elif await self._do(step, stream):
                            return
            except (PeerGone, trio.BrokenResourceError):
                if meant:
                    self._note_gone()

    async def _do(self, step: Step, stream: Stream) -> bool:
        """Whether the connection ends here."""
        match step:
            case bytes():
                await self._send(stream, step)
            case Pause():
                await trio.sleep(step.seconds)
            case Until():
                await step.told.wait()
            case Repeat():
                while True:
                    await self._send(stream, step.data)
                    await trio.sleep(step.seconds)
            case Hold():
                await _read_some(stream)
            case Hang():
                await trio.sleep_forever()
            case Reset():
                assert isinstance(stream, trio.SocketStream)
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return True
            case Close():
                return True
        return False

    async def _send(self, stream: Stream, data: bytes) -> None:
        await stream.send_all(data)
        self.sent_bytes += len(data)

    def _note_gone(self) -> None:
        self.gone_at = trio.current_time()
        self.gone.set()


class _RequestReader:
    """Requests off one connection; pipelined ones are not expected."""

    def __init__(self, stream: Stream, connection: int) -> None:
        self._stream = stream
        self._connection = connection
        self._buffer = b""

    async def read(self, *, body: bool) -> Received:
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += await _read_some(self._stream)
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        request = Received(method, path, headers, b"", self._connection)
        return await self.read_body(request) if body else request

    async def read_body(self, request: Received) -> Received:
        length = int(request.headers.get("content-length", "0"))
        while len(self._buffer) < length:
            self._buffer += await _read_some(self._stream)
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return request._replace(body=body)


async def _read_some(stream: Stream) -> bytes:
    data = await stream.receive_some(65536)
    if not data:
        raise PeerGone
    return bytes(data)


@asynccontextmanager
async def serve(
    directory: Path,
    *scripts: Script,
    tcp: bool = False,
    tls: ssl.SSLContext | None = None,
    early: bool = False,
) -> AsyncGenerator[ScriptedUpstream, None]:
    """Serve `scripts` until the block ends; `tls` is spoken over `tcp`.

    With `early` a script begins once the head of its request is there.
    """
    if tcp:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        port = listener.socket.getsockname()[1]
        scheme = "https" if tls else "http"
        upstream = ScriptedUpstream(scripts, directory, port, scheme, early=early)
    else:
        path = directory / "upstream.sock"
        path.unlink(missing_ok=True)
        sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        await sock.bind(str(path))
        sock.listen(128)
        listener = trio.SocketListener(sock)
        upstream = ScriptedUpstream(scripts, path, None, early=early)
    async with trio.open_nursery() as nursery:
        served = listener if tls is None else trio.SSLListener(listener, tls)
        await nursery.start(trio.serve_listeners, upstream.handle, [served])
        yield upstream
        nursery.cancel_scope.cancel()


# -- what scripts are made of --------------------------------------------------------------

EVENTS_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
CHUNKS_END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(status: int, body: bytes, content_type: str = "application/json", *headers: str) -> bytes:
    """A response with its length."""
    lines = [
        f"HTTP/1.1 {status} Whatever",
        f"content-type: {content_type}",
        f"content-length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
