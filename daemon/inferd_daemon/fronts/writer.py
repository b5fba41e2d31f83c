"""Bytes to one socket, in order, with a deadline; the only memory is what the kernel holds.

A writer returns when its bytes are with the kernel, so a slow reader slows its own producers
and nobody else. Never lets another frame begin inside one that is only partly out.
"""

import fcntl
import socket
import termios
from collections import deque

import trio

from ..errors import CallerLeft


class ClientGone(CallerLeft):
    """Nothing more can be written to this client; close."""


class WriteTimeout(ClientGone):
    """The reader took nothing for too long; a part of a frame may be out."""


class SocketWriter:
    """Serialises the writes of several tasks to one non-blocking socket."""

    def __init__(self, sock: socket.socket, timeout_s: float) -> None:
        self._sock = sock
        self._timeout_s = timeout_s
        self._busy = False
        self._waiting: deque[trio.Event] = deque()
        self._rest = memoryview(b"")
        self._broken: ClientGone | None = None

    @property
    def pending(self) -> bool:
        """Whether bytes are on their way, or a part of a frame waits for the next write."""
        return self._busy or bool(self._rest)

    async def write(self, data: bytes, *, lets_others_run: bool = True) -> None:
        """Write all of `data`; a checkpoint, of which others get a turn unless told otherwise.

        Raises ClientGone where the peer is gone, WriteTimeout where it does not read; so does
        every write after that. Cancellation takes effect at once: `data` of which nothing is out
        is dropped, else what is left of it goes out before the next write.
        """
        if self._busy:
            await self._wait_for_turn()
        else:
            self._busy = True
        try:
            if self._rest:
                await self._write_rest()
            sent = self._send(data)
            if sent < len(data):
                self._rest = memoryview(data)[sent:]
                await self._write_rest()
            elif lets_others_run:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.checkpoint_if_cancelled()
        finally:
            self._pass_on()

    async def _wait_for_turn(self) -> None:
        turn = trio.Event()
        self._waiting.append(turn)
        try:
            await turn.wait()
        except trio.Cancelled:
            if turn.is_set():
                self._pass_on()
            else:
                self._waiting.remove(turn)
            raise

    def _pass_on(self) -> None:
        if self._waiting:
            self._waiting.popleft().set()  # the turn goes straight to the next: still busy
        else:
            self._busy = False

    async def _write_rest(self) -> None:
        while self._rest:
            unread = self._unread_bytes()
            with trio.move_on_after(self._timeout_s) as scope:
                await trio.lowlevel.wait_writable(self._sock)
            # a socket turns writable when most of it was read: less than that is progress too
            if scope.cancelled_caught and self._unread_bytes() >= unread:
                self._broken = WriteTimeout(f"took nothing for {self._timeout_s:g} s")
            self._rest = self._rest[self._send(self._rest) :]

    def _send(self, data: bytes | memoryview) -> int:
        if self._broken is not None:
            raise self._broken
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._broken = ClientGone(error.strerror)
            raise self._broken from None

    def _unread_bytes(self) -> int:
        """What the kernel holds for the peer to read."""
        answer = fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(answer, "little")
