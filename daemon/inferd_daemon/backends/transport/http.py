"""The transport that httpx calls: one request over a pooled connection, its response as a stream.

Backpressure is the consumer's: bytes are received only when it asks for more. A request is sent
again only where a reused connection died before any byte of the response, and only once.
"""

from collections.abc import AsyncIterator, Callable
from math import inf
from types import TracebackType
from typing import Self
from weakref import WeakSet

import httpx
import trio

from .connection import MAX_REQUESTS, Connection, connect
from .exchange import Exchange, StaleConnection, request_bytes, silence, time_for
from .idle_pool import IdlePool
from .readiness_hub import ReadinessHub
from .response_parser import ResponseParser

Origin = tuple[str, int]


class ResponseBody(httpx.AsyncByteStream):
    """The body, one piece for each receive. Closing it before its end gives up the connection."""

    __slots__ = (
        "_connection",
        "_origin",
        "_parser",
        "_read_timeout_s",
        "_transport",
    )

    def __init__(
        self,
        transport: "PlainTransport",
        origin: Origin,
        connection: Connection,
        parser: ResponseParser,
        read_timeout_s: float | None,
    ) -> None:
        self._transport = transport
        self._origin = origin
        self._connection: Connection | None = connection
        self._parser = parser
        self._read_timeout_s = read_timeout_s

    @property
    def whole(self) -> bool:
        """The response has been received to its end."""
        return self._parser.complete

    @property
    def secure(self) -> bool:
        """It comes over TLS, where another connection costs more."""
        return self._transport.scheme == "https"

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """Raises httpx.ReadTimeout, ReadError, RemoteProtocolError; what came before them first."""
        timeout_s = self._read_timeout_s
        piece = await self.next_by(inf if timeout_s is None else trio.current_time() + timeout_s)
        if piece is None:
            self._close()
            raise silence(timeout_s)
        if not piece:
            raise StopAsyncIteration
        return piece

    async def next_by(self, deadline: float) -> bytes | None:
        """The next piece; b"" at the end, None when `deadline` came first.

        Raises httpx.ReadError, RemoteProtocolError; what came before them first.
        """
        parser = self._parser
        body = parser.body
        while not body:
            connection = self._connection
            if parser.failure is not None:
                self._close()
                raise parser.failure
            if parser.complete:
                return b""
            if connection is None:
                raise httpx.ReadError("the response was closed")
            try:
                data = await connection.receive(deadline)
                if data is None:
                    return None
                if data:
                    parser.feed(data)
                    # bytes that are no body come as long as the peer likes
                    if not (body or parser.complete) and trio.current_time() >= deadline:
                        return None
                else:
                    parser.feed_eof()
            except httpx.TransportError:
                self._close()
                raise
            except (OSError, trio.ClosedResourceError) as error:
                self._close()
                raise httpx.ReadError(f"connection lost: {error}") from error
        piece = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        return piece

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def aclose(self) -> None:
        """Keep the connection if the response was whole, else give it up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if not self._parser.complete:
                self._transport.leave(connection)
            elif self._parser.reusable:
                self._transport.release(self._origin, connection)
            else:
                connection.close()
        self._parser.release()


class PlainTransport(httpx.AsyncBaseTransport):
    """`http://` over TCP, or over the Unix socket `uds` whatever the host.

    Takes httpx's `timeout` extension: `connect`, `write`, and `read` for the head and for each
    receive of the body; besides it `deadline`, by trio's clock, of all until the head is there.
    Request bodies are gathered before they are sent.
    """

    scheme = "http"
    default_port = 80

    def __init__(
        self, *, uds: str | None = None, leave: Callable[[Connection], None] = Connection.close
    ) -> None:
        """`leave` gets each connection whose response nobody waits for any more."""
        self._uds = uds
        self._open: WeakSet[Connection] = WeakSet()
        self.leave = leave
        self._idle: IdlePool[Connection] = IdlePool()
        self._closed = False
        self._hub = ReadinessHub()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises httpx.ConnectError, WriteTimeout, ReadTimeout, ReadError, RemoteProtocolError."""
        url = request.url
        if url.scheme != self.scheme:
            raise httpx.UnsupportedProtocol(
                f"this transport speaks {self.scheme}://, not {url.scheme}://"
            )
        origin = (host_of(url), url.port or self.default_port)
        data = await request_bytes(request)
        kept = self._take_idle(origin)
        if kept is not None:
            try:
                return await self._exchange(kept, origin, request, data)
            except StaleConnection:
                pass
        fresh = await self._connect(request)
        self._open.add(fresh)
        return await self._exchange(fresh, origin, request, data)

    async def _connect(self, request: httpx.Request) -> Connection:
        """Raises httpx.ConnectError, ConnectTimeout."""
        host, port = host_of(request.url), request.url.port or self.default_port
        timeout_s = time_for("connect", request)
        return await connect(host, port, self._uds, timeout_s=timeout_s, hub=self._hub)

    def release(self, origin: Origin, connection: Connection) -> None:
        """Take back a connection whose response was read to its end."""
        if self._closed or connection.requests >= MAX_REQUESTS:
            connection.close()
            return
        now = trio.current_time()
        self._idle.put(origin, connection, now)
        self._close_expired(now)

    def break_off(self) -> bool:
        """End every connection, those in use too: their responses break as if the server had.

        False where there was none.
        """
        broken = [connection.break_off() for connection in list(self._open)]
        return any(broken)

    async def aclose(self) -> None:
        """Close what is idle; running responses close their own connection."""
        self._closed = True
        for connection in self._idle.clear():
            connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    def _take_idle(self, origin: Origin) -> Connection | None:
        self._close_expired(trio.current_time())
        while (connection := self._idle.take(origin)) is not None:
            if connection.is_quiet():
                return connection
            connection.close()
        return None

    def _close_expired(self, now: float) -> None:
        for connection in self._idle.expire(now):
            connection.close()

    async def _exchange(
        self, connection: Connection, origin: Origin, request: httpx.Request, data: list[bytes]
    ) -> httpx.Response:
        read_timeout_s = request.extensions.get("timeout", {}).get("read")
        parser = ResponseParser(head_only=request.method == "HEAD")
        try:
            await Exchange(connection, parser, request).run(data)
        except (StaleConnection, httpx.TransportError):
            connection.close()
            raise
        except BaseException:
            self.leave(connection)
            raise
        return httpx.Response(
            parser.status,
            headers=parser.headers,
            stream=ResponseBody(self, origin, connection, parser, read_timeout_s),
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": parser.reason},
        )


def host_of(url: httpx.URL) -> str:
    """As it is looked up and certified: `URL.host` decodes names, which fails for some."""
    return url.raw_host.decode("ascii")
