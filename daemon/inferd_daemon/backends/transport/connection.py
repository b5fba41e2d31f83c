"""One socket to an upstream: send, receive, close.

A plain non-blocking socket that waits through trio. It must never be left half open without an
owner: a peer that does not understand a half close would keep it for ever.
"""

import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import contextmanager, suppress
from math import inf
from typing import TYPE_CHECKING

import httpx
import trio

from .readiness_hub import TRICKLE_BYTES, ReadinessHub, Watched

if TYPE_CHECKING:
    from collections.abc import Generator

RECEIVE_BYTES = 64 * 1024
"""What one receive takes at most: the bound of what a stream holds in memory."""
MAX_REQUESTS = 90
"""llama-server closes a connection after 100 requests."""
BACKLOG_RETRY_S = (0.001, 0.032)
"""From first to longest: between two attempts to connect to a Unix socket with a full backlog."""

UNREAD = "upstream does not read the request"


class Connection:
    """An open connection; `requests` counts what it has carried.

    With a `hub` it waits there with all others, which costs less; without one, or where the hub can
    take no more, it waits alone.
    """

    __slots__ = ("__weakref__", "_hub", "_socket", "_watched", "requests")

    def __init__(self, sock: socket.socket, hub: ReadinessHub | None = None) -> None:
        self._socket = sock
        self._hub = hub
        self._watched: Watched | None = None
        if hub is not None:
            with suppress(OSError):
                self._watched = hub.add(sock.fileno())
        self.requests = 0

    async def send(
        self,
        data: bytes,
        *,
        timeout_s: float | None = None,
        hear: Callable[[bytes], bool] | None = None,
    ) -> bool:
        """Send all, True; or until `hear` says that it is enough, False.

        While the peer does not read, `hear` is given what it says, b"" for its end. Raises OSError
        where the peer is gone, httpx.WriteTimeout, what `hear` does.
        """
        if self._hub is not None and self._watched is not None:
            self._hub.expect(self._watched)
        sent = self._send_some(data)
        if sent == len(data):
            return True
        return await self._send_rest(memoryview(data)[sent:], timeout_s, hear)

    async def _send_rest(
        self, view: memoryview, timeout_s: float | None, hear: Callable[[bytes], bool] | None
    ) -> bool:
        with time_limit(timeout_s, httpx.WriteTimeout, UNREAD):
            while view:
                if hear is None:
                    await trio.lowlevel.wait_writable(self._socket)
                else:
                    await _wait_ready(self._socket)
                    said = self._said()
                    if said is not None and hear(said):
                        return False
                view = view[self._send_some(view) :]
        return True

    def _said(self) -> bytes | None:
        """What has come by now, b"" at the end; None where nothing has. Raises OSError."""
        try:
            return self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return None

    async def receive(self, deadline: float = inf) -> bytes | None:
        """What there is, at most `RECEIVE_BYTES`; b"" at the end, None when `deadline` came first.

        Raises OSError where the peer is gone, trio.ClosedResourceError. Always lets other tasks
        run.
        """
        hub, watched = self._hub, self._watched
        if hub is None or watched is None:
            return await self._receive_alone(deadline)
        while await hub.wait(watched, deadline):
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                watched.readable = False
                continue
            watched.trickles = len(data) < TRICKLE_BYTES
            if len(data) < RECEIVE_BYTES and not watched.ended:
                watched.readable = False  # that was all; what comes later is told anew
            return data
        return None

    async def _receive_alone(self, deadline: float) -> bytes | None:
        with trio.CancelScope(deadline=deadline):
            while True:
                await trio.lowlevel.wait_readable(self._socket)
                try:
                    return self._socket.recv(RECEIVE_BYTES)
                except BlockingIOError:
                    continue
        return None

    def _send_some(self, data: bytes | memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    def is_quiet(self) -> bool:
        """Nothing has come on an idle connection, no end either: it may carry a request."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def half_close(self) -> bool:
        """Say that nothing more will be sent and nothing is waited for; False where it is closed.

        To llama-server this is as good as a full close, and it closes its own side when it has
        let go of the request.
        """
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        return True

    def break_off(self) -> bool:
        """End it in both directions; whoever uses it sees its end, and still has to close it.

        False where it had ended.
        """
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return False
        return True

    async def wait_closed(self) -> None:
        """Wait until the peer closes, whatever it still sends; the caller sets the deadline."""
        try:
            while await self.receive():
                pass
        except (OSError, trio.ClosedResourceError):
            return

    def close(self) -> None:
        """Close fully, at once; who waits on it is woken. Closing again does nothing."""
        if self._socket.fileno() >= 0:
            if self._hub is not None and self._watched is not None:
                self._hub.remove(self._watched)
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


async def connect(
    host: str,
    port: int,
    uds: str | None,
    *,
    timeout_s: float | None = None,
    hub: ReadinessHub | None = None,
) -> Connection:
    """Connect to the Unix socket `uds`, else to `host` and `port`.

    Raises httpx.ConnectError, httpx.ConnectTimeout.
    """
    with time_limit(timeout_s, httpx.ConnectTimeout, "upstream does not accept the connection"):
        try:
            sock = await (_connect_tcp(host, port) if uds is None else _connect_unix(uds))
        except OSError as error:
            raise httpx.ConnectError(error.strerror or str(error)) from error
        except UnicodeError as error:  # of looking up what is no name
            raise httpx.ConnectError(f"{host!r} is no host name") from error
    return Connection(sock, hub)


async def _wait_ready(sock: socket.socket) -> None:
    """Until it can be read from, or written to, or is closed."""
    async with trio.open_nursery() as nursery:

        async def wait(ready: Callable[[socket.socket], Awaitable[None]]) -> None:
            with suppress(trio.ClosedResourceError):
                await ready(sock)
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait, trio.lowlevel.wait_readable)
        nursery.start_soon(wait, trio.lowlevel.wait_writable)


async def _connect_tcp(host: str, port: int) -> socket.socket:
    """A name may have several addresses; trio tries them side by side."""
    if (family := _family_of(host)) is not None:
        return await _connect_address(family, host, port)
    stream = await trio.open_tcp_stream(host, port)
    sock = socket.socket(fileno=stream.socket.detach())
    sock.setblocking(False)
    return sock


def _family_of(host: str) -> socket.AddressFamily | None:
    """Of a literal address without a scope; None for names."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return family
    return None


async def _connect_address(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    """Many streams that begin at once need many connections: this costs a tenth of the other."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sock.connect((host, port))
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                raise OSError(number, os.strerror(number)) from None
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect_unix(path: str) -> socket.socket:
    """Connects at once or not at all: Linux has no connecting state for Unix sockets.

    With a full backlog (llama-server's holds five) it says EAGAIN, and nothing tells when there is
    room; trio would take the socket for connected.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    wait_s, longest_s = BACKLOG_RETRY_S
    try:
        sock.setblocking(False)
        while True:
            try:
                sock.connect(path)
            except BlockingIOError:
                await trio.sleep(wait_s)
                wait_s = min(2 * wait_s, longest_s)
            else:
                return sock
    except BaseException:
        sock.close()
        raise


@contextmanager
def time_limit(
    seconds: float | None, failure: type[httpx.TimeoutException], message: str
) -> "Generator[None, None, None]":
    """Raise `failure` when the body takes longer; None sets no limit."""
    if seconds is None:
        yield
        return
    with trio.CancelScope(deadline=trio.current_time() + seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise failure(f"{message} (waited {seconds:g} s)")
