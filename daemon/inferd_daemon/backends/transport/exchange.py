"""One request over one connection, until the head of its response is there.

An upstream may answer before it has read a long request: it is heard while the sending waits. It
must never send a request again; whoever called decides that.
"""

from math import inf

import httpx
import trio

from .connection import RECEIVE_BYTES, Connection
from .response_parser import ResponseParser

JOIN_BYTES = 64 * 1024
"""A body up to this is sent in one call with its head; copying a longer one costs more."""


class StaleConnection(Exception):
    """A reused connection died before any byte of the response."""


class Exchange:
    """A request to be sent over `connection`, whose answer goes to `parser`."""

    __slots__ = ("_connection", "_parser", "_request", "_silent")

    def __init__(
        self, connection: Connection, parser: ResponseParser, request: httpx.Request
    ) -> None:
        """Counts as one of the requests that the connection carries."""
        self._connection = connection
        self._parser = parser
        self._request = request
        self._silent = True
        connection.requests += 1

    async def run(self, data: list[bytes]) -> None:
        """Send `data` and read the head.

        Raises StaleConnection, or what a fresh connection's failure is in httpx's terms.
        """
        sent, lost = False, None
        try:
            sent = await self._send(data)
        except OSError as error:
            # A server that refuses a large body answers and closes before it has read all.
            lost = error
        await self._read_head(lost)
        if not sent:
            self._parser.reusable = False

    async def _send(self, data: list[bytes]) -> bool:
        """False where the answer made the rest needless. Raises OSError."""
        for part in data:
            timeout_s = time_for("write", self._request)
            if not await self._connection.send(part, timeout_s=timeout_s, hear=self._hear):
                return False
        return True

    def _hear(self, data: bytes) -> bool:
        """Take what came in the middle of sending; whether the rest need not be sent.

        One that begins a good answer may want the rest of the request all the same.
        """
        if not data:
            return True
        self._silent = False
        parser = self._parser
        parser.feed(data)
        if not parser.head_complete:
            return False
        held = sum(len(piece) for piece in parser.body)
        return parser.status >= 300 or parser.complete or held > RECEIVE_BYTES

    async def _read_head(self, lost: OSError | None) -> None:
        connection, parser = self._connection, self._parser
        timeout_s = time_for("read", self._request)
        deadline = inf if timeout_s is None else trio.current_time() + timeout_s
        while not parser.head_complete:
            try:
                received = await connection.receive(deadline)
            except OSError as error:
                lost, received = lost or error, b""
            if received is None:
                raise silence(timeout_s)
            if received:
                self._silent = False
                parser.feed(received)
                if not parser.head_complete and trio.current_time() >= deadline:
                    raise silence(timeout_s)  # interim heads come as long as the peer likes
            elif self._silent and connection.requests > 1:
                raise StaleConnection
            elif lost is not None:
                raise httpx.ReadError(f"connection lost: {lost}") from lost
            else:
                parser.feed_eof()


async def request_bytes(request: httpx.Request) -> list[bytes]:
    """What goes over the wire, in as many calls."""
    lines = [b"%b %b HTTP/1.1\r\n" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%b: %b\r\n" % header for header in request.headers.raw]
    lines.append(b"\r\n")
    if isinstance(request.stream, httpx.ByteStream):
        body = b"".join(request.stream)
    else:
        body = await request.aread()
    if len(body) > JOIN_BYTES:
        return [b"".join(lines), body]
    lines.append(body)
    return [b"".join(lines)]


def time_for(what: str, request: httpx.Request) -> float | None:
    """How long it may take, None where there is no limit."""
    timeout_s: float | None = request.extensions.get("timeout", {}).get(what)
    deadline: float | None = request.extensions.get("deadline")
    if deadline is None:
        return timeout_s
    left_s = max(0.0, deadline - trio.current_time())
    return left_s if timeout_s is None else min(timeout_s, left_s)


def silence(timeout_s: float | None) -> httpx.ReadTimeout:
    """What is raised where nothing came for so long."""
    return httpx.ReadTimeout(f"upstream sends nothing (waited {timeout_s:g} s)")
