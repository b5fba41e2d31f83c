"""Accepts on a listening socket, and goes on where descriptors or memory run out."""

import errno
import socket

import structlog
import trio

OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
RETRY_S = 0.1
"""The socket stays readable when accept fails for want of descriptors: pause, don't spin."""
AT_A_TIME = 32
"""Of those who came together, without a turn for the others: some 2 ms."""
_log = structlog.get_logger(__name__)


class Acceptor:
    """New clients of one socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._starved = False
        self._more = 0

    async def accept(self) -> socket.socket:
        """Wait for the next client. Raises OSError where the socket itself is broken."""
        while True:
            if self._more:
                self._more -= 1
                await trio.lowlevel.checkpoint_if_cancelled()
            else:
                await trio.lowlevel.wait_readable(self._sock)
                self._more = AT_A_TIME - 1
            try:
                sock = self._sock.accept()[0]
            except ConnectionAbortedError:
                continue
            except BlockingIOError:
                self._more = 0
            except OSError as error:
                if error.errno not in OUT_OF_RESOURCES:
                    raise
                if not self._starved:
                    _log.error("cannot accept clients, trying on", reason=error.strerror)
                self._starved = True
                await trio.sleep(RETRY_S)
            else:
                self._starved = False
                return sock
