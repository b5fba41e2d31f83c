"""The same transport over TLS: the cipher stands between the socket and everything else.

It never waits for the peer's farewell: HTTP tells by itself whether a response is whole. Loading
it loads ssl, which takes long and is seldom needed.
"""

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from math import inf

import httpx
import trio

from .connection import RECEIVE_BYTES, UNREAD, Connection, time_limit
from .exchange import time_for
from .http import PlainTransport, host_of

SEND_BYTES = 256 * 1024
"""What is enciphered at once of a long request, which is held twice meanwhile."""
Hear = Callable[[bytes], bool]


class TlsTransport(PlainTransport):
    """`https://` over TCP, or over the Unix socket `uds` whatever the host."""

    scheme = "https"
    default_port = 443

    def __init__(self, context: ssl.SSLContext, *, uds: str | None = None) -> None:
        """`context` says who is trusted; how TLS is spoken here is set in it."""
        super().__init__(uds=uds)
        context.set_alpn_protocols(["http/1.1"])
        # Else the peer could want to read in the midst of writing, and the other way round.
        context.options |= ssl.OP_NO_RENEGOTIATION
        self._context = context

    async def _connect(self, request: httpx.Request) -> Connection:
        """Raises httpx.ConnectError, after the handshake's ssl.SSLError; ConnectTimeout."""
        started = trio.current_time()
        timeout_s = time_for("connect", request)
        plain = await super()._connect(request)
        try:
            connection = TlsConnection(plain, self._context, host_of(request.url))
            if timeout_s is not None:
                timeout_s = max(0.0, timeout_s - (trio.current_time() - started))
            with time_limit(timeout_s, httpx.ConnectTimeout, "upstream does not begin TLS"):
                await connection.handshake()
        except ssl.SSLError as error:
            plain.close()
            reason = (error.reason or "").replace("_", " ").lower() or str(error)
            raise httpx.ConnectError(f"TLS failed: {reason}") from error
        except (OSError, ValueError) as error:  # a name that no certificate can have
            plain.close()
            raise httpx.ConnectError(f"TLS failed: {error}") from error
        except BaseException:
            plain.close()
            raise
        return connection


class TlsConnection(Connection):
    """Takes over the socket of `plain`, which is only good for being closed afterwards."""

    __slots__ = ("_failure", "_incoming", "_outgoing", "_tls")

    def __init__(self, plain: Connection, context: ssl.SSLContext, name: str) -> None:
        """Raises ValueError where no certificate can have that name."""
        self._socket, self._hub, self._watched = plain._socket, plain._hub, plain._watched
        self.requests = 0
        self._failure: ssl.SSLError | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)

    async def handshake(self) -> None:
        """Raises OSError, of which ssl.SSLError is one."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                with suppress(OSError):
                    await self._flush()  # tells the peer why
                raise
            else:
                await self._flush()
                return
            await self._flush()
            received = await super().receive()
            if not received:
                raise ConnectionAbortedError("upstream closed the connection")
            self._incoming.write(received)

    async def send(
        self, data: bytes, *, timeout_s: float | None = None, hear: Hear | None = None
    ) -> bool:
        """As over a plain one; where it did not send all, nothing more can be sent."""
        whole, view = True, memoryview(data)
        with time_limit(timeout_s, httpx.WriteTimeout, UNREAD):
            while view and whole:
                while view and self._outgoing.pending < SEND_BYTES:
                    view = view[self._tls.write(view[:SEND_BYTES]) :]
                whole = await self._flush(hear)
        return whole

    async def _flush(self, hear: Hear | None = None) -> bool:
        data = self._outgoing.read()
        return not data or await super().send(data, hear=hear)

    async def receive(self, deadline: float = inf) -> bytes | None:
        """As over a plain one."""
        data = self._decipher()
        if data is not None:
            await trio.lowlevel.checkpoint()
        while data is None:
            received = await super().receive(deadline)
            if not received:
                return received
            self._incoming.write(received)
            data = self._decipher()
            if data is None:
                self._acknowledge()
                if trio.current_time() >= deadline:
                    return None  # records that hold nothing come as long as the peer likes
        return data

    def _acknowledge(self) -> None:
        """At once: some servers send tickets, and no answer before these have arrived."""
        with suppress(OSError):  # over a Unix socket
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def is_quiet(self) -> bool:
        """Nothing has come on an idle connection but what TLS tells for itself."""
        try:
            received = super()._said()
            if received:
                self._incoming.write(received)
                return self._decipher() is None
        except OSError:
            return False
        return received is None

    def _said(self) -> bytes | None:
        received = super()._said()
        if not received:
            return received
        self._incoming.write(received)
        return self._decipher()

    def _decipher(self) -> bytes | None:
        """All that is there, b"" at the end; None where nothing is. Raises ssl.SSLError."""
        if self._failure is not None:
            raise self._failure
        pieces: list[bytes] = []
        try:
            while piece := self._tls.read(RECEIVE_BYTES):
                pieces.append(piece)
        except ssl.SSLWantReadError:
            if not pieces:
                return None
        except ssl.SSLError as error:
            self._failure = error  # what came before it counts
            if not pieces:
                raise
        return b"".join(pieces)
