"""Bytes to one socket, in order, with a deadline; the only memory is what the kernel holds.

A writer returns when its bytes are with the kernel, so a slow reader slows its own producers
and nobody else.
"""

import socket
from collections import deque

import trio


class WriteTimeout(Exception):
    """The reader took nothing for too long; a part of a frame may be out, so close."""


class SocketWriter:
    """Serialises the writes of several tasks to one non-blocking socket."""

    def __init__(self, sock: socket.socket, timeout_s: float) -> None:
        self._sock = sock
        self._timeout_s = timeout_s
        self._busy = False
        self._waiting: deque[trio.Event] = deque()

    async def write(self, data: bytes) -> None:
        """Write all of `data`; a checkpoint.

        Raises OSError where the peer is gone, WriteTimeout where it does not read. Cancellation
        takes effect before the first byte or after the last, never inside a frame.
        """
        if self._busy:
            await self._wait_for_turn()
        else:
            self._busy = True
        try:
            sent = self._send(data)
            if sent < len(data):
                await self._write_rest(memoryview(data)[sent:])
            else:
                await trio.lowlevel.checkpoint()
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

    async def _write_rest(self, data: memoryview) -> None:
        while data:
            with trio.move_on_after(self._timeout_s, shield=True) as scope:
                await trio.lowlevel.wait_writable(self._sock)
            if scope.cancelled_caught:
                raise WriteTimeout
            data = data[self._send(data) :]

    def _send(self, data: bytes | memoryview) -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
