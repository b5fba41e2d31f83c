"""The bytes of one HTTP client's socket as a trio stream, for hypercorn and for TLS on top of it.

Writes go out at once where the kernel takes them, and have a deadline where the client does not
read. After `detach` the socket is another owner's, and nothing here closes it.
"""

import select
import socket

import trio

from ..writer import ClientGone, SocketWriter

WRITES_A_TURN = 16
"""Without a turn for others: who writes has nearly always waited for what it writes."""


class ClientStream(trio.abc.HalfCloseableStream):
    """Over a non-blocking socket."""

    def __init__(self, sock: socket.socket, write_timeout_s: float) -> None:
        self.socket = sock
        """As hypercorn looks at it, for the addresses."""
        self._writer = SocketWriter(sock, write_timeout_s)
        self._writes = 0

    @property
    def writing(self) -> bool:
        """Whether bytes are on their way."""
        return self._writer.pending

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Raises trio.BrokenResourceError where the client is gone or does not read."""
        self._writes += 1
        others = self._writes % WRITES_A_TURN == 0
        try:
            await self._writer.write(bytes(data), lets_others_run=others)
        except ClientGone as error:
            raise trio.BrokenResourceError(str(error)) from None

    async def wait_send_all_might_not_block(self) -> None:
        """As the interface wants it."""
        await trio.lowlevel.wait_writable(self.socket)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Raises trio.BrokenResourceError where the connection is broken."""
        while True:
            await trio.lowlevel.wait_readable(self.socket)
            try:
                return self.socket.recv(max_bytes or 65_536)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError(error.strerror) from None

    async def wait_left(self) -> None:
        """Until the client sends no more, although what it has sent before may not be read yet."""
        try:
            end = select.epoll(1)
        except OSError:
            await trio.sleep_forever()  # too many files are open: whoever reads next will see it
        with end:
            # of that alone: trio would wake for what can be read, which may be there all along
            end.register(self.socket, select.EPOLLRDHUP)
            await trio.lowlevel.wait_readable(end.fileno())

    async def send_eof(self) -> None:
        """The client reads its answer to the end, then the end."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise trio.BrokenResourceError(error.strerror) from None
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """At once."""
        self.socket.close()
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        """Reads end, and writes that wait for the client fail."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is gone already

    def detach(self) -> int:
        """The descriptor, which is its next owner's from here on."""
        return self.socket.detach()
